"""The committed manifests are what the rules draw, and keep what the rules promise."""

import csv
import runpy
from collections import Counter
from pathlib import Path

import pytest
import yaml

from morelib.data.manifest import COLUMNS, Row, read_manifest
from morelib.data.published import (
    FASTMRI_TABLE,
    M4RAW_TABLE,
    TEMPLATES,
    draw_training,
    make_manifests,
)
from morelib.data.splits import shared_patients
from morelib.data.volume import CATEGORIES, MEASURED, SIMULATED
from morelib.errors import UserError

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "data_manifests"


def splits(name: str) -> dict[str, list[Row]]:
    groups: dict[str, list[Row]] = {}
    for row in read_manifest(FOLDER / f"{name}.csv"):
        groups.setdefault(row.split, []).append(row)
    return groups


def counts(rows: list[Row]) -> Counter[str]:
    return Counter(row.category for row in rows)


def sizes(name: str) -> dict[str, int]:
    return {split: len(rows) for split, rows in splits(name).items()}


def official(split: str) -> dict[str, dict[str, str]]:
    with (FOLDER / FASTMRI_TABLE).open(newline="") as file:
        return {line["file"]: line for line in csv.DictReader(file) if line["split"] == split}


def test_the_rule_gives_the_committed_bytes_whatever_the_order_of_the_tables(tmp_path: Path) -> None:
    made = make_manifests(FOLDER)
    assert {name: (FOLDER / name).read_bytes() for name in made} == {
        name: text.encode() for name, text in made.items()
    }
    for name in (FASTMRI_TABLE, M4RAW_TABLE):
        header, *lines = (FOLDER / name).read_text().splitlines()
        (tmp_path / name).write_text("\n".join([header, *sorted(lines, key=lambda line: line[::-1])]) + "\n")
    assert make_manifests(tmp_path) == made


def test_the_paper_s_400_training_volumes_come_from_the_official_training_set() -> None:
    train = splits("fastmri")["train"]
    assert counts(train) == {name: 75 if name.startswith("COR") else 50 for name in CATEGORIES}
    assert len(train) == 400
    assert {row.file for row in train} <= official("train").keys()


def test_the_official_validation_set_is_halved_by_patient_in_every_category() -> None:
    groups = splits("fastmri")
    assert sizes("fastmri") == {"train": 400, "val": 791, "test": 786}
    assert {row.file for split in ("val", "test") for row in groups[split]} == official("val").keys()
    val, test = counts(groups["val"]), counts(groups["test"])
    assert set(val) == set(test) == set(CATEGORIES)
    assert all(0 <= val[category] - test[category] <= 1 for category in CATEGORIES)
    assert shared_patients(groups) == set()


def test_the_split_by_volume_has_the_same_counts_and_leaks_knee_patients() -> None:
    naive, safe = splits("fastmri_by_volume"), splits("fastmri")
    assert {s: counts(rows) for s, rows in naive.items()} == {s: counts(rows) for s, rows in safe.items()}
    assert naive["train"] == safe["train"]
    leaked = shared_patients(naive)
    assert len(leaked) == 46
    assert {row.category for row in naive["val"] if row.patient in leaked} == {"CORPDFS_FBK", "CORPD_FBK"}


def test_the_equal_variant_has_as_many_volumes_of_every_category() -> None:
    equal, safe = splits("fastmri_equal"), splits("fastmri")
    assert equal["train"] == safe["train"]
    for split in ("val", "test"):
        assert set(equal[split]) <= set(safe[split])
        assert counts(equal[split]) == dict.fromkeys(CATEGORIES, 38)


def test_the_further_brain_test_set_is_untouched() -> None:
    groups = splits("fastmri_brain_test")
    assert sizes("fastmri_brain_test") == {"test": 558}
    assert set(counts(groups["test"])) == {name for name in CATEGORIES if name.startswith("AX")}
    others = {row.patient for rows in splits("fastmri").values() for row in rows}
    assert not others & {row.patient for row in groups["test"]}


def test_rows_say_what_the_table_says() -> None:
    table = official("train") | official("val")
    for row in (row for rows in splits("fastmri").values() for row in rows):
        line = table[row.file]
        assert row.matrix == (int(line["encoded_x"]), int(line["encoded_y"]))
        assert (str(row.coils), str(row.slices)) == (line["coils"], line["slices"])
        assert (row.category, row.patient, row.scanner) == (
            line["acquisition"],
            line["patient"],
            line["scanner"],
        )
        assert row.field == float(line["field_t"])


def test_m4raw_has_its_official_split_and_the_archives_numbers_of_files() -> None:
    groups = splits("m4raw")
    assert sizes("m4raw") == {"train": 1024, "val": 240, "test": 400}
    assert len(splits("m4raw_gre")["train"]) + len(splits("m4raw_gre")["val"]) == 366
    assert shared_patients(groups) == set()
    assert {split: len({row.patient for row in rows}) for split, rows in groups.items()} == {
        "train": 128,
        "val": 30,
        "test": 25,
    }
    assert "2022061203_T101.h5" in {row.file for row in groups["val"]}
    assert all(row.file.startswith(f"{row.patient}_{row.category}") for row in groups["val"])
    both = {split: groups[split] + splits("m4raw_gre").get(split, []) for split in groups}
    assert shared_patients(both) == set()


def test_templates_are_headers_alone() -> None:
    for name in TEMPLATES:
        assert (FOLDER / f"{name}.csv").read_text() == ",".join(COLUMNS) + "\n"
        with pytest.raises(UserError, match="lists no volumes; make one"):
            read_manifest(FOLDER / f"{name}.csv")


def test_the_order_of_the_table_does_not_matter_and_too_few_volumes_are_refused() -> None:
    rows = [
        Row(f"{n}.h5", "train", category, f"p{n}{category}") for category in CATEGORIES for n in range(75)
    ]
    assert draw_training(rows[::-1]) == draw_training(rows)
    with pytest.raises(UserError, match="CORPD_FBK: the table has 74 training volumes, 75 are to be drawn"):
        draw_training(rows[:-1])


def test_the_catalogue_is_complete_and_names_what_is_there() -> None:
    datasets = yaml.safe_load((FOLDER / "datasets.yaml").read_text(encoding="utf-8"))
    assert list(datasets) == ["fastmri", "m4raw", "cc359", "acdc", "prostate158", "ismrmrd"]
    for dataset in datasets.values():
        assert dataset.keys() == datasets["fastmri"].keys()
        assert dataset["kspace"] in (MEASURED, SIMULATED)
        assert all(value for key, value in dataset.items() if key != "registration")
    named = [name for dataset in datasets.values() for name in dataset["manifests"]]
    assert sorted(f"{name}.csv" for name in named) == sorted(make_manifests(FOLDER))


def test_the_script_that_derived_the_phantom_s_assets_still_draws_its_protocols(tmp_path: Path) -> None:
    pytest.importorskip("nrrd")  # comes with the extra `dev` only
    script = runpy.run_path(str(FOLDER / "derive_anatomy.py"))
    script["write_protocols"](FOLDER / FASTMRI_TABLE, tmp_path / "protocols.csv")
    shipped = ROOT / "morelib" / "data" / "phantom" / "assets" / "protocols.csv"
    assert (tmp_path / "protocols.csv").read_bytes() == shipped.read_bytes()
