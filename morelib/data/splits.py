"""Dividing volumes into training, validation and test sets.

Half of fastMRI's knee patients have two volumes, with and without fat suppression, and in other data sets a patient has
several contrasts. A split by volume puts the same anatomy on both sides; the split by patient does not.
"""

import csv
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Protocol, TypeVar

import numpy as np

from morelib.data.volume import VolumeInfo
from morelib.errors import UserError


class Volume(Protocol):
    """What a split looks at: a `VolumeInfo` has it, and a manifest's `Row`."""

    @property
    def name(self) -> str: ...
    @property
    def acquisition(self) -> str: ...
    @property
    def patient(self) -> str: ...


V = TypeVar("V", bound=Volume)
FRACTIONS: Mapping[str, float] = {"train": 0.5, "val": 0.25, "test": 0.25}

# Folders in which data sets publish their own division, with all below them: fastMRI and M4Raw, Prostate158.
OFFICIAL_FOLDERS = {
    "multicoil_train": "train",
    "multicoil_val": "val",
    "multicoil_test": "test",
    "multicoil_test_full": "test",
    "prostate158_train": "train",
    "prostate158_test": "test",
}
# CC359 and ACDC have names that any folder may have: they count for files that lie in them as in these data sets.
OFFICIAL_FILES = {
    "Train/*.h5": "train",
    "Val/*.h5": "val",
    "training/patient*/*": "train",
    "testing/patient*/*": "test",
}
# Prostate158 lists its validation volumes beside them instead.
OFFICIAL_LIST = "valid.csv"


def split_by_patient(
    volumes: Sequence[V], fractions: Mapping[str, float] = FRACTIONS, seed: int = 0
) -> dict[str, list[V]]:
    """Split so that no patient is in two splits and every acquisition has its fraction of volumes in each.

    Iterative stratification (Sechidis 2011): the acquisition with the fewest undecided patients goes first,
    and each patient goes, with all volumes, where that acquisition is short of most, the last ones where it is
    missing. The result depends on the seed and the file names only. Raises UserError where an acquisition has
    fewer patients than there are splits.
    """
    volumes = _checked(volumes, fractions)
    by_patient: dict[str, list[V]] = defaultdict(list)
    for volume in volumes:
        by_patient[volume.patient].append(volume)
    patients_of: dict[str, dict[str, None]] = defaultdict(dict)  # in order, and quick to leave
    names = list(by_patient)
    for index in np.random.default_rng(seed).permutation(len(names)):
        for acquisition in sorted({volume.acquisition for volume in by_patient[names[index]]}):
            patients_of[acquisition][names[index]] = None
    for acquisition, patients in patients_of.items():
        _check_enough(acquisition, len(patients), "patients", fractions)
    counts = Counter(volume.acquisition for volume in volumes)
    wanted = {acquisition: _quotas(count, fractions) for acquisition, count in counts.items()}

    splits: dict[str, list[V]] = {split: [] for split in fractions}
    present: dict[str, set[str]] = {split: set() for split in fractions}
    while patients_of:
        acquisition = min(patients_of, key=lambda name: (len(patients_of[name]), name))
        patients = patients_of.pop(acquisition)
        for left, patient in zip(range(len(patients), 0, -1), patients, strict=True):
            here = wanted[acquisition]
            # The last patients go where there is none yet, so that no split stays without the acquisition.
            without = [split for split in splits if acquisition not in present[split]]
            chosen = max(
                without if len(without) >= left else splits,
                key=lambda split: (
                    here[split],
                    sum(wanted[v.acquisition][split] for v in by_patient[patient]),
                ),
            )
            splits[chosen] += by_patient[patient]
            for volume in by_patient[patient]:
                wanted[volume.acquisition][chosen] -= 1
                present[chosen].add(volume.acquisition)
            for others in patients_of.values():
                others.pop(patient, None)
        patients_of = {name: patients for name, patients in patients_of.items() if patients}
    return {split: sorted(chosen, key=_by_name) for split, chosen in splits.items()}


def split_by_volume(
    volumes: Sequence[V], fractions: Mapping[str, float] = FRACTIONS, seed: int = 0
) -> dict[str, list[V]]:
    """The naive split of the paper: volumes are divided per acquisition, whoever the patient is.

    Kept to measure what the leak changes; `shared_patients` counts it. Raises UserError for too few volumes.
    """
    volumes = _checked(volumes, fractions)
    by_acquisition: dict[str, list[V]] = defaultdict(list)
    for volume in volumes:
        by_acquisition[volume.acquisition].append(volume)
    rng = np.random.default_rng(seed)
    splits: dict[str, list[V]] = {split: [] for split in fractions}
    for acquisition in sorted(by_acquisition):
        group = by_acquisition[acquisition]
        _check_enough(acquisition, len(group), "volumes", fractions)
        shuffled = iter([group[index] for index in rng.permutation(len(group))])
        for split, quota in _quotas(len(group), fractions).items():
            splits[split] += [next(shuffled) for _ in range(quota)]
    return {split: sorted(chosen, key=_by_name) for split, chosen in splits.items()}


