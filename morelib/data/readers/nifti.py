"""Magnitude images in NIfTI files: ACDC (heart), Prostate158 (prostate), and any other.

They have no k-space. The one handed out is the Fourier transform of a magnitude slice, as if from a single coil: no
noise, no image phase, no coils, so reconstruction is easier than from measured data. Therefore `origin` is SIMULATED
and the acquisition itself says "(simulated)", so that no table can lose it.

An array (X, Y, Z) gives Z slices (y, x) = (Y, X), turned so that anterior or superior is up and the patient's left is
on the right, where the file says which way its axes point; x is the phase encode. Four axes (X, Y, Z, T) give the Z
slices of the first frame, then of the next. Voxels are divided by the largest of the file: published magnitudes have
no unit and differ by factors of thousands between files. Negative voxels, which interpolation leaves, become 0.

Not volumes, and left out by `left_out`, going by the file name: labels, ADC maps (quotients of images, which have no
k-space), Prostate158's empty placeholders, and ACDC's cines `*_4d`, whose two annotated frames lie beside them.
"""

import gzip
import logging
import math
import re
import zlib
from functools import lru_cache
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray
from torch import Tensor

from morelib.data.readers.hdf5 import DEFLATE_LIMIT, failures_named, stamp
from morelib.data.readers.kspace import require_finite
from morelib.data.volume import SIMULATED, VolumeInfo
from morelib.errors import UserError
from morelib.physics.fourier import fft2c

# It prints its small repairs to headers; what matters in a header is checked here.
logging.getLogger("nibabel.global").setLevel(logging.CRITICAL)

LAYOUT = "nifti"
SUFFIXES = (".nii", ".nii.gz")
NOT_A_VOLUME = re.compile(
    r"_gt\.|_4d\.|reader\d|tumou?r|anatomy|mask|label|(^|_)(seg|adc|empty)[_.]", re.IGNORECASE
)
ACDC_FRAME = re.compile(r"(?P<patient>patient\d+)_frame\d+\.nii(\.gz)?")
NIBABEL_FAILS = (ImageFileError, HeaderDataError, zlib.error)
PROSTATE158 = re.compile(r"(?P<contrast>t2|dwi)\.nii(\.gz)?")


def recognises(path: Path) -> bool:
    """Whether the name ends as NIfTI files do; what is inside shows when it is read."""
    return path.name.endswith(SUFFIXES)


def left_out(path: Path) -> bool:
    """Whether a NIfTI file is, by its name, no image to make k-space from."""
    return recognises(path) and NOT_A_VOLUME.search(path.name) is not None


def read_info(path: Path) -> VolumeInfo:
    """The header, checked. Raises UserError.

    The patient is ACDC's patient, so that both its frames stay in one split; for Prostate158 the numbered folder; for
    any other file its own name. Scanner and field strength are unknown: neither NIfTI nor ACDC's Info.cfg has them.
    """
    if left_out(path):
        raise UserError(f"{path}: a label, an ADC map or a cine by its name, not a volume; leave it out")
    width, height, depth, frames = _shape(_open(path), path)
    acquisition, anatomy, patient = "NIfTI", "unknown", path.name.split(".nii")[0]
    if acdc := ACDC_FRAME.fullmatch(path.name):
        acquisition, anatomy, patient = "CINE", "heart", acdc["patient"]
    elif (prostate := PROSTATE158.fullmatch(path.name)) and path.parent.name.isdigit():
        acquisition, anatomy = f"PROSTATE-{prostate['contrast'].upper()}", "prostate"
        patient = path.parent.name
    return VolumeInfo(
        path=path,
        name=f"{path.parent.name}/{path.name}",
        layout=LAYOUT,
        acquisition=f"{acquisition} (simulated)",
        anatomy=anatomy,
        patient=patient,
        n_slices=depth * frames,
        n_coils=1,
        readout=height,
        phase=width,
        recon=(height, width),
        padding=(0, width),
        max=1.0,  # by the scaling
        field_t=None,
        scanner=None,
        stored_target=True,
        undersampled=False,
        origin=SIMULATED,
    )


def read_slice(info: VolumeInfo, index: int) -> tuple[Tensor, Tensor | None]:
    """One slice: simulated k-space (1, y, x) complex64 and the magnitude image (y, x) float32, at most 1.

    Raises UserError naming file and slice for NaN or infinite voxels.
    """
    target = _volume(info.path, *stamp(info.path))[index].clone()
    require_finite(target, info.path, "the image", index)
    return fft2c(target.to(torch.complex64))[None], target


def _open(path: Path) -> Any:
    with failures_named(path, "NIfTI file", *NIBABEL_FAILS):
        if not path.is_file():
            raise UserError(f"{path}: no such file; check the path")
        return nibabel.load(path, mmap=False)


def _shape(image: Any, path: Path) -> tuple[int, int, int, int]:
    """(X, Y, slices, frames) of an image of real numbers that its file can hold. Raises UserError."""
    shape = image.shape
    while len(shape) > 4 and shape[-1] == 1:
        shape = shape[:-1]
    dtype = image.get_data_dtype()
    if not 2 <= len(shape) <= 4 or min(shape) < 1 or dtype.kind not in "iuf":
        raise UserError(
            f"{path}: holds {dtype} of shape {image.shape}, expected real numbers with 2 to 4 axes, none empty;"
            " give magnitude images"
        )
    room = stamp(path)[0] * (DEFLATE_LIMIT if path.name.endswith(".gz") else 1)
    if math.prod(shape) * dtype.itemsize > room:
        raise UserError(f"{path}: too short for its shape {shape}; download it again")
    width, height, depth, frames = (*shape, 1, 1)[:4]
    return width, height, depth, frames


@lru_cache(maxsize=32)  # packed files cannot be read by slice: the last volumes stay for the next slices
def _volume(path: Path, size: int, modified: int) -> Tensor:
    """All slices (slice, y, x), scaled to at most 1; float32. `size`, `modified`: of the file."""
    image = _open(path)
    shape = _shape(image, path)
    with failures_named(path, "NIfTI file", *NIBABEL_FAILS), np.errstate(all="ignore"):
        # Read to the end, as nibabel does not: only there a .gz file has its checksum.
        with (gzip.open if path.name.endswith(".gz") else open)(path, "rb") as stream:
            voxels = np.asanyarray(type(image).from_stream(stream).dataobj).reshape(shape)
            while stream.read(1 << 20):
                pass
        finite = np.isfinite(voxels)
        top = float(voxels.max(where=finite, initial=0))
        low = float(voxels.min(where=finite, initial=0))
        if low < -top:
            raise UserError(
                f"{path}: its values go from {low:g} to {top:g}; give magnitude images, or check the file"
            )
        scaled = (voxels / (top or 1)).astype(np.float32)
        upright = _upright(scaled.transpose(3, 2, 1, 0), image.affine)
    slices = np.ascontiguousarray(upright).reshape(-1, shape[1], shape[0])
    return torch.from_numpy(slices).clamp_(min=0)


def _upright(images: NDArray[np.float32], affine: NDArray[np.float64]) -> NDArray[np.float32]:
    """Images (..., y, x) turned so that anterior or superior is up and the patient's left on the right."""
    if not np.isfinite(affine).all():
        return images
    x, y, _ = nibabel.aff2axcodes(affine)
    images = images[..., ::-1, :] if y in ("A", "S") else images
    return images[..., ::-1] if x == "R" else images
