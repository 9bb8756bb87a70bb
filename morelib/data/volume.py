"""What a fastMRI-layout HDF5 file holds: its header as a record, and one slice at a time.

A file has `kspace` (slices, coils, readout, phase) complex, `ismrmrd_header` (XML), usually
`reconstruction_rss` (slices, h, w) and attributes `acquisition`, `max`, `patient_id`. fastMRI, M4Raw and this
project's phantom share it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import h5py
import numpy as np
import torch
from torch import Tensor

from morelib.errors import UserError
from morelib.physics.fourier import centre_crop, ifft2c
from morelib.physics.masks import Mask, mask_from_columns
from morelib.physics.sense import rss

# The columns of the paper's Table I, in its order, with the names printed there.
CATEGORY_NAMES = {
    "AXFLAIR": "AXFLAIR",
    "AXT1POST": "AXT1POST",
    "AXT2": "AXT2",
    "AXT1": "AXT1",
    "AXT1PRE": "AXT1PRE",
    "CORPDFS_FBK": "knee-fs",
    "CORPD_FBK": "knee-nofs",
}
CATEGORIES = tuple(CATEGORY_NAMES)


@dataclass(frozen=True)
class VolumeInfo:
    """The header of one volume; no image data. Sizes in samples.

    `readout`, `phase` are k-space's last two axes; `recon` (h, w) is the target's size; `padding` (left,
    right) bounds the acquired phase columns; `max` is the target's maximum (None: not stored, see
    `volume_max`); `field_t` in tesla. `undersampled` files bring their own mask; `has_target` says whether
    `read_slice` can return a target.
    """

    path: Path
    acquisition: str
    patient: str
    n_slices: int
    n_coils: int
    readout: int
    phase: int
    recon: tuple[int, int]
    padding: tuple[int, int]
    max: float | None
    field_t: float | None
    has_target: bool
    undersampled: bool
    synthetic: bool

    @property
    def name(self) -> str:
        """The file name, which also seeds the evaluation mask."""
        return self.path.name

    @property
    def anatomy(self) -> str:
        """`knee` for the coronal acquisitions of fastMRI, otherwise `brain`."""
        return "knee" if self.acquisition.startswith("COR") else "brain"


def find_volumes(folder: Path | str) -> list[VolumeInfo]:
    """The headers of all `*.h5` files directly in `folder`, by file name.

    Raises UserError for a missing or empty folder and for the first file that cannot be read.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(
            f"{folder}: no such folder; make data with `morelib phantom {folder}` or give another folder"
        )
    paths = sorted(path for path in folder.glob("*.h5") if not path.name.startswith("."))
    if not paths:
        raise UserError(f"{folder}: holds no .h5 files; make data with `morelib phantom {folder}`")
    return [read_info(path) for path in paths]


def read_info(path: Path | str) -> VolumeInfo:
    """Read and check the header of a fastMRI-layout file; k-space itself is not read.

    The padding is fastMRI's (`SliceDataset._retrieve_metadata`), clipped to the matrix. Raises UserError.
    """
    path = Path(path)
    with _open(path) as file:
        kspace = _array(file, path, "kspace", 4)
        if kspace.dtype.kind != "c":
            raise UserError(f"{path}: kspace has type {kspace.dtype}, expected complex; convert the file")
        n_slices, n_coils, readout, phase = kspace.shape
        header = _parse_header(file, path)
        has_rss = "reconstruction_rss" in file
        recon = (_number(header, path, "encoding/reconSpace/matrixSize/x"),
                 _number(header, path, "encoding/reconSpace/matrixSize/y"))  # fmt: skip
        if has_rss:
            target = _array(file, path, "reconstruction_rss", 3)
            if target.shape[0] != n_slices or target.dtype.kind != "f":
                raise UserError(
                    f"{path}: reconstruction_rss is {target.dtype} {target.shape}, expected real numbers for"
                    f" {n_slices} slices, like kspace; download or make the file again"
                )
            recon = (target.shape[1], target.shape[2])
        undersampled = "mask" in file and not has_rss
        return VolumeInfo(
            path=path,
            acquisition=_text(file.attrs.get("acquisition", "unknown")),
            patient=_text(file.attrs.get("patient_id", path.stem)),
            n_slices=n_slices,
            n_coils=n_coils,
            readout=readout,
            phase=phase,
            recon=recon,
            padding=_padding(header, path, phase),
            max=_maximum(file, path),
            field_t=_field_strength(header),
            has_target=has_rss or not undersampled,
            undersampled=undersampled,
            synthetic=bool(file.attrs.get("synthetic", False)),
        )


