"""The fastMRI layout, which M4Raw and this project's phantom share.

A file has `kspace` (slices, coils, readout, phase) complex, `ismrmrd_header` (XML), usually `reconstruction_rss`
(slices, h, w) and attributes `acquisition`, `max`, `patient_id`. Undersampled files have a `mask` and no target.
"""

import re
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor

from morelib.data.readers.hdf5 import array_of, attribute_of, open_hdf5, read_item, text_of
from morelib.data.readers.ismrmrd_header import (
    acquired_columns,
    field_strength,
    header_number,
    parse_header,
    scanner_model,
)
from morelib.data.readers.kspace import own_mask, require_finite, rss_target
from morelib.data.volume import MEASURED, SYNTHETIC, VolumeInfo
from morelib.errors import UserError
from morelib.physics.masks import Mask

LAYOUT = "fastmri"
# M4Raw: subject (a date and a number), contrast, repetition.
M4RAW_NAME = re.compile(r"(?P<subject>\d{10})_(?P<contrast>T1|T2|FLAIR|GRE)\d+\.h5")


def recognises(path: Path) -> bool:
    """Whether the file has a k-space and an ISMRMRD header side by side."""
    with open_hdf5(path) as file:
        return "kspace" in file and "ismrmrd_header" in file


def read_info(path: Path) -> VolumeInfo:
    """Read and check the header; k-space itself is not read. Raises UserError.

    The padding is fastMRI's (`SliceDataset._retrieve_metadata`), clipped to the matrix.
    """
    with open_hdf5(path) as file:
        kspace = array_of(file, path, "kspace", 4)
        if kspace.dtype.kind != "c":
            raise UserError(f"{path}: kspace has type {kspace.dtype}, expected complex; convert the file")
        n_slices, n_coils, readout, phase = kspace.shape
        header = parse_header(array_of(file, path, "ismrmrd_header", None)[()], path)
        has_rss = "reconstruction_rss" in file
        recon = (
            min(header_number(header, path, "encoding/reconSpace/matrixSize/x", 1), readout),
            min(header_number(header, path, "encoding/reconSpace/matrixSize/y", 1), phase),
        )
        if has_rss:
            target = array_of(file, path, "reconstruction_rss", 3)
            if target.shape[0] != n_slices or target.dtype.kind != "f":
                raise UserError(
                    f"{path}: reconstruction_rss is {target.dtype} {target.shape}, expected real numbers for"
                    f" {n_slices} slices, like kspace; download or make the file again"
                )
            recon = (target.shape[1], target.shape[2])
        m4raw = M4RAW_NAME.fullmatch(path.name)
        named = attribute_of(file, path, "acquisition", m4raw["contrast"] if m4raw else "unknown")
        acquisition = " ".join(text_of(named).split())
        return VolumeInfo(
            path=path,
            name=path.name,
            layout=LAYOUT,
            acquisition=acquisition,
            anatomy="knee" if acquisition.startswith("COR") else "brain",
            # The repetitions and contrasts of an M4Raw subject are one patient, whatever their attributes say.
            patient=m4raw["subject"] if m4raw else text_of(attribute_of(file, path, "patient_id", path.stem)),
            n_slices=n_slices,
            n_coils=n_coils,
            readout=readout,
            phase=phase,
            recon=recon,
            padding=acquired_columns(header, path, phase),
            max=_maximum(file, path),
            field_t=field_strength(header),
            scanner=scanner_model(header),
            stored_target=has_rss,
            undersampled="mask" in file and not has_rss,
            origin=SYNTHETIC if attribute_of(file, path, "synthetic", False) else MEASURED,
        )


def read_slice(info: VolumeInfo, index: int) -> tuple[Tensor, Tensor | None]:
    """One slice: k-space (coil, y, x) complex64 and the target (h, w) float32, None where the file has none.

    Without `reconstruction_rss` a fully sampled file's target is the root sum of squares of its coil images,
    cropped. Raises UserError naming file and slice for NaN or infinite values.
    """
    with np.errstate(over="ignore"):  # beyond single precision: infinite, and refused
        kspace = torch.from_numpy(read_item(info.path, "kspace", index).astype(np.complex64, copy=False))
        require_finite(kspace, info.path, "kspace", index)
        if not info.stored_target:
            return kspace, rss_target(kspace, info, index)
        stored = read_item(info.path, "reconstruction_rss", index)
        target = torch.from_numpy(stored.astype(np.float32, copy=False))
    require_finite(target, info.path, "reconstruction_rss", index)
    return kspace, target


def read_mask(info: VolumeInfo) -> Mask:
    """The mask stored in an undersampled file (fastMRI's test sets). Raises UserError where there is none."""
    with open_hdf5(info.path) as file:
        columns = np.asarray(array_of(file, info.path, "mask", None)).ravel()
        if len(columns) != info.phase or columns.dtype.kind not in "biuf":
            raise UserError(
                f"{info.path}: mask has {len(columns)} columns of {columns.dtype}, kspace has {info.phase};"
                " download it again"
            )
    return own_mask(info, columns)


def _maximum(file: h5py.File, path: Path) -> float | None:
    stored = attribute_of(file, path, "max")
    if stored is None:
        return None
    try:
        maximum = float(text_of(stored))
        if np.isfinite(maximum) and maximum >= 0:
            return maximum
    except ValueError:
        pass
    raise UserError(f"{path}: attribute max is {stored!r}, expected a number; download the file again")
