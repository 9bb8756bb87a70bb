"""No patient on both sides, every category everywhere, the seed decides."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from morelib.data.splits import shared_patients, split_by_patient, split_by_volume
from morelib.data.volume import CATEGORIES, VolumeInfo, find_volumes
from morelib.errors import UserError

THREE = {"train": 0.5, "val": 0.25, "test": 0.25}


def volume(acquisition: str, patient: str, number: int) -> VolumeInfo:
    path = Path(f"file_{acquisition}_{patient}_{number}.h5")
    return VolumeInfo(
        path, acquisition, patient, 2, 2, 48, 32, (24, 24), (0, 32), 1.0, 3.0, True, False, True
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