def official_split(
    volumes: Sequence[VolumeInfo], fractions: Mapping[str, float] = FRACTIONS, seed: int = 0
) -> dict[str, list[VolumeInfo]]:
    """The data set's own split as far as it has one, told by `official_part`; the rest is drawn by patient.

    The official training set is kept for training. Where validation and test sets are published both are used;
    a validation set alone is halved into `val` and `test`. A test set alone, or a validation set with a single
    patient of some acquisition, is `test`, and `val` is taken from the training set. Proportions are those of
    `fractions` (of train, val and test). Official test volumes without a target cannot be scored and are left
    out. Without a training set and a held-out one, all volumes are split by patient. Raises UserError where a
    patient is on both sides, and for volumes beside the official folders.
    """
    parts: dict[str | None, list[VolumeInfo]] = defaultdict(list)
    for volume in volumes:
        part = official_part(volume.path)
        if part != "test" or volume.has_target:
            parts[part].append(volume)
    outside = parts.pop(None, [])
    train, val, test = (sorted(parts[part], key=_by_name) for part in ("train", "val", "test"))
    if not train or not (val or test):
        return split_by_patient([*outside, *train, *val, *test], fractions, seed)
    if outside:
        raise UserError(
            f"{outside[0].path}: lies beside the folders of the official split; move it into one of them, or out"
        )
    if val and test:
        splits = {"train": train, "val": val, "test": test}
    elif val and min(_patients(val).values()) > 1:
        splits = {"train": train, **split_by_patient(val, _of(fractions, "val", "test"), seed)}
    else:
        splits = {**split_by_patient(train, _of(fractions, "train", "val"), seed), "test": test or val}
    if shared := sorted(shared_patients(splits)):
        first = [v.path for part in splits.values() for v in part if v.patient == shared[0]]
        raise UserError(
            f"{first[0]}: patient {shared[0]} is also in another part of the official split ({first[-1]});"
            " move the patient's files into one folder"
        )
    return splits


def official_part(path: Path) -> str | None:
    """`train`, `val` or `test`: what the folders above are called or list. None without an official folder."""
    parts = (part for pattern, part in OFFICIAL_FILES.items() if path.match(pattern))
    return next(parts, None) or _part_of_folder(path.parent)


@lru_cache(maxsize=65536)
def _part_of_folder(place: Path) -> str | None:
    for folder in (place, *place.parents):
        if listed := _listed(folder / OFFICIAL_LIST):
            return "val" if place in listed else "train"
        if folder.name in OFFICIAL_FOLDERS:
            return OFFICIAL_FOLDERS[folder.name]
    return None


@lru_cache(maxsize=64)
def _listed(path: Path) -> frozenset[Path]:
    """The folders of the images that a Prostate158 list names, none where there is no such list."""
    if not path.is_file():
        return frozenset()
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        cells = [cell for row in csv.reader(file) for cell in row if cell.endswith(".nii.gz")]
    return frozenset(path.parent / PurePosixPath(cell).parent for cell in cells)


def shared_patients(splits: Mapping[str, Sequence[Volume]]) -> set[str]:
    """The patients that occur in more than one split; empty for `split_by_patient`."""
    seen = Counter(
        patient for volumes in splits.values() for patient in {volume.patient for volume in volumes}
    )
    return {patient for patient, count in seen.items() if count > 1}


def _patients(volumes: Sequence[Volume]) -> Counter[str]:
    """How many patients each acquisition has."""
    return Counter(acquisition for acquisition, _ in {(v.acquisition, v.patient) for v in volumes})


def _of(fractions: Mapping[str, float], *names: str) -> dict[str, float]:
    """These fractions alone, scaled to sum to 1."""
    total = sum(fractions[name] for name in names)
    return {name: fractions[name] / total for name in names}


def _by_name(volume: Volume) -> str:
    return volume.name


def _checked(volumes: Sequence[V], fractions: Mapping[str, float]) -> list[V]:
    if not fractions or min(fractions.values()) <= 0 or abs(sum(fractions.values()) - 1) > 1e-6:
        raise UserError(f"split fractions {dict(fractions)}: must be positive and sum to 1")
    return sorted(volumes, key=_by_name)


def _check_enough(acquisition: str, count: int, what: str, fractions: Mapping[str, float]) -> None:
    if count < len(fractions):
        raise UserError(
            f"{acquisition}: {count} {what} cannot be divided into {len(fractions)} splits; add volumes"
            " (`morelib phantom --volumes-per-category`) or leave this acquisition out"
        )


def _quotas(count: int, fractions: Mapping[str, float]) -> dict[str, int]:
    """Whole numbers that sum to `count`, at least 1 each, nearest to the fractions (largest remainder)."""
    quotas = {split: max(1, int(count * fraction)) for split, fraction in fractions.items()}
    while sum(quotas.values()) != count:
        missing = {split: count * fraction - quotas[split] for split, fraction in fractions.items()}
        if sum(quotas.values()) < count:
            quotas[max(missing, key=lambda split: missing[split])] += 1
        else:
            quotas[min((s for s in quotas if quotas[s] > 1), key=lambda split: missing[split])] -= 1
    return quotas