def read_slice(info: VolumeInfo, index: int) -> tuple[Tensor, Tensor | None]:
    """One slice: k-space (coil, y, x) complex64 and the target (h, w) float32, None where the file has none.

    Without `reconstruction_rss` a fully sampled file's target is the root sum of squares of its coil images,
    cropped. The file is opened and closed here. Raises UserError naming file and slice for NaN or infinite
    values.
    """
    with _open(info.path) as file:
        kspace = torch.from_numpy(
            _array(file, info.path, "kspace", 4)[index].astype(np.complex64, copy=False)
        )
        target = None
        if "reconstruction_rss" in file:
            target = torch.from_numpy(file["reconstruction_rss"][index].astype(np.float32, copy=False))
    for what, values in (("kspace", kspace), ("reconstruction_rss", target)):
        if values is not None and not bool(torch.isfinite(values).all()):
            raise UserError(
                f"{info.path}: {what} of slice {index} holds NaN or infinite values; download the file again"
                " or leave it out"
            )
    if target is None and info.has_target:
        target = centre_crop(rss(ifft2c(kspace), dim=0), info.recon)
    return kspace, target


def read_mask(info: VolumeInfo) -> Mask:
    """The mask stored in an undersampled file (fastMRI's test sets). Raises UserError where there is none."""
    with _open(info.path) as file:
        columns = np.asarray(_array(file, info.path, "mask", None)).ravel()
    if len(columns) != info.phase:
        raise UserError(
            f"{info.path}: mask has {len(columns)} columns, kspace has {info.phase}; download it again"
        )
    return mask_from_columns(columns, info.padding)


@lru_cache(maxsize=4096)
def volume_max(info: VolumeInfo) -> float:
    """The maximum of the volume's target: as stored, or by reading every slice once. 1.0 if that is zero.

    It is the data range of the SSIM loss, so it must not be zero.
    """
    stored = info.max
    if stored is None and info.has_target:
        targets = (read_slice(info, index)[1] for index in range(info.n_slices))
        stored = max(float(target.max()) for target in targets if target is not None)
    return stored or 1.0


@contextmanager
def _open(path: Path) -> Iterator[h5py.File]:
    """Open an HDF5 file for reading; a failure, then or while it is open, is a UserError naming it."""
    if not path.is_file():
        raise UserError(f"{path}: no such file; check the path, or make data with `morelib phantom FOLDER`")
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, RuntimeError) as error:
        cause = str(error).splitlines()[0][:160]
        raise UserError(f"{path}: not a readable HDF5 file ({cause}); download or make it again") from error


def _array(file: h5py.File, path: Path, key: str, ndim: int | None) -> h5py.Dataset:
    found = file.get(key)
    if not isinstance(found, h5py.Dataset):
        keys = ", ".join(sorted(file)[:8]) or "nothing"
        raise UserError(f"{path}: has no dataset {key!r} (it holds {keys}); give a fastMRI-layout file")
    if ndim is not None and (found.ndim != ndim or 0 in found.shape):
        raise UserError(
            f"{path}: {key} has shape {found.shape}, expected {ndim} axes, none empty; convert the file"
        )
    return found


def _maximum(file: h5py.File, path: Path) -> float | None:
    if "max" not in file.attrs:
        return None
    try:
        maximum = float(_text(file.attrs["max"]))
        if np.isfinite(maximum) and maximum >= 0:
            return maximum
    except ValueError:
        pass
    raise UserError(
        f"{path}: attribute max is {file.attrs['max']!r}, expected a number; download the file again"
    )


def _parse_header(file: h5py.File, path: Path) -> ElementTree.Element:
    """The ISMRMRD header. Document types and entities are refused: headers need none, and they expand."""
    raw = _array(file, path, "ismrmrd_header", None)[()]
    try:
        text = _text(raw)
        if "<!DOCTYPE" in text or "<!ENTITY" in text:
            raise UserError(
                f"{path}: ismrmrd_header declares a document type or entity; remove it from the file"
            )
        return ElementTree.fromstring(text)
    except (ElementTree.ParseError, UnicodeDecodeError, ValueError) as error:
        raise UserError(
            f"{path}: ismrmrd_header is not valid XML ({error}); download or make the file again"
        ) from error


def _find(header: ElementTree.Element, query: str) -> str | None:
    found = header.find("/".join("{*}" + tag for tag in query.split("/")))
    return None if found is None else found.text


def _number(header: ElementTree.Element, path: Path, query: str) -> int:
    value = _find(header, query)
    try:
        return int(value or "")
    except ValueError:
        raise UserError(
            f"{path}: ismrmrd_header has no whole number at {query}; give a fastMRI-layout file"
        ) from None


def _padding(header: ElementTree.Element, path: Path, phase: int) -> tuple[int, int]:
    limits = "encoding/encodingLimits/kspace_encoding_step_1/"
    left = phase // 2 - _number(header, path, limits + "center")
    right = left + _number(header, path, limits + "maximum") + 1
    left, right = max(left, 0), min(right, phase)
    if left >= right:
        raise UserError(
            f"{path}: ismrmrd_header puts every phase column outside the acquired range; check the header"
        )
    return left, right


def _field_strength(header: ElementTree.Element) -> float | None:
    try:
        return float(_find(header, "acquisitionSystemInformation/systemFieldStrength_T") or "")
    except ValueError:
        return None


def _text(value: Any) -> str:
    """A string attribute or scalar, however HDF5 stored it: bytes, str, numpy scalar, one-element array."""
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.item()
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)
