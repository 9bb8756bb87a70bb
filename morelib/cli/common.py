"""What several commands share."""

import ctypes
import platform
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.progress import Progress

Root = Annotated[
    Path | None,
    typer.Option(help="The repository; by default the one around the current folder, or that folder."),
]


def repository(given: Path | None) -> Path:
    """The repository: as given, else the nearest folder upwards with notebooks and a book, else the current one."""
    here = Path.cwd()
    ours = (
        folder for folder in (here, *here.parents) if (folder / "notebooks" / "01_physics.ipynb").is_file()
    )
    return given or next(ours, here)


def keep_freed_memory() -> None:
    """Have the C library keep the memory of freed tensors for the next ones, up to 32 MiB each.

    By default it gives the larger ones back, and each new one is zeroed page by page: 5 to 15 % of a reconstruction's
    time on a processor. A process then stays as large as it was at its largest.
    """
    if platform.libc_ver()[0] == "glibc":
        trim_threshold, mmap_threshold = -1, -3  # their numbers in malloc.h
        library = ctypes.CDLL(None)
        library.mallopt(trim_threshold, -1)
        library.mallopt(mmap_threshold, 2**25)


def progress_bar(*, in_bytes: bool = False) -> "Progress":
    """A bar that is gone when the work is done, and silent where nobody watches."""
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    amount = (DownloadColumn(), TransferSpeedColumn()) if in_bytes else (MofNCompleteColumn(),)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        *amount,
        TimeRemainingColumn(),
        transient=True,
        disable=not sys.stdout.isatty(),
    )
