"""Manifests: which volumes belong to an experiment, in which split, and what their headers must say.

A manifest is a CSV file of the columns of `Row`. Those in `data_manifests/` are drawn by the rules of
`morelib.data.published`; `morelib data index FOLDER` makes one of other data.
"""

import csv
import io
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from morelib.data.volume import VolumeInfo
from morelib.errors import UserError

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Row:
    """One volume of a manifest; None and "" stand for what is not known, and is not checked.

    `file` is its name, or the end of its path where names repeat ("020/t2.nii.gz"); `field` in tesla;
    `matrix` is (readout, phase) of k-space, in samples.
    """

    file: str
    split: str
    category: str
    patient: str
    scanner: str = ""
    field: float | None = None
    coils: int | None = None
    matrix: tuple[int, int] | None = None
    slices: int | None = None

    @property
    def name(self) -> str:
        """As `VolumeInfo` calls it; splits are drawn on rows and on volumes alike."""
        return self.file

    @property
    def acquisition(self) -> str:
        """As `VolumeInfo` calls it."""
        return self.category


COLUMNS = tuple(field.name for field in fields(Row))


def manifest_text(rows: Iterable[Row]) -> str:
    """The CSV file: sorted by split, category and file, lines ended by a line feed alone."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in sorted(rows, key=lambda row: (SPLITS.index(row.split), row.category, row.file)):
        values = asdict(row) | {
            "field": "" if row.field is None else f"{row.field:g}",
            "matrix": "x".join(map(str, row.matrix or ())),
        }
        writer.writerow(values.values())
    return text.getvalue()


def read_manifest(path: Path | str) -> list[Row]:
    """The rows of a manifest. Raises UserError naming file and line for anything that is not one."""
    path, rows = Path(path), []
    if not path.is_file():
        raise UserError(f"{path}: no such manifest; make one of your data with `morelib data index FOLDER`")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            if missing := [name for name in COLUMNS if name not in (reader.fieldnames or ())]:
                raise UserError(f"{path}: has no column {missing[0]!r}; a manifest has {', '.join(COLUMNS)}")
            for values in reader:
                try:
                    rows.append(_row(values))
                except ValueError as error:
                    raise UserError(f"{path}, line {reader.line_num}: {error}; correct the line") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: is not a CSV file ({error}); give a manifest") from error
    if not rows:
        raise UserError(f"{path}: lists no volumes; make one of your data with `morelib data index FOLDER`")
    if twice := [name for name, count in Counter(row.file for row in rows).items() if count > 1]:
        raise UserError(f"{path}: lists {twice[0]} twice; leave one of the lines out")
    return rows


def _row(values: Mapping[str, str]) -> Row:
    if None in values or None in values.values():
        raise ValueError("has not as many columns as the first line")
    if not values["file"] or values["split"] not in SPLITS:
        raise ValueError(f"file {values['file']!r}, split {values['split']!r}; a split is train, val or test")
    matrix = re.fullmatch(r"(\d+)x(\d+)", values["matrix"])
    if values["matrix"] and not matrix:
        raise ValueError(f"matrix {values['matrix']!r} is not like 640x320")
    return Row(
        file=values["file"],
        split=values["split"],
        category=values["category"],
        patient=values["patient"],
        scanner=values["scanner"],
        field=float(values["field"]) if values["field"] else None,
        coils=int(values["coils"]) if values["coils"] else None,
        matrix=(int(matrix[1]), int(matrix[2])) if matrix else None,
        slices=int(values["slices"]) if values["slices"] else None,
    )


def manifest_path(name: str, root: Path) -> Path:
    """The file of a manifest: the path of a CSV file, or the name of one in `root`/data_manifests."""
    if name.endswith(".csv"):
        return Path(name)
    path = root / "data_manifests" / f"{name}.csv"
    if not path.is_file():
        header = ",".join(COLUMNS)
        tables = sorted(path.parent.glob("*.csv"))
        known = [p.stem for p in tables if p.read_text("utf-8").split("\n")[0] == header]
        raise UserError(
            f"manifest {name!r}: there is none in {path.parent}; give the path of a CSV file"
            + (f", or one of {', '.join(known)}" if known else "")
        )
    return path


def rows_of(splits: Mapping[str, Sequence[VolumeInfo]]) -> list[Row]:
    """The rows that describe these volumes. Raises UserError where two have one name."""
    rows = [
        Row(
            file=volume.name,
            split=split,
            category=volume.acquisition,
            patient=volume.patient,
            scanner=volume.scanner or "",
            field=volume.field_t,
            coils=volume.n_coils,
            matrix=(volume.readout, volume.phase),
            slices=volume.n_slices,
        )
        for split, volumes in splits.items()
        for volume in volumes
    ]
    if twice := [name for name, count in Counter(row.file for row in rows).items() if count > 1]:
        paths = [str(v.path) for volumes in splits.values() for v in volumes if v.name == twice[0]]
        raise UserError(f"{' and '.join(paths)}: have one name; keep one of them, or rename one")
    return rows
