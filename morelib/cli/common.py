"""What several commands share."""

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
