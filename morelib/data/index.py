"""Headers remembered between runs, so that a start on thousands of files does not open them all again."""

import hashlib
import json
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any, Self

from morelib.data.readers import read_info, volume_paths
from morelib.data.readers.hdf5 import stamp
from morelib.data.volume import VolumeInfo
from morelib.files import read_json, write_text

_NAMES = [field.name for field in fields(VolumeInfo) if field.name != "path"]


class Index:
    """The headers of files, remembered in the JSON file `path`; with None they are only read.

    Use it in a `with` statement: at its end, even after an error, what is new is written. A header is read anew
    where size or time of change of its file differ. An index that is damaged, or was made by other readers, is made
    anew; one that cannot be written is done without.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        # absolute path: size, time of change in ns, the fields of the header but its path
        self._entries = _load(path) if path else {}
        self._changed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self.path and self._changed:
            there = {key: entry for key, entry in self._entries.items() if os.path.exists(key)}
            with suppress(OSError):  # it only saves time
                write_text(self.path, json.dumps({"made_by": _made_by(), "files": there}))

    def read(self, path: Path) -> VolumeInfo:
        """`read_info(path)`, remembered. Raises UserError."""
        key, (size, modified) = os.path.abspath(path), stamp(path)
        entry = self._entries.get(key)
        if entry and entry[:2] == [size, modified]:
            return VolumeInfo(path=path, **dict(zip(_NAMES, entry[2:], strict=True)))
        info = read_info(path)
        self._entries[key] = [size, modified, *(getattr(info, name) for name in _NAMES)]
        self._changed = True
        return info


def find_volumes(
    folder: Path | str, index: Path | None = None, on_file: Callable[[int, int], None] | None = None
) -> list[VolumeInfo]:
    """The headers of all volumes below `folder`, by path, remembered in the JSON file `index` if given.

    `on_file(done, total)` is called after each file. Raises UserError for a missing or empty folder and for the
    first file that cannot be read.
    """
    paths, volumes = volume_paths(folder), []
    with Index(index) as remembered:
        for done, path in enumerate(paths, start=1):
            volumes.append(remembered.read(path))
            if on_file:
                on_file(done, len(paths))
    return volumes


def _load(index: Path) -> dict[str, list[Any]]:
    content = read_json(index)
    try:
        if content["made_by"] != _made_by():
            return {}
        entries = {
            key: [tuple(value) if isinstance(value, list) else value for value in entry]
            for key, entry in content["files"].items()
        }
    except (TypeError, KeyError, AttributeError):
        return {}
    return entries if all(len(entry) == 2 + len(_NAMES) for entry in entries.values()) else {}


@cache
def _made_by() -> str:
    """What a header says follows from these sources; another version of them makes another index."""
    here = Path(__file__).parent
    sources = [here / "volume.py", *sorted((here / "readers").glob("*.py"))]
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:16]
