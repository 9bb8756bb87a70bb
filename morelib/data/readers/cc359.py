"""The Calgary-Campinas raw layout (CC359): 3-D T1 volumes of 12 coils, k-space in hybrid form, without a header.

A file has one dataset `kspace` (256, 218, 170 to 180, 24), float32, real and imaginary parts in turn along the last
axis. The readout (axis 0) is transformed already: slices lie along it, and its two ends hold no brain. Axis 1 is y,
the slice encode (axis 2) is x, the undersampled one; of it the scanner sampled 85 %, and the rest are zeros.

"Not centred" means that a plain `ifft2` of the stored array has the right magnitude. Two orders of k-space do that:
the zero frequency at n // 2, as in the published files (only then do the last 15 % of the columns hold the highest
frequencies of one side, and not low ones), or at 0. Which one a file has is seen from where its energy lies. After
reordering, if needed, the 85 % rule means the same for both, and a linear phase makes the k-space fastMRI's.
"""

from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
import torch
from torch import Tensor

from morelib.data.readers.hdf5 import array_of, open_hdf5, read_item, stamp
from morelib.data.readers.kspace import require_finite, rss_target
from morelib.data.volume import MEASURED, VolumeInfo
from morelib.errors import UserError

LAYOUT = "cc359"


def recognises(path: Path) -> bool:
    """Whether the file has a k-space of real numbers with four axes and no ISMRMRD header."""
    with open_hdf5(path) as file:
        kspace = file.get("kspace")
        real = isinstance(kspace, h5py.Dataset) and kspace.ndim == 4 and kspace.dtype.kind != "c"
        return real and "ismrmrd_header" not in file


def read_info(path: Path) -> VolumeInfo:
    """Shape and type, checked, and one slice in the middle, which shows the order of k-space. Raises UserError.

    The files name no scanner, field strength or patient: every file is its own patient.
    """
    _, n_slices, readout, phase, n_coils, _ = _look(path, *stamp(path))
    return VolumeInfo(
        path=path,
        name=path.name,
        layout=LAYOUT,
        acquisition="CC359-T1",
        anatomy="brain",
        patient=path.stem,
        n_slices=n_slices,
        n_coils=n_coils,
        readout=readout,
        phase=phase,
        recon=(readout, phase),
        padding=(0, acquired(phase)),
        max=None,
        field_t=None,
        scanner=None,
        stored_target=False,
        undersampled=False,
        origin=MEASURED,
    )


def read_slice(info: VolumeInfo, index: int) -> tuple[Tensor, Tensor | None]:
    """One slice: k-space (coil, y, x) complex64 and the root sum of squares of its coil images (y, x) float32.

    Raises UserError naming file and slice for NaN or infinite values.
    """
    look = _look(info.path, *stamp(info.path))
    with np.errstate(over="ignore"):  # beyond single precision: infinite, and refused
        values = read_item(info.path, "kspace", look.first + index).astype(np.float32, copy=False)
    pairs = torch.from_numpy(values).unflatten(-1, (-1, 2))
    require_finite(pairs, info.path, "kspace", index)
    kspace = torch.view_as_complex(pairs).permute(2, 0, 1).contiguous()
    if look.zero_first:
        kspace = torch.fft.fftshift(kspace, (-2, -1))
    kspace = kspace * (_centring(info.readout)[:, None] * _centring(info.phase))
    kspace[..., acquired(info.phase) :] = 0
    return kspace, rss_target(kspace, info, index)


def acquired(phase: int) -> int:
    """How many of the slice-encode columns were sampled: 85 %, rounded up."""
    return -(-17 * phase // 20)


def _centring(n: int) -> Tensor:
    """The linear phase (n,) that moves the image from its first sample to the middle, for k-space around n // 2."""
    turns = (torch.arange(n, dtype=torch.float64) - n // 2) * (n // 2) / n
    return torch.polar(torch.ones_like(turns), 2 * torch.pi * turns).to(torch.complex64)


class _Look(NamedTuple):
    first: int  # of the slices that are used
    n_slices: int
    readout: int
    phase: int
    n_coils: int
    zero_first: bool  # the zero frequency lies at index 0, not n // 2


@lru_cache(maxsize=4096)
def _look(path: Path, size: int, modified: int) -> _Look:
    """What the file says by its shape and its middle slice. `size`, `modified`: of the file."""
    with open_hdf5(path) as file:
        kspace = array_of(file, path, "kspace", 4)
        depth, readout, phase, channels = kspace.shape
        if kspace.dtype.kind != "f" or channels % 2:
            raise UserError(
                f"{path}: kspace is {kspace.dtype} {kspace.shape}, expected float32 with real and imaginary parts"
                " in turn along the last axis; convert the file"
            )
    trim = depth * 50 // 256  # [50:-50] of 256
    with np.errstate(all="ignore"):  # NaN and overflow are refused where their slice is read
        power = np.square(read_item(path, "kspace", depth // 2).astype(np.float64)).sum(-1)  # (y, x)
    shifted = np.fft.fftshift(power)
    zero_first = bool(_middle(shifted) > _middle(power))
    sampled = (shifted if zero_first else power)[:, : acquired(phase)]
    if 0 < np.count_nonzero(sampled) < sampled.size / 2:
        raise UserError(
            f"{path}: most of its k-space is zero, so it is undersampled in both encode directions;"
            " give the fully sampled files (Train, Val)"
        )
    return _Look(trim, depth - 2 * trim, readout, phase, channels // 2, zero_first)


def _middle(power: np.ndarray) -> float:
    """The energy of the middle eighth of both axes."""
    y, x = (slice(n // 2 - n // 16, n // 2 + n // 16 + 1) for n in power.shape)
    return float(power[y, x].sum())
