"""Run-all: execute the notebooks of a profile, two at a time, and compile the book.

A chapter is run again only when its notebook, the library, the profile, the data or a chapter it needs has changed.
A chapter that fails loses its old result: its page then says what went wrong, and the exit code is 1.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass
from functools import cached_property
from functools import partial as partial_call
from pathlib import Path
from typing import Literal

from morelib.companion.execute import kernel_environment
from morelib.companion.fingerprint import digest, hash_folder, library_hash, versions
from morelib.companion.notebooks import (
    CHAPTERS,
    Chapter,
    check_parameters,
    finish,
    select,
    stub,
    write_notebook,
)
from morelib.companion.progress import Progress
from morelib.companion.run_card import device_name
from morelib.companion.runner import NotebookFailed, Runner
from morelib.companion.session import Companion
from morelib.data.readers import volume_paths
from morelib.files import atomic_path, read_json, write_json

Status = Literal["done", "unchanged", "failed", "skipped"]


@dataclass(frozen=True)
class Outcome:
    """What became of one chapter. A failed one has its notebook up to the failure in `partial`, if it got that far."""

    chapter: str
    status: Status
    seconds: float = 0.0
    reason: str = ""
    partial: Path | None = None


def reproduce(
    profile: str,
    root: Path | str,
    *,
    only: Sequence[str] = (),
    jobs: int = 2,
    force: bool = False,
    chapters: Sequence[Chapter] = CHAPTERS,
    build: Callable[[Path], Path] | None = None,
) -> tuple[list[Outcome], Path]:
    """Run the chapters and compile the book; return what became of each, and the path of the start page.

    Args:
        profile, root: see `Companion`.
        only: names or numbers of chapters; those they need come with them. Empty: all.
        jobs: notebooks at a time; the processor's cores are divided among them.
        force: run unchanged chapters too.
        chapters: the table of notebooks in `root/notebooks`.
        build: compiles `root/book`; `morelib.companion.book.build_book` unless given.

    Raises:
        UserError: unknown profile or chapter, a notebook that is missing or lacks a parameter, no data.
        BookError: the book did not compile.
    """
    from morelib.companion.book import build_book

    companion = Companion(profile, root)
    run = _RunAll(companion, chapters, force)
    wanted = select(chapters, only)
    for chapter in wanted:
        check_parameters(run.notebook(chapter), run.parameters)
    with Progress() as progress:
        progress.say(f"profile {companion.profile.name}: {companion.profile.description}")
        companion.splits()  # makes the phantom, once, before notebooks that share it start
        progress.say(f"data: {companion.describe_data()}")
        outcomes = run.execute(wanted, jobs, progress)
        run.publish()
        progress.say("compiling the book")
        page = (build or build_book)(companion.root)
    return outcomes, page


class _RunAll:
    """The notebooks of one profile and where their results go."""

    def __init__(self, companion: Companion, chapters: Sequence[Chapter], force: bool) -> None:
        self.companion, self.chapters, self.force = companion, chapters, force
        self.folder = companion.runs
        self.parameters = {"profile": companion.profile.reference, "root": ".."}
        self.outcomes: dict[str, Outcome] = {}

    def notebook(self, chapter: Chapter) -> Path:
        return self.companion.root / "notebooks" / f"{chapter.name}.ipynb"

    def executed(self, chapter: Chapter) -> Path:
        return self.folder / "chapters" / f"{chapter.name}.ipynb"

    def failed(self, chapter: Chapter) -> Path:
        return self.folder / "failed" / f"{chapter.name}.ipynb"

    def card(self, chapter: Chapter) -> Path:
        return self.folder / "cards" / f"{chapter.name}.json"

    def page(self, chapter: Chapter) -> Path:
        return self.companion.root / "book" / "chapters" / f"{chapter.name}.ipynb"

    def key(self, chapter: Chapter) -> str:
        """Hash of everything the chapter's result depends on."""
        by_name = {other.name: other for other in self.chapters}
        source = self.notebook(chapter).read_bytes()
        results = self.companion.root / "book" / "results"
        return digest(
            source,
            self.parameters,
            library_hash(),
            asdict(self.companion.profile),
            hash_folder(self.companion.root / "data_manifests"),
            hash_folder(results) if b"recorded(" in source else None,  # how notebooks read recorded results
            self._data,
            versions(),
            device_name(),
            *(self.key(by_name[need]) for need in chapter.needs),
        )

    @cached_property
    def _data(self) -> list[tuple[str, int]]:
        """Name and size of every volume."""
        return [(path.name, path.stat().st_size) for path in volume_paths(self.companion.data)]

    def execute(self, wanted: Sequence[Chapter], jobs: int, progress: Progress) -> list[Outcome]:
        """Run `wanted`, the longest first, each as soon as what it needs is there."""
        waiting = sorted(wanted, key=lambda chapter: -chapter.minutes)
        running: dict[Future[Outcome], Chapter] = {}
        with tempfile.TemporaryDirectory(prefix="morelib-") as sockets, ThreadPoolExecutor(jobs) as pool:
            threads = max(1, _cores() // jobs)
            environment = kernel_environment(self.folder / "jupyter", Path(sockets), threads)
            runner = Runner(os.environ | environment)
            try:
                while waiting or running:
                    for chapter in [c for c in waiting if set(c.needs) <= set(self.outcomes)]:
                        waiting.remove(chapter)
                        running[pool.submit(self._one, chapter, runner, progress)] = chapter
                    ended, _ = wait(running, return_when=FIRST_COMPLETED)
                    for future in ended:
                        outcome = future.result()
                        self.outcomes[running.pop(future).name] = outcome
                        progress.end(outcome.chapter, outcome.status, outcome.seconds, outcome.reason)
            except BaseException:  # Ctrl-C above all: no kernel may outlive this call
                for future in running:
                    future.cancel()
                runner.stop()
                raise
        return [self.outcomes[chapter.name] for chapter in wanted]

    def _one(self, chapter: Chapter, runner: Runner, progress: Progress) -> Outcome:
        if missing := [need for need in chapter.needs if self.outcomes[need].status in ("failed", "skipped")]:
            self._forget(chapter)
            return self._without_result(chapter, "skipped", f"it needs {missing[0]}, which gave no result")
        key, old = self.key(chapter), read_json(self.card(chapter)) or {}
        current = old.get("key") == key and self.executed(chapter).is_file()
        if any(self.outcomes[need].status != "unchanged" for need in chapter.needs) or self.force:
            current = False
        if current:
            return Outcome(chapter.name, "unchanged")
        self._forget(chapter)
        progress.start(chapter.name)
        partial = self.folder / "partial" / f"{chapter.name}.ipynb"
        try:
            cost = runner.run(
                self.notebook(chapter), partial, self.parameters, partial_call(progress.step, chapter.name)
            )
        except NotebookFailed as failure:
            kept = self.failed(chapter) if partial.is_file() else None
            if kept is not None:
                kept.parent.mkdir(parents=True, exist_ok=True)
                os.replace(partial, kept)
            return self._without_result(chapter, "failed", str(failure), failure.seconds, kept)
        card = self.companion.run_card(
            wall_s=cost.seconds, peak_memory_mb=cost.peak_memory_mb, chapter=chapter.name, key=key
        )
        finish(partial, self.executed(chapter), card)
        partial.unlink()
        write_json(self.card(chapter), card)  # last: only now is the chapter current
        return Outcome(chapter.name, "done", cost.seconds)

    def _without_result(
        self, chapter: Chapter, status: Status, reason: str, seconds: float = 0.0, partial: Path | None = None
    ) -> Outcome:
        page = stub(self.notebook(chapter), f"{status}: {reason}")
        write_notebook(page, self.page(chapter))
        return Outcome(chapter.name, status, seconds, reason, partial)

    def _forget(self, chapter: Chapter) -> None:
        """Remove every earlier result and the page, so that none outlives a failure."""
        for path in (self.card(chapter), self.executed(chapter), self.failed(chapter), self.page(chapter)):
            path.unlink(missing_ok=True)

    def publish(self) -> None:
        """Bring `book/chapters` up to date: this profile's results, and a page that says so where there is none.

        A chapter that this profile never ran keeps the page of the profile that did; its run card says which.
        """
        for chapter in self.chapters:
            if self.executed(chapter).is_file():
                with atomic_path(self.page(chapter)) as temporary:
                    shutil.copyfile(self.executed(chapter), temporary)
            elif not self.page(chapter).is_file():
                reason = f"not run yet; run: morelib reproduce --profile {self.companion.profile.reference}"
                write_notebook(stub(self.notebook(chapter), reason), self.page(chapter))


def _cores() -> int:
    """How many cores this process may use: in a container or under a scheduler fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
