"""Volumes of every layout through one door: which reader a file needs is found by looking at it."""

import os
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Protocol

from torch import Tensor

from morelib.data.readers import cc359, fastmri, nifti, raw
from morelib.data.volume import VolumeInfo
from morelib.errors import UserError
from morelib.physics.masks import Mask


class Reader(Protocol):
    """A module of this package: how one layout is recognised and read.

    K-space is handed out centred and orthonormal, as fastMRI's, the undersampled phase-encode axis last.
    """

    LAYOUT: str

    def recognises(self, path: Path) -> bool:
        """Whether the file has this layout. Raises UserError for a file that cannot be opened."""

    def read_info(self, path: Path) -> VolumeInfo:
        """The header, checked. Raises UserError."""

    def read_slice(self, info: VolumeInfo, index: int) -> tuple[Tensor, Tensor | None]:
        """K-space (coil, y, x) complex64 and the target (h, w) float32 or None. Raises UserError.

        New tensors, which the caller may change.
        """


READERS: tuple[Reader, ...] = (nifti, fastmri, cc359, raw)  # by name first, then the frequent ones
_BY_LAYOUT = {reader.LAYOUT: reader for reader in READERS}
_MASKS = {fastmri.LAYOUT: fastmri.read_mask, raw.LAYOUT: raw.read_mask}
SUFFIXES = (".h5", *nifti.SUFFIXES)


def read_info(path: Path | str) -> VolumeInfo:
    """The header of a volume, in whichever layout; a file of no known layout is read as fastMRI's, and complains."""
    path = Path(path)
    return next((reader for reader in READERS if reader.recognises(path)), fastmri).read_info(path)


def read_slice(info: VolumeInfo, index: int) -> tuple[Tensor, Tensor | None]:
    """One slice: k-space (coil, y, x) complex64 and the target (h, w) float32, None where there is none.

    The file is opened and closed here. Raises UserError naming file and slice for NaN or infinite values, and
    ValueError for an index out of range.
    """
    if not 0 <= index < info.n_slices:
        raise ValueError(f"slice {index} of {info.name}, which has {info.n_slices}")
    return _BY_LAYOUT[info.layout].read_slice(info, index)


def read_mask(info: VolumeInfo) -> Mask:
    """The mask that an undersampled file brings along. Raises UserError where there is none."""
    if info.layout not in _MASKS:
        raise UserError(f"{info.path}: a {info.layout} file has no mask of its own; draw one")
    return _MASKS[info.layout](info)


@lru_cache(maxsize=65536)
def volume_max(info: VolumeInfo) -> float:
    """The maximum of the volume's target: as stored, or by reading every slice once. 1.0 if that is zero.

    It is the data range of the SSIM loss, so it must not be zero.
    """
    stored = info.max
    if stored is None and info.has_target:
        targets = (read_slice(info, index)[1] for index in range(info.n_slices))
        stored = max(float(target.max()) for target in targets if target is not None)
    return stored or 1.0


def volume_paths(folder: Path | str) -> list[Path]:
    """The files below `folder`, at any depth, that may be volumes, sorted. Raises UserError if there are none.

    Links to folders are followed, but no file is listed twice, and loops end. Hidden files and folders do not count
    (half-written files are hidden), nor do labels and maps (`nifti.left_out`).
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(
            f"{folder}: no such folder; make data with `morelib phantom {folder}` or give another folder"
        )
    found: dict[str, Path] = {}
    for place, path in _files(folder):
        if path.name.endswith(SUFFIXES) and not nifti.left_out(path):
            found.setdefault(place, path)
    paths = sorted(found.values())
    if not paths:
        raise UserError(
            f"{folder}: holds no .h5 files and no NIfTI images; make data with `morelib phantom {folder}`"
        )
    return paths


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Every file below `folder` that is not hidden: where it really lies, and its path. Linked folders come last."""
    folders, links, seen = [folder], list[Path](), set[str]()
    while folders or links:
        current = folders.pop() if folders else links.pop()
        place = os.path.realpath(current)
        if place in seen:
            continue
        seen.add(place)
        try:
            entries = [entry for entry in os.scandir(current) if not entry.name.startswith(".")]
        except OSError as error:
            raise UserError(f"{current}: may not be read; change its permissions") from error
        for entry in sorted(entries, key=lambda entry: entry.name):
            path, linked = Path(entry), entry.is_symlink()
            if os.path.isdir(entry) if linked else entry.is_dir():
                (links if linked else folders).append(path)
            else:
                yield os.path.realpath(entry) if linked else f"{place}{os.sep}{entry.name}", path
