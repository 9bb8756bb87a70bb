"""The members of a zip archive on a web server, downloaded one by one, resumed and verified."""

import hashlib
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Generator
from contextlib import closing
from itertools import pairwise
from pathlib import Path, PurePosixPath

from morelib.data.fetch.remote import RemoteFile
from morelib.errors import UserError

# A member's local header: 30 bytes, then its name and extra fields, of lengths known only from those 30.
HEADER = struct.Struct("<4s22xHH")
LONGEST_HEADER = HEADER.size + 2 * 0xFFFF


class WrongBytes(Exception):
    """What arrived is not what the archive's directory promises."""


class Archive:
    """The directory of a zip archive (ZIP64 too). Raises UserError if `file` is none."""

    def __init__(self, file: RemoteFile) -> None:
        self.file = file
        try:
            with zipfile.ZipFile(file) as listing:
                self._infos = listing.infolist()
                starts = sorted({info.header_offset for info in self._infos} | {listing.start_dir})
        except (zipfile.BadZipFile, NotImplementedError, OverflowError, ValueError, struct.error) as error:
            raise UserError(f"{file.url}: no readable zip archive ({error}); try again later") from error
        self._next = dict(pairwise(starts))

    def members(self, pattern: re.Pattern[str]) -> dict[str, zipfile.ZipInfo]:
        """Base name -> member, for the members whose base name is of `pattern`; folders do not matter.

        Raises UserError for archives that nobody with good intentions makes.
        """
        found: dict[str, zipfile.ZipInfo] = {}
        for info in self._infos:
            path = PurePosixPath(info.filename.replace("\\", "/"))
            if path.is_absolute() or ".." in path.parts:
                raise self._refusal(info, "leads outside the folder")
            if not pattern.fullmatch(path.name):
                continue
            if path.name in found:
                raise self._refusal(info, "is there twice")
            if info.flag_bits & 1 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise self._refusal(info, "is encrypted or packed in an unknown way")
            if info.header_offset < 0 or info.header_offset not in self._next:
                raise self._refusal(info, "lies outside the archive")
            found[path.name] = info
        return found

    def _refusal(self, info: zipfile.ZipInfo, why: str) -> UserError:
        return UserError(f"{self.file.url}: member {info.filename!r} {why}; the archive is refused")

    def stored(self, info: zipfile.ZipInfo, start: int) -> Generator[bytes, None, None]:
        """The member's bytes as they lie in the archive, from its byte `start` on. Raises WrongBytes."""
        at = info.header_offset
        if start:
            self.file.seek(at)
            at += _header_length(self.file.read(HEADER.size))
            yield from self.file.stream(at + start, at + info.compress_size)
            return
        # Header and bytes in one request: servers count them, Zenodo allows 60 a minute.
        head, skip, left = b"", 0, info.compress_size
        for chunk in self.file.stream(at, min(self._next[at], at + LONGEST_HEADER + left)):
            if len(head) < HEADER.size:
                head += chunk
                if len(head) < HEADER.size:
                    continue
                chunk, skip = head, _header_length(head)
            wanted = chunk[skip : skip + left]
            skip, left = max(0, skip - len(chunk)), left - len(wanted)
            yield wanted

    def download(
        self, info: zipfile.ZipInfo, target: Path, sha256: str | None, tick: Callable[[int], None]
    ) -> None:
        """Write the member to `target`, by way of `<target>.part`, which stays if this is cut short.

        A partial file is continued. What does not match the directory is removed and tried once more.
        `tick` is called with the number of bytes of the member that are there. Raises UserError, OSError.
        """
        part = part_path(target)
        wrong: str | None = None
        for _ in range(2):
            try:
                self._fill(info, part, tick)
                wrong = fault(part, info, sha256)
            except WrongBytes as error:
                wrong = str(error)
            if wrong is None:
                break
            part.unlink(missing_ok=True)
        else:
            raise UserError(f"{target}: wrong bytes arrive ({wrong}), twice; try another network, or later")
        if os.path.lexists(target):
            raise UserError(
                f"{target}: appeared during the download and is not replaced; move one of the two"
            )
        os.replace(part, target)

    def _fill(self, info: zipfile.ZipInfo, part: Path, tick: Callable[[int], None]) -> None:
        packed = info.compress_type == zipfile.ZIP_DEFLATED
        inflate = zlib.decompressobj(-zlib.MAX_WBITS)
        done = part.stat().st_size if part.exists() else 0
        if packed or done > info.file_size:
            done = 0
        try:
            with part.open("ab" if done else "wb") as sink, closing(self.stored(info, done)) as chunks:
                for chunk in chunks:
                    data = inflate.decompress(chunk, info.file_size - done + 1) if packed else chunk
                    done += len(data)
                    if done > info.file_size:
                        raise WrongBytes("more than the archive's directory says")
                    sink.write(data)
                    tick(done)
        except zlib.error as error:
            raise WrongBytes(str(error)) from error
        finally:
            if part.exists() and not part.stat().st_size:
                part.unlink()


def part_path(target: Path) -> Path:
    """Where the bytes of an unfinished `target` are kept."""
    return target.with_name(target.name + ".part")


def fault(path: Path, info: zipfile.ZipInfo, sha256: str | None) -> str | None:
    """What distinguishes the file from the member: its size, CRC-32 or SHA-256; None if nothing."""
    if not path.is_file():
        return "it is not a file"
    if (size := path.stat().st_size) != info.file_size:
        return f"{size} bytes instead of {info.file_size}"
    crc, digest = 0, hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            crc = zlib.crc32(block, crc)
            digest.update(block)
    if crc != info.CRC:
        return f"CRC-32 {crc:08x} instead of {info.CRC:08x}"
    if sha256 and digest.hexdigest() != sha256:
        return "another SHA-256 than published"
    return None


def _header_length(head: bytes) -> int:
    if len(head) < HEADER.size:
        raise WrongBytes("the archive ends within a member")
    signature, name, extra = HEADER.unpack_from(head)
    if signature != b"PK\x03\x04":
        raise WrongBytes("no member of the archive where its directory says")
    return HEADER.size + int(name) + int(extra)
