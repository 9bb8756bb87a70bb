"""From scores of volumes to statements: means per category, paired differences, their intervals and p-values.

Patients are the independent units: a patient's volumes are resampled together. Training seeds are another
source of variation; they are averaged per volume first and their spread is reported apart, never pooled with
patients.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy.stats import wilcoxon

from morelib.data.volume import CATEGORIES
from morelib.evaluation.scores import VolumeScore

MetricName = Literal["psnr", "ssim", "nmse"]
ALL = "mean"  # the equally weighted mean of the categories


@dataclass(frozen=True)
class CategoryMean:
    """Means over the volumes of one category; `acceleration` is the net one."""

    psnr: float
    ssim: float
    nmse: float
    acceleration: float
    n_volumes: int
    n_patients: int


@dataclass(frozen=True)
class PairedDifference:
    """System a minus system b on the same volumes.

    `low`, `high` bound the 95 % bootstrap interval over patients (None with fewer than two patients); `p` is
    from the Wilcoxon signed-rank test on patients' mean differences, `p_holm` the same corrected for all
    categories compared.
    """

    category: str
    metric: MetricName
    mean: float
    low: float | None
    high: float | None
    p: float
    p_holm: float
    n_volumes: int
    n_patients: int


def categories_of(scores: Sequence[VolumeScore]) -> list[str]:
    """The categories present, in the order of the paper's Table I, others after them by name."""
    present = {score.acquisition for score in scores}
    return [c for c in CATEGORIES if c in present] + sorted(present - set(CATEGORIES))


def means_by_category(scores: Sequence[VolumeScore]) -> dict[str, CategoryMean]:
    """The mean of every category present, then `mean`: the categories' means averaged with equal weights."""
    means = {}
    for category in categories_of(scores):
        group = [score for score in scores if score.acquisition == category]
        means[category] = _mean(group, group)
    if means:
        means[ALL] = _mean(list(means.values()), scores)
    return means


def _mean(
    rows: Sequence[VolumeScore] | Sequence[CategoryMean], counted: Sequence[VolumeScore]
) -> CategoryMean:
    """The mean of each measure over `rows`; volumes and patients are those of `counted`."""
    measures = ("psnr", "ssim", "nmse", "acceleration")
    return CategoryMean(
        **{name: float(np.mean([getattr(row, name) for row in rows])) for name in measures},
        n_volumes=len(counted),
        n_patients=len({score.patient for score in counted}),
    )


def average_seeds(runs: Sequence[Sequence[VolumeScore]]) -> list[VolumeScore]:
    """Each volume's scores averaged over the training seeds. Raises ValueError where runs scored other volumes."""
    tables = [_by_volume(run) for run in runs]
    if not tables or any(table.keys() != tables[0].keys() for table in tables):
        raise ValueError("the runs to average must have scored the same volumes")
    return [
        replace(
            score,
            psnr=float(np.mean([table[name].psnr for table in tables])),
            ssim=float(np.mean([table[name].ssim for table in tables])),
            nmse=float(np.mean([table[name].nmse for table in tables])),
        )
        for name, score in tables[0].items()
    ]


def seed_spread(runs: Sequence[Sequence[VolumeScore]], metric: MetricName) -> tuple[float, float | None]:
    """Mean and standard deviation (n - 1; None for one seed) over seeds of the category mean of `metric`."""
    values = [getattr(means_by_category(run)[ALL], metric) for run in runs]
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None


def compare(
    a: Sequence[VolumeScore], b: Sequence[VolumeScore], metric: MetricName, samples: int = 2000, seed: int = 0
) -> list[PairedDifference]:
    """a minus b per category and for the mean of all, with intervals and Holm-corrected p-values.

    Raises ValueError where the two did not score the same volumes.
    """
    table_a, table_b = _by_volume(a), _by_volume(b)
    if table_a.keys() != table_b.keys():
        raise ValueError("the two systems must have scored the same volumes")
    differences = []
    for category in [*categories_of(a), ALL]:
        group = [score for score in a if category in (score.acquisition, ALL)]
        values = [getattr(score, metric) - getattr(table_b[score.volume], metric) for score in group]
        patients = [score.patient for score in group]
        acquisitions = [score.acquisition for score in group]
        mean, low, high = bootstrap_interval(values, patients, acquisitions, samples, seed)
        p = signed_rank(values, patients)
        differences.append(
            PairedDifference(category, metric, mean, low, high, p, p, len(group), len(set(patients)))
        )
    corrected = holm([difference.p for difference in differences])
    return [replace(d, p_holm=p_holm) for d, p_holm in zip(differences, corrected, strict=True)]


def bootstrap_interval(
    values: Sequence[float],
    patients: Sequence[str],
    groups: Sequence[str],
    samples: int = 2000,
    seed: int = 0,
) -> tuple[float, float | None, float | None]:
    """(mean, low, high): the equally weighted mean of the groups' means and its 95 % percentile interval.

    Patients are drawn with replacement, each with all its values; a group that a draw misses is left out of
    it.
    """
    names, columns = sorted(set(patients)), sorted(set(groups))
    sums, counts = np.zeros((len(names), len(columns))), np.zeros((len(names), len(columns)))
    for value, patient, group in zip(values, patients, groups, strict=True):
        cell = names.index(patient), columns.index(group)
        sums[cell] += value
        counts[cell] += 1
    mean = float(np.mean(sums.sum(0) / counts.sum(0)))
    if len(names) < 2:
        return mean, None, None
    drawn = np.random.default_rng(seed).multinomial(len(names), np.full(len(names), 1 / len(names)), samples)
    totals, sizes = drawn @ sums, drawn @ counts
    present = sizes > 0
    group_means = np.divide(totals, sizes, out=np.zeros_like(totals), where=present)
    low, high = np.percentile(group_means.sum(1) / present.sum(1), [2.5, 97.5])
    return mean, float(low), float(high)


def signed_rank(values: Sequence[float], patients: Sequence[str]) -> float:
    """Two-sided p-value of the Wilcoxon signed-rank test on patients' mean values; 1.0 if all of them are zero."""
    by_patient: dict[str, list[float]] = defaultdict(list)
    for value, patient in zip(values, patients, strict=True):
        by_patient[patient].append(value)
    means = np.array([np.mean(group) for group in by_patient.values()])
    means = means[means != 0]  # as in Wilcoxon's own treatment of zeros
    return float(wilcoxon(means).pvalue) if len(means) else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction for several tests; keeps the order of its input."""
    order = np.argsort(p_values)
    corrected, running = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = running
    return corrected


def _by_volume(scores: Sequence[VolumeScore]) -> dict[str, VolumeScore]:
    table = {score.volume: score for score in scores}
    if len(table) != len(scores):
        raise ValueError("a volume was scored twice")
    return table
