"""Hashes that decide whether something already made is still current."""

import hashlib
import json
import sys
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import morelib

PACKAGES = ("torch", "fastmri", "numpy", "scipy", "lightning-fabric", "matplotlib", "plotly")
NUMERICAL_ROOMS = ("physics", "data", "routing", "nn", "evaluation", "training")
_PROFILES = ".yaml"  # inside the package only profiles are; whoever depends on one hashes that one


def digest(*parts: Any) -> str:
    """16 hexadecimal digits of the SHA-256 of `parts`: bytes as they are, all else as JSON."""
    sha = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else json.dumps(part, sort_keys=True, default=str).encode()
        sha.update(len(data).to_bytes(8, "little") + data)
    return sha.hexdigest()[:16]


def hash_folder(folder: Path, skip: tuple[str, ...] = ()) -> str:
    """Hash of names and contents of all files below `folder`, less some suffixes; a missing folder is an empty one."""
    skip = (".pyc", *skip)
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix not in skip)
    return digest(*(part for p in paths for part in (p.relative_to(folder).as_posix(), p.read_bytes())))


@cache
def library_hash(*rooms: str) -> str:
    """Hash of the library's sources, or of some of its rooms only. Kept for the life of the process."""
    package = Path(morelib.__file__).parent
    return digest(*(hash_folder(package / room, (_PROFILES,)) for room in rooms or (".",)))


@cache
def versions() -> dict[str, str]:
    """Versions of Python and of the packages that results depend on."""
    python = ".".join(map(str, sys.version_info[:3]))
    return {"python": python, "morelib": version("morelib"), **{name: version(name) for name in PACKAGES}}
