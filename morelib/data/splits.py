"""Dividing volumes into training, validation and test sets.

Half of fastMRI's knee patients have two volumes (with and without fat suppression) and many brain patients
have several contrasts. A split by volume puts the same anatomy on both sides; the split by patient does not.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from morelib.data.volume import VolumeInfo
from morelib.errors import UserError

Splits = dict[str, list[VolumeInfo]]
FRACTIONS: Mapping[str, float] = {"train": 0.5, "val": 0.25, "test": 0.25}


def split_by_patient(
    volumes: Sequence[VolumeInfo], fractions: Mapping[str, float] = FRACTIONS, seed: int = 0
) -> Splits:
    """Split so that no patient is in two splits and every acquisition has its fraction of volumes in each.

    Iterative stratification (Sechidis 2011): the acquisition with the fewest undecided patients goes first,
    and each patient goes, with all volumes, where that acquisition is short of most. The result depends on
    the seed and the file names only. Raises UserError where an acquisition has fewer patients than there are
    splits.
    """
    volumes = _checked(volumes, fractions)
    by_patient: dict[str, list[VolumeInfo]] = defaultdict(list)
    for volume in volumes:
        by_patient[volume.patient].append(volume)
    patients_of: dict[str, list[str]] = defaultdict(list)
    names = list(by_patient)
    for index in np.random.default_rng(seed).permutation(len(names)):
        for acquisition in sorted({volume.acquisition for volume in by_patient[names[index]]}):
            patients_of[acquisition].append(names[index])
    for acquisition, patients in patients_of.items():
        _check_enough(acquisition, len(patients), "patients", fractions)
    counts = Counter(volume.acquisition for volume in volumes)
    wanted = {acquisition: _quotas(count, fractions) for acquisition, count in counts.items()}

    splits: Splits = {split: [] for split in fractions}
    while patients_of:
        acquisition = min(patients_of, key=lambda name: (len(patients_of[name]), name))
        for patient in patients_of.pop(acquisition):
            here = wanted[acquisition]
            chosen = max(
                splits,
                key=lambda split: (
                    here[split],
                    sum(wanted[v.acquisition][split] for v in by_patient[patient]),
                ),
            )
            splits[chosen] += by_patient[patient]
            for volume in by_patient[patient]:
                wanted[volume.acquisition][chosen] -= 1
            for others in patients_of.values():
                if patient in others:
                    others.remove(patient)
        patients_of = {name: patients for name, patients in patients_of.items() if patients}
    return {split: sorted(chosen, key=_by_name) for split, chosen in splits.items()}


def split_by_volume(
    volumes: Sequence[VolumeInfo], fractions: Mapping[str, float] = FRACTIONS, seed: int = 0
) -> Splits:
    """The naive split of the paper: volumes are divided per acquisition, whoever the patient is.

    Kept to measure what the leak changes; `shared_patients` counts it. Raises UserError for too few volumes.
    """
    volumes = _checked(volumes, fractions)
    by_acquisition: dict[str, list[VolumeInfo]] = defaultdict(list)
    for volume in volumes:
        by_acquisition[volume.acquisition].append(volume)
    rng = np.random.default_rng(seed)
    splits: Splits = {split: [] for split in fractions}
    for acquisition in sorted(by_acquisition):
        group = by_acquisition[acquisition]
        _check_enough(acquisition, len(group), "volumes", fractions)
        shuffled = iter([group[index] for index in rng.permutation(len(group))])
        for split, quota in _quotas(len(group), fractions).items():
            splits[split] += [next(shuffled) for _ in range(quota)]
    return {split: sorted(chosen, key=_by_name) for split, chosen in splits.items()}


def shared_patients(splits: Splits) -> set[str]:
    """The patients that occur in more than one split; empty for `split_by_patient`."""
    seen = Counter(
        patient for volumes in splits.values() for patient in {volume.patient for volume in volumes}
    )
    return {patient for patient, count in seen.items() if count > 1}


def _by_name(volume: VolumeInfo) -> str:
    return volume.name


def _checked(volumes: Sequence[VolumeInfo], fractions: Mapping[str, float]) -> list[VolumeInfo]:
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
