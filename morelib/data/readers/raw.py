"""ISMRMRD raw acquisitions, one readout after another, as scanners' converters and mridata.org write them.

A file has a group `dataset` with `xml`, the header, and `data`, a table of readouts with a head each; `raw_lines` says
which are read and where they go. Lines of the same place (averages) are averaged. Where all slices have every line
between the first and the last that any has, the file is fully sampled, and what lies outside is padding; otherwise it
is undersampled, and its mask holds the lines that all slices have.

With a second phase encode (3-D) that axis is transformed, and slices lie along it. Each line must then have all its
partitions between its first and its last; outside them they count as zero (elliptical shutters). What was read last
stays in memory: one slab of a 3-D file, one slice of a 2-D file. The package's own `read_acquisition` takes some 2 ms
a line; read by h5py in one request a line takes 0.1 ms.
"""

import hashlib
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from ismrmrd.hdf5 import acquisition_header_dtype
from numpy.lib.recfunctions import require_fields
from numpy.typing import NDArray
from torch import Tensor

from morelib.data.readers.hdf5 import array_of, open_hdf5, stamp
from morelib.data.readers.ismrmrd_header import (
    Header,
    field_strength,
    header_text,
    parse_header,
    scanner_model,
)
from morelib.data.readers.kspace import own_mask, require_finite, rss_target
from morelib.data.readers.raw_lines import Lines, image_lines
from morelib.data.volume import MEASURED, VolumeInfo
from morelib.errors import UserError
from morelib.physics.fourier import ifft1c
from morelib.physics.masks import Mask

LAYOUT = "ismrmrd"
ANATOMY = {
    "brain": ("brain", "head"),
    "knee": ("knee",),
    "heart": ("heart", "card"),
    "prostate": ("prostat",),
}
AT_ONCE = 1024  # lines read in one request


def recognises(path: Path) -> bool:
    """Whether the file has a group `dataset` with a header and readouts."""
    with open_hdf5(path) as file:
        return "dataset/xml" in file and "dataset/data" in file


def read_info(path: Path) -> VolumeInfo:
    """The header and the heads of all readouts, checked; no samples. Raises UserError.

    The patient is a hash of the header's patient ID, which may be a real one; the file name where it has none.
    """
    return _index(path, *stamp(path)).info


def read_slice(info: VolumeInfo, index: int) -> tuple[Tensor, Tensor | None]:
    """One slice: k-space (coil, y, x) complex64 and the root sum of squares (h, w) float32, None if undersampled.

    Raises UserError naming file and slice for NaN or infinite values.
    """
    key = (info.path, *stamp(info.path))
    slab, partition = divmod(index, _index(*key).lines.recon[2])
    kspace = _slab(*key, slab)[partition].clone(memory_format=torch.contiguous_format)
    require_finite(kspace, info.path, "kspace", index)
    return kspace, rss_target(kspace, info, index)


def read_mask(info: VolumeInfo) -> Mask:
    """The phase-encode lines that every slice has."""
    return own_mask(info, _index(info.path, *stamp(info.path)).columns)


class _Index(NamedTuple):
    info: VolumeInfo
    lines: Lines
    columns: NDArray[np.bool_]  # which every slice has


@lru_cache(maxsize=64)
def _index(path: Path, size: int, modified: int) -> _Index:
    """What a file holds, without its samples. `size`, `modified`: of the file."""
    with open_hdf5(path) as file, np.errstate(all="ignore"):
        header = parse_header(array_of(file, path, "dataset/xml", None)[()], path)
        data = array_of(file, path, "dataset/data", 1)
        if 32 * len(data) > size:  # a readout has at least that: its data are not packed
            raise UserError(f"{path}: too short for its {len(data)} readouts; download or make it again")
        if "data" not in (data.dtype.names or ()):
            raise UserError(
                f"{path}: dataset/data holds {data.dtype}, expected readouts; convert the file again"
            )
        heads = data.fields("head")[:]
        missing = _names(acquisition_header_dtype) - _names(heads.dtype)
        if missing:
            raise UserError(f"{path}: its readouts have no {min(missing)}; convert the file again")
        heads = require_fields(heads, acquisition_header_dtype)
    lines = image_lines(heads, header, path)
    sampled = lines.sampled
    if (np.diff(sampled.astype(np.int8), axis=1, prepend=0) == 1).sum(1).max() > 1:
        raise UserError(f"{path}: is undersampled along its second phase encode; leave it out")
    measured = sampled.max(1)  # (slab, column)
    columns = np.flatnonzero(measured.max(0))
    left, right = int(columns[0]), int(columns[-1]) + 1
    height, width, depth = lines.recon
    info = VolumeInfo(
        path=path,
        name=path.name,
        layout=LAYOUT,
        acquisition=header_text(header, "measurementInformation/protocolName") or "unknown",
        anatomy=_anatomy(header),
        patient=_patient(header) or path.stem,
        n_slices=len(measured) * depth,
        n_coils=lines.n_coils,
        readout=lines.height,
        phase=lines.width,
        recon=(height, width),
        padding=(left, right),
        max=None,
        field_t=field_strength(header),
        scanner=scanner_model(header),
        stored_target=False,
        undersampled=not measured[:, left:right].all(),
        origin=MEASURED,
    )
    return _Index(info, lines, measured.min(0))


@lru_cache(maxsize=1)
def _slab(path: Path, size: int, modified: int, slab: int) -> Tensor:
    """K-space (slice, coil, y, x) of one slice of a 2-D file, or of a 3-D slab, transformed along its depth."""
    lines = _index(path, size, modified).lines
    chosen = np.flatnonzero(lines.slabs == slab)
    with open_hdf5(path) as file, np.errstate(over="ignore", invalid="ignore"):
        readouts = file["dataset/data"].fields("data")
        kspace = np.zeros((lines.depth, lines.width, lines.n_coils, lines.height), np.complex64)
        count = np.zeros((lines.depth, lines.width), np.int64)
        for start in range(0, len(chosen), AT_ONCE):
            part = chosen[start : start + AT_ONCE]
            for line, values in zip(part, readouts[lines.numbers[part]], strict=True):
                place = lines.partitions[line], lines.columns[line]
                samples = np.asarray(values, np.float32).view(np.complex64).reshape(lines.n_coils, -1)
                kspace[place][:, lines.rows] += lines.signs[line] * samples[:, lines.keep]
                count[place] += 1
    kspace /= np.maximum(count, 1)[:, :, None, None]
    volume = torch.from_numpy(kspace).permute(0, 2, 3, 1)
    if lines.depth == 1:
        return volume
    for coil in range(lines.n_coils):  # one after another: a 3-D volume may fill most of the memory
        volume[:, coil] = ifft1c(volume[:, coil], 0)
    first = (lines.depth - lines.recon[2]) // 2
    return volume[first : first + lines.recon[2]]


def _names(dtype: np.dtype) -> set[str]:
    """Names of fields, and of fields of fields."""
    inner = {name for field in dtype.names or () for name in _names(dtype[field])}
    return {*(dtype.names or ()), *inner}


def _anatomy(header: Header) -> str:
    queries = "studyInformation/bodyPartExamined", "measurementInformation/protocolName"
    words = " ".join(header_text(header, query) or "" for query in queries).lower()
    return next((name for name, hints in ANATOMY.items() if any(hint in words for hint in hints)), "unknown")


def _patient(header: Header) -> str | None:
    identity = header_text(header, "subjectInformation/patientID")
    return hashlib.sha256(identity.encode()).hexdigest()[:12] if identity else None
