"""Published data sets: the rules that draw the manifests in `data_manifests/`.

The rules take the tables that lie in the same folder (headers of every fastMRI volume, names of M4Raw's files).
`morelib data manifest` applies them all and gives the same bytes again.
"""

import csv
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from morelib.data.manifest import Row, manifest_text
from morelib.data.readers.fastmri import M4RAW_NAME
from morelib.data.splits import split_by_patient, split_by_volume
from morelib.data.volume import CATEGORIES
from morelib.errors import UserError

SEED = 0
# The paper's training set: 5 x 50 brain and 2 x 75 knee volumes.
TRAIN_VOLUMES = {name: 75 if name.startswith("COR") else 50 for name in CATEGORIES}
HALVES = {"val": 0.5, "test": 0.5}
# The names of these sets' files are not published apart from the data; `morelib data index` fills the template.
TEMPLATES = ("cc359", "acdc", "prostate158", "ismrmrd")
FASTMRI_TABLE, M4RAW_TABLE = "fastmri_volumes.csv", "m4raw_files.csv"


def make_manifests(folder: Path | str) -> dict[str, str]:
    """The text of every shipped manifest by file name, from the tables in `folder`. Raises UserError without them."""
    folder = Path(folder)
    tables = {name: _table(folder / name) for name in (FASTMRI_TABLE, M4RAW_TABLE)}
    volumes = [_fastmri_row(line) for line in tables[FASTMRI_TABLE]]
    files = [_m4raw_row(line["filename"], line["split"]) for line in tables[M4RAW_TABLE]]
    made = {f"{rule.__name__}.csv": rule(volumes) for rule in FASTMRI_RULES}
    made |= {"m4raw.csv": m4raw(files), "m4raw_gre.csv": m4raw_gre(files)}
    made |= {f"{name}.csv": [] for name in TEMPLATES}
    return {name: manifest_text(rows) for name, rows in made.items()}


def _table(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        raise UserError(
            f"{path}: no such table; it comes with the repository, run the command inside a checkout"
        )
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _fastmri_row(line: Mapping[str, str]) -> Row:
    return Row(
        file=line["file"],
        split=line["split"],
        category=line["acquisition"],
        patient=line["patient"],
        scanner=line["scanner"],
        field=float(line["field_t"]),
        coils=int(line["coils"]),
        matrix=(int(line["encoded_x"]), int(line["encoded_y"])),
        slices=int(line["slices"]),
    )


def _m4raw_row(name: str, split: str) -> Row:
    """The size of the gradient-echo volumes is not published with their names."""
    parts = M4RAW_NAME.fullmatch(name)
    if parts is None:
        raise UserError(f"{M4RAW_TABLE}: {name!r} is not a name of M4Raw; correct the table")
    row = Row(name, split, parts["contrast"], parts["subject"], scanner="Oper-0.3", field=0.3, coils=4)
    return row if row.category == "GRE" else replace(row, matrix=(256, 256), slices=18)


# The rules. Each takes rows with the official splits, in any order, and returns those of one manifest.


def draw_training(rows: Iterable[Row]) -> list[Row]:
    """A stratified random sample of the official training set: TRAIN_VOLUMES of each category.

    Raises UserError where there are fewer.
    """
    groups, rng, drawn = _by_category(rows, "train"), np.random.default_rng(SEED), []
    for category, count in TRAIN_VOLUMES.items():
        group = groups.get(category, [])
        if len(group) < count:
            raise UserError(
                f"{category}: the table has {len(group)} training volumes, {count} are to be drawn"
            )
        drawn += [group[index] for index in rng.permutation(len(group))[:count]]
    return drawn


def fastmri(rows: Sequence[Row]) -> list[Row]:
    """The paper's data: 400 training volumes, and the official validation set halved by patient."""
    return draw_training(rows) + _assigned(split_by_patient(_part(rows, "val"), HALVES, SEED))


def fastmri_by_volume(rows: Sequence[Row]) -> list[Row]:
    """The same counts, halved by volume: patients leak between val and test. To measure what that changes."""
    return draw_training(rows) + _assigned(split_by_volume(_part(rows, "val"), HALVES, SEED))


def fastmri_equal(rows: Sequence[Row]) -> list[Row]:
    """As `fastmri`, thinned so that every category has equally many val and test volumes: as the rarest allows."""
    rows = fastmri(rows)
    groups = {split: _by_category(rows, split) for split in ("val", "test")}
    count = min(len(group) for by_category in groups.values() for group in by_category.values())
    rng, kept = np.random.default_rng(SEED), _part(rows, "train")
    for by_category in groups.values():
        for category in sorted(by_category):
            group = by_category[category]
            kept += [group[index] for index in rng.permutation(len(group))[:count]]
    return kept


def fastmri_brain_test(rows: Sequence[Row]) -> list[Row]:
    """The brain test volumes, which NYU published fully sampled later on: all of them, a further test set."""
    return _part(rows, "test")


FASTMRI_RULES: tuple[Callable[[Sequence[Row]], list[Row]], ...] = (
    fastmri,
    fastmri_by_volume,
    fastmri_equal,
    fastmri_brain_test,
)


def m4raw(rows: Sequence[Row]) -> list[Row]:
    """M4Raw's official split without the gradient-echo volumes.

    The published list of names leaves out the 240 validation volumes. Their 30 subjects are those whose
    gradient-echo volumes it calls validation, and each has the contrasts and repetitions of a training subject.
    """
    known = [row for row in rows if row.category != "GRE"]
    endings = sorted({row.file.removeprefix(row.patient) for row in _part(known, "train")})
    subjects = sorted({row.patient for row in _part(rows, "val")})
    return known + [_m4raw_row(subject + ending, "val") for subject in subjects for ending in endings]


def m4raw_gre(rows: Sequence[Row]) -> list[Row]:
    """M4Raw's gradient-echo volumes, an archive of their own."""
    return [row for row in rows if row.category == "GRE"]


def _assigned(splits: Mapping[str, Sequence[Row]]) -> list[Row]:
    return [replace(row, split=split) for split, rows in splits.items() for row in rows]


def _part(rows: Iterable[Row], split: str) -> list[Row]:
    return [row for row in rows if row.split == split]


def _by_category(rows: Iterable[Row], split: str) -> dict[str, list[Row]]:
    """The rows of `split`, each category's by file name, so that a draw does not depend on their order."""
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in sorted(_part(rows, split), key=lambda row: row.file):
        groups[row.category].append(row)
    return groups
