"""M4Raw: 0.3 T brain k-space of healthy volunteers, free, without registration, from Zenodo."""

import errno
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from morelib.data.fetch.archive import Archive, fault, part_path
from morelib.data.fetch.remote import AGAIN, RangesIgnored, RemoteFile, Server
from morelib.data.readers.fastmri import M4RAW_NAME
from morelib.errors import UserError

RECORD_URL = "https://zenodo.org/api/records/8056074"
LICENCE = "M4Raw, CC BY 4.0, doi:10.5281/zenodo.8056074"
SPLITS = {
    "train": "M4RawV1.5_multicoil_train.zip",
    "val": "M4RawV1.5_multicoil_val.zip",
    "test": "M4Raw_multicoil_test.zip",
}
# Published for single files; the others are checked by size and CRC-32.
SHA256 = {"2022061203_T101.h5": "d4156466a977a8bef888dff3141f78fbe93b3191c55f2632f2bd6410522399e7"}
LONGEST_RECORD = 1 << 24


# Told of the file at work, and how many bytes of all chosen files are there, of how many. It starts with what earlier
# runs left, and falls back where a file has to be fetched again.
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class FetchReport:
    """What a download did: files `fetched`, those `kept` as they were there; `note`: where fewer exist than asked."""

    folder: Path
    fetched: tuple[Path, ...]
    kept: tuple[Path, ...]
    note: str


def fetch_m4raw(
    out: Path | str,
    *,
    split: str = "val",
    subjects: int | None = None,
    base_url: str = RECORD_URL,
    progress: Progress = lambda file, done, total: None,
) -> FetchReport:
    """Download M4Raw volumes to `out`/multicoil_<split>/, about 12.5 MB each.

    Only the chosen files are transferred. A download cut short leaves `.part` files that the same call continues.
    A file that is there and right is kept; one that is there and different is never replaced.

    Args:
        out: made if missing.
        split: "train", "val" or "test".
        subjects: the first so many, sorted by number; None takes all.
        base_url: the Zenodo record's JSON.
        progress: called as bytes arrive.

    Raises:
        UserError: bad arguments, no network, a server that fails or ignores byte ranges, wrong bytes, a disk
            that is too small or full.
    """
    out, base_url = Path(out), base_url.rstrip("/")
    if split not in SPLITS:
        raise UserError(f"split {split!r}: unknown; choose one of {', '.join(SPLITS)}")
    if subjects is not None and subjects < 1:
        raise UserError(f"subjects {subjects}: nothing to fetch; give 1 or more")

    folder = out / f"multicoil_{split}"
    with Server(base_url) as server, _disk_errors(folder):
        archive = _opened(server, base_url, SPLITS[split], _size_of(server, base_url, SPLITS[split]))
        members = dict(sorted(archive.members(M4RAW_NAME).items()))
        available = sorted({_subject(name) for name in members})
        if not available:
            raise UserError(f"{archive.file.url}: no M4Raw volumes; check the record")
        chosen = available[:subjects]
        members = {name: info for name, info in members.items() if _subject(name) in chosen}
        total = sum(info.file_size for info in members.values())
        done = 0

        def tell(file: str, n_bytes: int) -> None:
            progress(file, done + n_bytes, total)

        folder.mkdir(parents=True, exist_ok=True)
        with _alone_in(folder):
            # Everything that can be refused is refused before the first byte is fetched.
            kept = [name for name in members if os.path.lexists(folder / name)]
            for name in kept:
                wrong = fault(folder / name, members[name], SHA256.get(name))
                if wrong:
                    raise UserError(
                        f"{folder / name}: is there, but is not the file of {SPLITS[split]} ({wrong});"
                        " move or delete it, or choose another folder"
                    )
                tell(name, members[name].file_size)
                done += members[name].file_size
            missing = [name for name in members if name not in kept]
            _require_space(folder, sum(members[n].file_size - _size(part_path(folder / n)) for n in missing))
            for name in missing:
                archive.download(members[name], folder / name, SHA256.get(name), partial(tell, name))
                done += members[name].file_size
    note = ""
    if subjects and subjects > len(available):
        note = f"{subjects} subjects asked for, {SPLITS[split]} has {len(available)}: all were taken"
    return FetchReport(
        folder, tuple(folder / name for name in missing), tuple(folder / name for name in kept), note
    )


def _subject(name: str) -> str:
    match = M4RAW_NAME.fullmatch(name)
    return match["subject"] if match else ""


def _opened(server: Server, url: str, name: str, size: int) -> Archive:
    """The archive at the address that honours byte ranges: the record's API, or else its page for readers."""
    try:
        return Archive(RemoteFile(server, f"{url}/files/{name}/content", size))
    except RangesIgnored:
        return Archive(RemoteFile(server, f"{url.replace('/api/', '/')}/files/{name}?download=1", size))


def _size_of(server: Server, url: str, archive: str) -> int:
    """Size in bytes of an archive, from the record's JSON."""
    try:
        files = {entry["key"]: entry for entry in json.loads(server.read(url, LONGEST_RECORD))["files"]}
        if archive not in files:
            raise UserError(f"{url}: the record has no {archive}; check the address")
        size = files[archive]["size"]
        if type(size) is not int or size < 1:
            raise ValueError("size")
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise UserError(
            f"{url}: answers with something else than the record's list of files;"
            " check the address, and that no login page stands in between"
        ) from error
    return size


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _require_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"{folder}: {needed / 1e9:.2f} GB needed, {free / 1e9:.2f} GB free; make room or ask for fewer subjects"
        )


@contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(f"{folder}: the disk is full; make room, then {AGAIN}") from error
        raise UserError(f"{folder}: {error.strerror or error}; choose another folder") from error


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Hold a lock on the folder: two downloads would write into the same `.part` files."""
    if sys.platform == "win32":
        yield
        return
    import fcntl

    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{folder}: another download writes there; wait for it to end") from None
        except OSError:
            pass  # a file system without locks
        yield
    finally:
        os.close(handle)
