"""A manifest against folders: which of its volumes are there, and whether they are what it says."""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from morelib.data.manifest import SPLITS, Row
from morelib.data.readers import read_info, volume_paths
from morelib.data.splits import official_part
from morelib.data.volume import VolumeInfo
from morelib.errors import UserError

FOUND, MISSING, DAMAGED, DIFFERENT = "found", "missing", "damaged", "different"
STATUSES = (FOUND, MISSING, DAMAGED, DIFFERENT)

Read = Callable[[Path], VolumeInfo]


@dataclass(frozen=True)
class Finding:
    """What became of one row. `path` is None where it is missing, `info` where it cannot be read; `note` says why."""

    row: Row
    status: str
    path: Path | None = None
    info: VolumeInfo | None = None
    note: str = ""


@dataclass(frozen=True)
class Resolution:
    """The findings of all rows of a manifest. A part of a data set is as usable as the whole."""

    findings: tuple[Finding, ...]

    @property
    def complete(self) -> bool:
        """Whether every row was found."""
        return all(finding.status == FOUND for finding in self.findings)

    @property
    def counts(self) -> dict[tuple[str, str], Counter[str]]:
        """How many rows have which status, by split and category, in the order of the manifest's splits."""
        counts: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
        for finding in self.findings:
            counts[finding.row.split, finding.row.category][finding.status] += 1
        return dict(sorted(counts.items(), key=lambda item: (SPLITS.index(item[0][0]), item[0][1])))

    def volumes(self, split: str) -> list[VolumeInfo]:
        """The volumes found of `split`, in the manifest's order. Raises UserError if there are none."""
        findings = [finding for finding in self.findings if finding.row.split == split]
        found = [finding.info for finding in findings if finding.status == FOUND and finding.info]
        if not findings:
            raise UserError(
                f"split {split!r}: the manifest has no such volumes; choose another split or manifest"
            )
        if not found:
            first = next((f for f in findings if f.status != MISSING), findings[0])
            reason = f", first {first.path} ({first.note})" if first.path else f", first {first.row.file}"
            raise UserError(
                f"split {split!r}: none of the manifest's {len(findings)} volumes can be used{reason};"
                " look with `morelib data check`, and extract the archives that hold them"
            )
        return found

    def splits(self) -> dict[str, list[VolumeInfo]]:
        """`volumes` of every split of the manifest. Raises UserError for an empty one."""
        present = {finding.row.split for finding in self.findings}
        return {split: self.volumes(split) for split in SPLITS if split in present}

    def statement(self) -> str:
        """One sentence: how many volumes of each split are there, and of which categories some are not."""
        by_split: dict[str, list[str]] = defaultdict(list)
        totals: dict[str, Counter[str]] = defaultdict(Counter)
        for (split, category), count in self.counts.items():
            totals[split] += count
            by_split[split] += [
                f"{count[status]} {category or 'volumes'} {status}"
                for status in STATUSES[1:]
                if count[status]
            ]
        return "; ".join(
            f"{split}: {count[FOUND]:,} of {count.total():,} volumes"
            + (f" ({', '.join(by_split[split])})" if by_split[split] else "")
            for split, count in totals.items()
        )


def resolve(rows: Sequence[Row], roots: Sequence[Path | str], read: Read = read_info) -> Resolution:
    """Look for every row below the folders `roots`, at any depth. Raises UserError for a folder that does not exist.

    A volume that is missing, damaged or different is a finding, not an error.
    """
    return Resolution(tuple(examine(rows, roots, read)))


def examine(rows: Sequence[Row], roots: Sequence[Path | str], read: Read = read_info) -> Iterator[Finding]:
    """The findings of `resolve` one by one, as the files are read by `read`."""
    places = _places(roots)
    for row in rows:
        paths = [
            p for p in places.get(Path(row.file).name, ()) if f"/{p.as_posix()}".endswith(f"/{row.file}")
        ]
        yield _best(row, paths, read)


def _places(roots: Sequence[Path | str]) -> dict[str, list[Path]]:
    """Every file that may be a volume, by name; once, where one root lies in another."""
    places: dict[str, dict[Path, None]] = defaultdict(dict)
    for root in map(Path, roots):
        try:
            paths = volume_paths(root.absolute())
        except UserError:
            if not root.is_dir():
                raise
            paths = []  # an empty batch among others
        for path in paths:
            places[path.name][path] = None
    return {name: list(paths) for name, paths in places.items()}


def _best(row: Row, paths: Sequence[Path], read: Read) -> Finding:
    """The file to use for a row: of several, one that can be read, is what the row says and lies where it belongs."""
    best: Finding | None = None
    for path in paths:
        finding = _look(row, path, read)
        if best is None or _rank(finding) < _rank(best):
            best = finding
        if _rank(best) == 0:
            break
    if best is None:
        return Finding(row, MISSING)
    others = [str(path) for path in paths if path != best.path]
    note = "; ".join(filter(None, (best.note, f"also at {', '.join(others)}" if others else "")))
    return Finding(row, best.status, best.path, best.info, note)


def _rank(finding: Finding) -> int:
    """0 is best."""
    return 2 * (FOUND, DIFFERENT, DAMAGED).index(finding.status) + bool(finding.note)


def _look(row: Row, path: Path, read: Read) -> Finding:
    try:
        info = read(path)
    except UserError as error:
        return Finding(row, DAMAGED, path, None, str(error).removeprefix(f"{path}: "))
    if differences := _differences(row, info):
        return Finding(row, DIFFERENT, path, info, ", ".join(differences))
    return Finding(row, FOUND, path, info, "; ".join(_doubts(row, info)))


def _differences(row: Row, info: VolumeInfo) -> list[str]:
    """What the header says other than the manifest; what the manifest leaves open is not compared."""
    is_, asked = (info.readout, info.phase), row.matrix
    # Identifiers of one form are comparable; the table has the first 16 digits of fastMRI's longer ones.
    other_patient = len(row.patient) == len(info.patient) and row.patient != info.patient
    pairs = [
        ("category", row.category, info.acquisition, _contrast(row.category) != _contrast(info.acquisition)),
        ("patient", row.patient, info.patient, other_patient),
        ("coils", row.coils, info.n_coils, row.coils != info.n_coils),
        ("slices", row.slices, info.n_slices, row.slices != info.n_slices),
        ("matrix", asked and f"{asked[0]}x{asked[1]}", f"{is_[0]}x{is_[1]}", asked != is_),
    ]
    return [f"{what} {is_} instead of {asked}" for what, asked, is_, other in pairs if asked and other]


def _contrast(category: str) -> str:
    """M4Raw's names say T1 where its files may say AXT1, for axial."""
    return re.sub(r"^AX(?=(T1|T2|FLAIR|GRE)$)", "", category)


def _doubts(row: Row, info: VolumeInfo) -> Iterator[str]:
    """What is odd about a volume that is right by its header."""
    if not info.patient.startswith(row.patient):
        yield f"patient {info.patient}, the manifest has {row.patient}"
    part = official_part(info.path)
    # ACDC publishes no validation set: its is taken from the training set.
    divided = row.split == "val" and "training" in info.path.parts
    if part and (part == "train") != (row.split == "train") and not divided:
        yield f"a {row.split} volume in a folder of the official {part} set"
