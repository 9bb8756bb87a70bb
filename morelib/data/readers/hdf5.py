"""HDF5 for all readers: open, check, and read one slice; every failure is one line that names the file."""

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from morelib.errors import UserError

# What h5py raises for damaged files: found by flipping bytes of good ones.
DAMAGE: tuple[type[Exception], ...] = (
    OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError, MemoryError, EOFError
)  # fmt: skip

DEFLATE_LIMIT = 1032  # the most bytes that gzip packs into one


@contextmanager
def failures_named(path: Path, kind: str, *more: type[Exception]) -> Iterator[None]:
    """What fails while a file of some `kind` ("HDF5 file") is read becomes a UserError of one line naming it.

    `more` are exceptions of the library that reads it, besides DAMAGE.
    """
    try:
        yield
    except PermissionError as error:
        raise UserError(f"{path}: may not be read; change its permissions") from error
    except DAMAGE + more as error:
        cause = (str(error).splitlines() or [""])[0][:160] or type(error).__name__
        raise UserError(f"{path}: not a readable {kind} ({cause}); download or make it again") from error


@contextmanager
def open_hdf5(path: Path) -> Iterator[h5py.File]:
    """Open an HDF5 file for reading; a failure, then or while it is open, is a UserError naming it."""
    with failures_named(path, "HDF5 file"):
        if not path.is_file():
            raise UserError(
                f"{path}: no such file; check the path, or make data with `morelib phantom FOLDER`"
            )
        with h5py.File(path, "r", locking=False) as file:  # read-only network drives refuse locks
            yield file


def stamp(path: Path) -> tuple[int, int]:
    """Size and time of change of a file, by which what is known of it is kept. Raises UserError if it is gone."""
    try:
        status = os.stat(path)
    except OSError as error:
        raise UserError(f"{path}: no such file, or it may not be read; check the path") from error
    return status.st_size, status.st_mtime_ns


def array_of(file: h5py.File, path: Path, key: str, ndim: int | None) -> h5py.Dataset:
    """The dataset `key`; UserError where there is none, or not with `ndim` axes (None: any), none of them empty."""
    found = file.get(key)
    if not isinstance(found, h5py.Dataset):
        keys = ", ".join(sorted(file)[:8]) or "nothing"
        raise UserError(f"{path}: has no dataset {key!r} (it holds {keys}); give another file or convert it")
    if ndim is not None and (found.ndim != ndim or 0 in found.shape):
        raise UserError(
            f"{path}: {key} has shape {found.shape}, expected {ndim} axes, none empty; convert the file"
        )
    _require_plain(path, key, found.dtype)
    if found.size and found.nbytes > DEFLATE_LIMIT * stamp(path)[0]:
        raise UserError(f"{path}: too short for {key} of shape {found.shape}; download or make it again")
    return found


def attribute_of(file: h5py.File, path: Path, name: str, default: Any = None) -> Any:
    """An attribute of the file, `default` where it has none. Raises UserError for types that hold no plain values."""
    if name not in file.attrs:
        return default
    _require_plain(path, f"attribute {name}", file.attrs.get_id(name).dtype)
    return file.attrs[name]


def _require_plain(path: Path, what: str, dtype: np.dtype[Any]) -> None:
    """UserError for types of varying length other than text: where they are damaged, HDF5 itself crashes."""
    if dtype.kind == "O" and h5py.check_string_dtype(dtype) is None:
        raise UserError(f"{path}: {what} is neither numbers nor text; download the file again or convert it")


def text_of(value: Any) -> str:
    """A string attribute or scalar, however HDF5 stored it: bytes, str, numpy scalar, one-element array."""
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.item()
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)


def read_item(path: Path, key: str, index: int) -> NDArray[Any]:
    """`file[key][index]`, a new array.

    Where the dataset lies in one uncompressed piece, as fastMRI's do, its place in the file is remembered and the
    bytes are read without HDF5: no handle stays open, and threads do not wait for HDF5's lock. Raises UserError.
    """
    size, modified = stamp(path)
    place = _place(path, key, size, modified)
    if not place:
        with open_hdf5(path) as file:
            return np.asarray(array_of(file, path, key, None)[index])
    count = math.prod(place.shape[1:])
    offset = place.offset + index * count * place.dtype.itemsize
    if offset + count * place.dtype.itemsize > size:
        raise UserError(f"{path}: ends within {key} of slice {index}; download or make it again")
    with failures_named(path, "HDF5 file"):
        return np.fromfile(path, place.dtype, count, offset=offset).reshape(place.shape[1:])


class _Place(NamedTuple):
    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


@lru_cache(maxsize=65536)
def _place(path: Path, key: str, size: int, modified: int) -> _Place | None:
    """Where a contiguous dataset lies; None for chunked, compressed or empty ones. `size`, `modified`: of the file."""
    with open_hdf5(path) as file:
        data = array_of(file, path, key, None)
        contiguous = data.id.get_create_plist().get_layout() == h5py.h5d.CONTIGUOUS
        offset = data.id.get_offset() if contiguous and not data.external else None
        if offset is None or not data.dtype.isnative or data.dtype.hasobject:
            return None
        return _Place(offset, data.shape, data.dtype)
