"""`morelib data check`: every file is read once, what was learnt is kept, and the end is a table."""

import csv
import io
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.table import Table

from morelib.cli.common import progress_bar
from morelib.data.index import Index
from morelib.data.manifest import Row
from morelib.data.readers import read_slice, volume_paths
from morelib.data.readers.hdf5 import stamp
from morelib.data.resolve import DAMAGED, FOUND, STATUSES, Finding, Resolution, examine
from morelib.data.volume import VolumeInfo
from morelib.errors import UserError
from morelib.files import read_json, write_json, write_text

SAVE_EVERY_S = 5.0
SHOWN = 8  # notes printed; the report has all
COLUMNS = ("file", "split", "category", "status", "path", "note")


class Reading:
    """How a file is read: its header, remembered in the index, and with `deep` every slice once.

    Which files were read whole, at which size and time of change, is kept in the JSON file `memory`, so that an
    interrupted check of terabytes goes on where it was. Failures are not kept: a file is tried again each time.
    """

    def __init__(self, index: Index, memory: Path, deep: bool) -> None:
        self.index, self.memory, self.deep = index, memory, deep
        stored = read_json(memory) if deep else None
        self.whole: dict[str, list[int]] = stored if isinstance(stored, dict) else {}

    def __call__(self, path: Path) -> VolumeInfo:
        """The header of `path`. Raises UserError."""
        info = self.index.read(path)
        if self.deep and self.whole.get(str(path)) != (mark := list(stamp(path))):
            for index in range(info.n_slices):
                read_slice(info, index)
            self.whole[str(path)] = mark
        return info

    def save(self) -> None:
        """Write what was read whole. Where that cannot be, it is done without."""
        if self.deep:
            with suppress(OSError):
                write_json(self.memory, self.whole)


class Report:
    """The findings so far, written every few seconds and at the end, also when the check is interrupted."""

    def __init__(self, reading: Reading, path: Path | None, about: dict[str, Any], total: int) -> None:
        if path is not None and path.suffix not in (".json", ".csv"):
            raise UserError(f"{path}: a report is a .json or .csv file; give another name")
        self.reading, self.path, self.about, self.total = reading, path, about, total
        self.findings: list[Finding] = []
        self.saved = time.monotonic()

    def __enter__(self) -> "Report":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.save()

    def add(self, finding: Finding) -> None:
        """Note one more, and save if that was some time ago."""
        self.findings.append(finding)
        if time.monotonic() - self.saved > SAVE_EVERY_S:
            self.save()

    def save(self) -> None:
        """Write the report, if one is asked for, and what has been read."""
        self.reading.save()
        if self.path is not None:
            lines = [_line(finding) for finding in self.findings]
            if self.path.suffix == ".csv":
                text = io.StringIO()
                writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
                writer.writeheader()
                writer.writerows(lines)
                write_text(self.path, text.getvalue())
            else:
                done = {"checked": len(lines), "of": self.total}
                write_json(self.path, {**self.about, **done, "files": lines})
        self.saved = time.monotonic()


def _line(finding: Finding) -> dict[str, str]:
    row = finding.row
    values = (row.file, row.split, row.category, finding.status, str(finding.path or ""), finding.note)
    return dict(zip(COLUMNS, values, strict=True))


def run_check(
    roots: Sequence[Path],
    rows: Sequence[Row] | None,
    reading: Reading,
    report_path: Path | None,
    about: dict[str, Any],
) -> bool:
    """Check what a manifest lists, or whatever is there, and print tables. True if nothing is missing or wrong."""
    if rows is None:
        paths = sorted({path for root in roots for path in volume_paths(root.absolute())})
        findings, total = _whatever(paths, reading), len(paths)
    else:
        findings, total = examine(rows, roots, reading), len(rows)
    with Report(reading, report_path, about, total) as report, progress_bar() as bar:
        task = bar.add_task("reading all slices" if reading.deep else "reading headers", total=total)
        for finding in findings:
            report.add(finding)
            bar.advance(task)
    console = Console(file=sys.stdout, soft_wrap=True)
    resolution = Resolution(tuple(report.findings))
    console.print(_by_category(resolution) if rows is not None else _by_header(resolution))
    _print_notes(console, resolution, report_path)
    if rows is not None:
        print(resolution.statement())
        print(_usable(resolution))
    return resolution.complete


def _usable(resolution: Resolution) -> str:
    found: Counter[str] = Counter()
    for (split, _), count in resolution.counts.items():
        found[split] += count[FOUND]
    if empty := [split for split, count in found.items() if not count]:
        return f"not usable yet: no volume of {' and '.join(empty)}; extract the archives that hold them"
    return "all is well" if resolution.complete else "incomplete; what was found can be used"


def _whatever(paths: Sequence[Path], reading: Reading) -> Iterator[Finding]:
    """Findings without a manifest: a file is all right or damaged."""
    for path in paths:
        row = Row(path.name, "", "", "")
        try:
            info = reading(path)
        except UserError as error:
            yield Finding(row, DAMAGED, path, None, str(error).removeprefix(f"{path}: "))
        else:
            yield Finding(Row(info.name, "", info.acquisition, info.patient), FOUND, path, info)


def _by_category(resolution: Resolution) -> Table:
    table = Table("split", "category")
    for name in ("expected", *STATUSES):
        table.add_column(name, justify="right")
    total: Counter[str] = Counter()
    for (split, category), count in resolution.counts.items():
        total += count
        table.add_row(split, category, *_numbers(count))
    table.add_section()
    table.add_row("all", "", *_numbers(total))
    return table


def _numbers(count: Counter[str]) -> list[str]:
    return [f"{count.total():,}", *(f"{count[status]:,}" for status in STATUSES)]


def _by_header(resolution: Resolution) -> Table:
    table = Table("category", "matrix", "coils", "k-space")
    table.add_column("volumes", justify="right")
    infos = [finding.info for finding in resolution.findings if finding.info]
    counts = Counter((i.acquisition, i.readout, i.phase, i.n_coils, i.origin) for i in infos)
    for (acquisition, readout, phase, coils, origin), count in sorted(counts.items()):
        table.add_row(acquisition, f"{readout}x{phase}", str(coils), origin, f"{count:,}")
    table.add_section()
    table.add_row("all", "", "", "", f"{len(infos):,}")
    return table


def _print_notes(console: Console, resolution: Resolution, report_path: Path | None) -> None:
    notes = [f"{f.path}: {f.status}: {f.note}" for f in resolution.findings if f.note]
    for note in notes[:SHOWN]:
        console.print(note, markup=False, highlight=False)
    if len(notes) > SHOWN:
        where = f"see {report_path}" if report_path else "`--report check.csv` lists all"
        print(f"and {len(notes) - SHOWN:,} more; {where}")
