"""No patient on both sides, every category everywhere, the seed decides."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from morelib.data.index import find_volumes
from morelib.data.splits import (
    official_part,
    official_split,
    shared_patients,
    split_by_patient,
    split_by_volume,
)
from morelib.data.volume import CATEGORIES, VolumeInfo
from morelib.errors import UserError

THREE = {"train": 0.5, "val": 0.25, "test": 0.25}


def volume(
    acquisition: str, patient: str, number: int, *, folder: str = "data", target: bool = True
) -> VolumeInfo:
    path = Path(folder) / f"file_{acquisition}_{patient}_{number}.h5"
    return VolumeInfo(
        path=path,
        name=path.name,
        layout="fastmri",
        acquisition=acquisition,
        anatomy="brain",
        patient=patient,
        n_slices=2,
        n_coils=2,
        readout=48,
        phase=32,
        recon=(24, 24),
        padding=(0, 32),
        max=1.0,
        field_t=3.0,
        scanner=None,
        stored_target=target,
        undersampled=not target,
        origin="synthetic",
    )


def volumes_like_fastmri(per_category: int = 8) -> list[VolumeInfo]:
    """Knees with both sequences, brains with both T1 sequences of one examination, brains with one contrast."""
    found = []
    for number in range(per_category):
        found += [volume(a, f"knee{number}", number) for a in ("CORPD_FBK", "CORPDFS_FBK")]
        found += [volume(a, f"exam{number}", number) for a in ("AXT1PRE", "AXT1POST")]
        found += [volume(a, f"{a}{number}", number) for a in ("AXFLAIR", "AXT1", "AXT2")]
    return found


def counts(volumes: Sequence[VolumeInfo]) -> Counter[str]:
    return Counter(v.acquisition for v in volumes)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("per_category", [3, 6, 8, 11])
def test_no_patient_is_split_and_categories_are_balanced(seed: int, per_category: int) -> None:
    volumes = volumes_like_fastmri(per_category)
    splits = split_by_patient(volumes, THREE, seed)
    assert shared_patients(splits) == set()
    assert sorted(v.name for group in splits.values() for v in group) == sorted(v.name for v in volumes)
    for split, fraction in THREE.items():
        for category in CATEGORIES:
            count = counts(splits[split])[category]
            assert count >= 1
            assert abs(count - fraction * per_category) <= 1


def test_patients_with_several_volumes_of_a_category_stay_together() -> None:
    volumes = [volume("AXT2", f"p{number // 3}", number) for number in range(18)]
    splits = split_by_patient(volumes, THREE, 1)
    assert shared_patients(splits) == set()
    assert {split: len(group) for split, group in splits.items()} == {"train": 9, "val": 3, "test": 6} or {
        split: len(group) for split, group in splits.items()
    } == {"train": 9, "val": 6, "test": 3}


@pytest.mark.parametrize("seed", range(5))
def test_every_split_gets_a_patient_where_there_are_just_enough(seed: int) -> None:
    volumes = [volume("CINE", f"p{number // 4}", number) for number in range(12)]
    splits = split_by_patient(volumes, {"train": 0.8, "val": 0.1, "test": 0.1}, seed)
    assert {len(group) for group in splits.values()} == {4}


@pytest.mark.parametrize("split", [split_by_patient, split_by_volume])
def test_the_seed_decides_and_the_order_of_files_does_not(split: object) -> None:
    assert callable(split)
    volumes = volumes_like_fastmri()
    first = split(volumes, THREE, 0)
    assert split(volumes[::-1], THREE, 0) == first
    assert split(volumes, THREE, 1) != first


def test_split_by_volume_leaks_patients_and_says_so() -> None:
    splits = split_by_volume(volumes_like_fastmri(), {"val": 0.5, "test": 0.5}, 0)
    assert all(counts(group) == dict.fromkeys(CATEGORIES, 4) for group in splits.values())
    assert shared_patients(splits)


def test_too_few_patients(fastmri_files: Path) -> None:
    volumes = find_volumes(fastmri_files)
    with pytest.raises(UserError, match="2 patients cannot be divided into 3 splits"):
        split_by_patient(volumes, THREE)
    with pytest.raises(UserError, match="2 volumes cannot be divided into 3 splits"):
        split_by_volume(volumes, THREE)
    halves = split_by_patient(volumes, {"val": 0.5, "test": 0.5})
    assert all(set(counts(group)) == set(CATEGORIES) for group in halves.values())


@pytest.mark.parametrize("fractions", [{}, {"a": 1.0, "b": 0.0}, {"a": 0.5, "b": 0.6}, {"a": 1.5, "b": -0.5}])
def test_bad_fractions(fractions: dict[str, float]) -> None:
    with pytest.raises(UserError, match="sum to 1"):
        split_by_patient(volumes_like_fastmri(), fractions)


def volumes_in(folder: str, patients: range, *, target: bool = True) -> list[VolumeInfo]:
    """Two contrasts of each patient, two repetitions of the first, as M4Raw has them."""
    names = [("T1", 1), ("T1", 2), ("T2", 1)]
    return [volume(a, f"p{p}", n, folder=folder, target=target) for p in patients for a, n in names]


def patients(volumes: Sequence[VolumeInfo]) -> set[str]:
    return {v.patient for v in volumes}


def test_an_official_split_into_three_is_kept() -> None:
    parts = [volumes_in(f"m4raw/multicoil_{s}", range(3 * i, 3 * i + 3)) for i, s in enumerate(THREE)]
    splits = official_split([v for part in parts for v in part])
    assert {name: set(group) for name, group in splits.items()} == dict(
        zip(THREE, map(set, parts), strict=True)
    )


def test_a_held_out_part_is_halved_by_patient_and_repetitions_stay_together() -> None:
    train = volumes_in("a/knee_batch_0/multicoil_train", range(4))
    train += volumes_in("a/knee_batch_1/multicoil_train", range(4, 8))
    held_out = volumes_in("a/knee_val/multicoil_val", range(8, 14))
    for seed in range(3):
        splits = official_split([*held_out, *train], {"train": 0.8, "val": 0.1, "test": 0.1}, seed)
        assert patients(splits["train"]) == patients(train)
        assert len(patients(splits["val"])) == len(patients(splits["test"])) == 3
        assert shared_patients(splits) == set()
        assert sum(map(len, splits.values())) == len(train) + len(held_out)


def test_without_an_official_validation_set_it_is_taken_from_the_training_set() -> None:
    train, test = (
        volumes_in("ACDC/training/patient001", range(9)),
        volumes_in("ACDC/testing/patient101", range(9, 12)),
    )
    splits = official_split(train + test)
    assert set(splits["test"]) == set(test)
    assert {name: len(patients(group)) for name, group in splits.items()} == {"train": 6, "val": 3, "test": 3}
    assert shared_patients(splits) == set()


def test_a_validation_set_too_small_to_be_halved_is_the_test_set() -> None:
    train, val = volumes_in("a/Train", range(6)), volumes_in("a/Val", range(6, 7))
    splits = official_split(train + val)
    assert set(splits["test"]) == set(val)
    assert {name: len(patients(group)) for name, group in splits.items()} == {"train": 4, "val": 2, "test": 1}


def test_test_volumes_without_a_target_cannot_be_scored() -> None:
    train, val = volumes_in("a/multicoil_train", range(4)), volumes_in("a/multicoil_val", range(4, 8))
    blind = volumes_in("a/multicoil_test", range(8, 10), target=False)
    splits = official_split([*train, *val, *blind])
    assert patients(splits["test"]) < patients(val)
    assert not set(blind) & {v for group in splits.values() for v in group}


@pytest.mark.parametrize("folder", ["mine", "a/multicoil_val", "a/multicoil_train"])
def test_one_part_alone_and_other_data_are_split_by_patient(folder: str) -> None:
    volumes = volumes_in(folder, range(8))
    assert official_split(volumes, THREE, 3) == split_by_patient(volumes, THREE, 3)


def test_a_patient_in_two_parts_and_volumes_beside_them_are_refused() -> None:
    train, val = volumes_in("a/Train", range(4)), volumes_in("a/Val", range(3, 8))
    with pytest.raises(UserError, match=r"a/Train/.*: patient p3 is also in .*a/Val"):
        official_split(train + val)
    with pytest.raises(UserError, match=r"gre/.*: lies beside the folders of the official split"):
        official_split([*train, *val[3:], *volumes_in("gre", range(1))])


@pytest.mark.parametrize("name", ["training", "testing", "Train", "Val"])
def test_folders_that_only_happen_to_be_called_so_say_nothing_of_what_is_below(name: str) -> None:
    assert official_part(Path("data") / name / "mine" / "a.h5") is None
    blind = volumes_in(f"data/{name}/mine", range(8), target=False)
    assert official_split(blind) == split_by_patient(blind)
    assert official_part(Path("data") / name / "multicoil_val" / "a.h5") == "val"


def test_prostate158_lists_its_validation_volumes(tmp_path: Path) -> None:
    folder = tmp_path / "prostate158_train"
    folder.mkdir()
    (folder / "train.csv").write_text("ID,t2,adc\n20,train/020/t2.nii.gz,train/020/adc.nii.gz\n")
    (folder / "valid.csv").write_text("ID,t2,adc\n21,train/021/t2.nii.gz,train/021/adc.nii.gz\n")
    assert official_part(folder / "train" / "020" / "t2.nii.gz") == "train"
    assert official_part(folder / "train" / "021" / "dwi.nii.gz") == "val"
    assert official_part(tmp_path / "prostate158_test" / "test" / "001" / "t2.nii.gz") == "test"
    renamed = folder.rename(tmp_path / "prostate")
    assert official_part(renamed / "train" / "021" / "t2.nii.gz") == "val"
    assert official_part(renamed / "train" / "020" / "t2.nii.gz") == "train"


def test_a_csv_file_that_is_no_list_of_images_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "valid.csv").write_bytes(b"\xff\xfe,\x01\nname,1\n")
    assert official_part(tmp_path / "a.h5") is None
    assert official_part(tmp_path / "multicoil_test_full" / "a.h5") == "test"
