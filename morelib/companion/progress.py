"""Progress of the run-all: bars on a terminal, plain lines elsewhere."""

import time
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

_COLOURS = {"done": "green", "unchanged": "green", "failed": "red", "skipped": "yellow"}


class Progress:
    """Shows what runs and what has ended. Methods may be called from any thread."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(highlight=False, soft_wrap=True)
        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
        self._bars = Bars(
            *columns, console=self._console, transient=True, disable=not self._console.is_terminal
        )
        self._tasks: dict[str, TaskID] = {}
        self._began = time.monotonic()

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def say(self, text: str) -> None:
        """One line, with the seconds since the start before it."""
        self._console.print(f"[dim]{time.monotonic() - self._began:6.1f} s[/dim]  {escape(text)}")

    def start(self, chapter: str) -> None:
        """`chapter` starts now."""
        self._tasks[chapter] = self._bars.add_task(chapter, total=None)
        if not self._console.is_terminal:
            self.say(f"{chapter} started")

    def step(self, chapter: str, cell: int, of: int) -> None:
        """Code cell number `cell` (from 0) of `of` starts."""
        self._bars.update(self._tasks[chapter], completed=cell, total=of)

    def end(self, chapter: str, status: str, seconds: float, reason: str) -> None:
        """`chapter` ended; the first line of `reason` is shown."""
        if chapter in self._tasks:
            self._bars.remove_task(self._tasks.pop(chapter))
        took = f" in {seconds:.1f} s" if seconds else ""
        why = f": {reason.splitlines()[0]}" if reason else ""
        time_s = f"[dim]{time.monotonic() - self._began:6.1f} s[/dim]"
        self._console.print(f"{time_s}  {chapter} [{_COLOURS[status]}]{status}[/]{took}{escape(why)}")
