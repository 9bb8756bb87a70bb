"""A manifest against folders: every way in which a file can be wrong is told from being absent."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import pytest

from morelib.data.index import find_volumes
from morelib.data.manifest import Row, rows_of
from morelib.data.readers import read_info
from morelib.data.resolve import DAMAGED, DIFFERENT, FOUND, MISSING, resolve
from morelib.data.splits import split_by_patient
from morelib.errors import UserError

Write = Callable[..., Path]


def row(name: str, split: str, category: str = "AXT2", patient: str = "p") -> Row:
    return Row(name, split, category, patient, coils=2, matrix=(48, 32), slices=2)


@pytest.fixture
def batches(tmp_path: Path, write_file: Write) -> Path:
    """Archives as NYU ships them, side by side and extracted: a.h5, b.h5 to train, c.h5 for the rest."""
    places = {
        "brain_multicoil_train_batch_0/multicoil_train": "a",
        "brain_multicoil_train_batch_1/multicoil_train": "b",
        "brain_multicoil_val_batch_0/multicoil_val": "c",
    }
    for folder, name in places.items():
        (tmp_path / folder).mkdir(parents=True)
        write_file(tmp_path / folder / f"{name}.h5", "AXT2", "p")
    return tmp_path


def test_volumes_are_found_at_any_depth_and_among_any_number_of_folders(batches: Path) -> None:
    rows = [row("a.h5", "train"), row("b.h5", "train"), row("c.h5", "val")]
    for roots in ([batches], sorted(batches.iterdir()), [batches, batches / "brain_multicoil_val_batch_0"]):
        resolution = resolve(rows, roots)
        assert resolution.complete
        assert [finding.note for finding in resolution.findings] == ["", "", ""]
        assert [v.name for v in resolution.volumes("train")] == ["a.h5", "b.h5"]
        assert {s: len(v) for s, v in resolution.splits().items()} == {"train": 2, "val": 1}
        assert resolution.statement() == "train: 2 of 2 volumes; val: 1 of 1 volumes"


def test_one_part_is_usable_and_what_is_missing_is_said(batches: Path) -> None:
    rows = [row("a.h5", "train"), row("z.h5", "train"), row("y.h5", "train", "AXT1"), row("c.h5", "val")]
    resolution = resolve([*rows, row("x.h5", "test")], [batches])
    assert not resolution.complete
    assert [f.status for f in resolution.findings] == [FOUND, MISSING, MISSING, FOUND, MISSING]
    assert len(resolution.volumes("train")) == len(resolution.volumes("val")) == 1
    assert resolution.statement() == (
        "train: 1 of 3 volumes (1 AXT1 missing, 1 AXT2 missing); val: 1 of 1 volumes;"
        " test: 0 of 1 volumes (1 AXT2 missing)"
    )
    assert resolution.counts["train", "AXT2"] == {FOUND: 1, MISSING: 1}
    with pytest.raises(
        UserError, match=r"split 'test': none of the manifest's 1 volumes can be used, first x.h5"
    ):
        resolution.splits()
    with pytest.raises(UserError, match="split 'dev': the manifest has no such volumes"):
        resolution.volumes("dev")


def test_a_truncated_file_is_damaged(batches: Path) -> None:
    path = batches / "brain_multicoil_train_batch_0" / "multicoil_train" / "a.h5"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    (finding,) = resolve([row("a.h5", "train")], [batches]).findings
    assert (finding.status, finding.path) == (DAMAGED, path)
    assert finding.note.startswith("not a readable HDF5 file")
    with pytest.raises(UserError, match=r"none .* can be used, first .*a.h5 \(not a readable HDF5 file"):
        resolve([row("a.h5", "train")], [batches]).volumes("train")


@pytest.mark.parametrize(
    ("changed", "note"),
    [
        ({"category": "AXT1"}, "category AXT2 instead of AXT1"),
        ({"patient": "q"}, "patient p instead of q"),
        ({"coils": 12}, "coils 2 instead of 12"),
        ({"slices": 16}, "slices 2 instead of 16"),
        ({"matrix": (48, 36)}, "matrix 48x32 instead of 48x36"),
        ({"coils": 4, "slices": 3}, "coils 2 instead of 4, slices 2 instead of 3"),
    ],
)
def test_a_file_that_is_another_one_is_different(
    batches: Path, changed: dict[str, object], note: str
) -> None:
    asked = replace(row("a.h5", "train"), **changed)  # type: ignore[arg-type]
    resolution = resolve([asked], [batches])
    (finding,) = resolution.findings
    assert (finding.status, finding.note) == (DIFFERENT, note)
    assert "1 AXT" in resolution.statement()
    with pytest.raises(UserError, match="can be used"):
        resolution.volumes("train")


def test_what_the_manifest_leaves_open_is_not_compared(batches: Path) -> None:
    assert resolve([Row("a.h5", "train", "", "")], [batches]).complete


def test_m4raw_s_contrasts_and_the_table_s_shortened_patients_are_recognised(
    tmp_path: Path, write_file: Write
) -> None:
    write_file(tmp_path / "2022061203_T101.h5", "AXT1", "anybody")
    write_file(tmp_path / "a.h5", "AXT2", "0123456789abcdef" * 4)
    write_file(tmp_path / "b.h5", "AXT2", "fedcba9876543210" * 4)
    rows = [
        row("2022061203_T101.h5", "val", "T1", "2022061203"),
        row("a.h5", "train", patient="0123456789abcdef"),
        row("b.h5", "train", patient="0123456789abcdef"),
    ]
    resolution = resolve(rows, [tmp_path])
    assert resolution.complete
    notes = [finding.note for finding in resolution.findings]
    assert notes[:2] == ["", ""]
    assert notes[2].startswith(
        "patient fedcba98"
    )  # told, but identifiers of other lengths cannot be compared


def test_of_two_files_of_a_name_the_one_that_can_be_used_is_taken(batches: Path) -> None:
    good = batches / "brain_multicoil_train_batch_0" / "multicoil_train" / "a.h5"
    cut = batches / "a_download_cut_short" / "a.h5"
    cut.parent.mkdir()
    cut.write_bytes(good.read_bytes()[:3000])
    other = batches / "another" / "a.h5"
    other.parent.mkdir()
    shutil.copy(good, other)
    with h5py.File(other, "a") as file:
        file.attrs["acquisition"] = "AXT1"
    (finding,) = resolve([row("a.h5", "train")], [batches]).findings
    assert (finding.status, finding.path) == (FOUND, good)
    assert finding.note == f"also at {cut}, {other}"
    good.unlink()
    (finding,) = resolve([row("a.h5", "train")], [batches]).findings
    assert (finding.status, finding.path) == (DIFFERENT, other)


def test_a_volume_in_a_folder_of_another_part_is_noted_and_the_right_place_preferred(batches: Path) -> None:
    wrong = batches / "brain_multicoil_train_batch_0" / "multicoil_train" / "c.h5"
    right = batches / "brain_multicoil_val_batch_0" / "multicoil_val" / "c.h5"
    right.rename(wrong)
    (finding,) = resolve([row("c.h5", "test")], [batches]).findings
    assert (finding.status, finding.path) == (FOUND, wrong)
    assert finding.note == "a test volume in a folder of the official train set"
    shutil.copy(wrong, right)
    (finding,) = resolve([row("c.h5", "test")], [batches]).findings
    assert finding.path == right
    (finding,) = resolve([row("b.h5", "val")], [batches]).findings
    assert finding.note


def test_acdc_s_validation_volumes_lie_in_its_training_folder(tmp_path: Path, write_file: Write) -> None:
    patient = tmp_path / "training" / "patient001"
    patient.mkdir(parents=True)
    write_file(patient / "a.h5", "AXT2", "p")
    (finding,) = resolve([row("a.h5", "val")], [tmp_path]).findings
    assert finding.note == ""


def test_where_names_repeat_the_folder_tells_files_apart(tmp_path: Path, write_file: Write) -> None:
    for patient in ("020", "1020"):
        (tmp_path / patient).mkdir()
        write_file(tmp_path / patient / "t2.h5", "AXT2", patient)
    resolution = resolve([row("020/t2.h5", "train", patient="020"), row("021/t2.h5", "train")], [tmp_path])
    assert [finding.status for finding in resolution.findings] == [FOUND, MISSING]
    assert resolution.volumes("train")[0].patient == "020"


def test_folders_may_be_empty_but_must_be_there(batches: Path, tmp_path: Path) -> None:
    (batches / "empty").mkdir()
    assert resolve([row("a.h5", "train")], [batches / "empty", batches]).complete
    assert resolve([row("a.h5", "train")], [batches / "empty"]).findings[0].status == MISSING
    with pytest.raises(UserError, match="no such folder"):
        resolve([row("a.h5", "train")], [batches, tmp_path / "none"])


def test_a_frozen_split_comes_back_and_headers_may_come_from_elsewhere(fastmri_files: Path) -> None:
    splits = split_by_patient(find_volumes(fastmri_files), {"train": 0.5, "test": 0.5})
    read = []

    def remembered(path: Path) -> object:
        read.append(path.name)
        return read_info(path)

    resolution = resolve(rows_of(splits), [fastmri_files], remembered)  # type: ignore[arg-type]
    assert resolution.splits() == splits
    assert sorted(read) == sorted(path.name for path in fastmri_files.iterdir())
