"""Means, intervals over patients and corrected tests: what they must do on cases whose answer is known."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import false_discovery_control, wilcoxon

from morelib.data.volume import CATEGORIES
from morelib.evaluation.scores import VolumeScore
from morelib.evaluation.statistics import (
    ALL,
    average_seeds,
    bootstrap_interval,
    compare,
    holm,
    means_by_category,
    seed_spread,
    signed_rank,
)


def score(number: int, category: str, psnr: float, patient: str | None = None) -> VolumeScore:
    return VolumeScore(
        f"{category}-{number}.h5",
        category,
        patient or f"p{number}",
        4,
        8.0,
        psnr,
        psnr / 40,
        0.01,
        "measured",
    )


def many(shift: float = 0.0, per_category: int = 6, seed: int = 0) -> list[VolumeScore]:
    rng = np.random.default_rng(seed)
    return [
        score(number, category, 30 + column + shift + rng.normal())
        for column, category in enumerate(CATEGORIES)
        for number in range(per_category)
    ]


def test_the_mean_column_weighs_categories_equally() -> None:
    scores = [
        score(0, "AXT2", 30),
        score(1, "AXT2", 32),
        score(2, "AXT2", 34),
        score(0, "CORPD_FBK", 40),
        score(9, "T1", 10),
    ]
    means = means_by_category(scores)
    assert list(means) == ["AXT2", "CORPD_FBK", "T1", ALL]
    assert (means["AXT2"].psnr, means["AXT2"].n_volumes, means["AXT2"].n_patients) == (32, 3, 3)
    assert means[ALL].psnr == pytest.approx((32 + 40 + 10) / 3)
    assert (means[ALL].n_volumes, means[ALL].n_patients) == (5, 4)
    assert means_by_category([]) == {}


def test_a_constant_difference_has_a_point_interval() -> None:
    scores = many()
    better = [replace(s, psnr=s.psnr + 0.5) for s in scores]
    differences = compare(better, scores[::-1], "psnr", samples=200)
    assert [d.category for d in differences] == [*CATEGORIES, ALL]
    for d in differences:
        assert (d.mean, d.low, d.high) == pytest.approx((0.5, 0.5, 0.5))
        assert (d.n_volumes, d.n_patients) == ((42, 6) if d.category == ALL else (6, 6))
        assert d.p == pytest.approx(2 / 2**6)
        assert d.p <= d.p_holm <= 1


def test_no_difference() -> None:
    for d in compare(many(), many(), "ssim", samples=50):
        assert (d.mean, d.low, d.high, d.p, d.p_holm) == (0, 0, 0, 1, 1)


def test_comparison_is_antisymmetric_and_seeded() -> None:
    a, b = many(seed=1), many(seed=2)
    forward, backward, again = compare(a, b, "psnr"), compare(b, a, "psnr"), compare(a, b, "psnr")
    assert forward == again
    assert compare(a, b, "psnr", seed=1) != forward
    for d, e in zip(forward, backward, strict=True):
        assert d.low is not None
        assert d.high is not None
        assert d.low <= d.mean <= d.high
        assert (d.mean, d.p) == pytest.approx((-e.mean, e.p))
        assert (d.low, d.high) == pytest.approx((-(e.high or 0), -(e.low or 0)))


def test_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for trial in range(200):
        values = rng.normal(1.0, 1.0, 40)
        _, low, high = bootstrap_interval(
            values.tolist(), [str(n) for n in range(40)], ["a"] * 40, 300, trial
        )
        assert low is not None
        assert high is not None
        hits += low <= 1.0 <= high
    assert 0.88 <= hits / 200 <= 0.99


def test_repeating_a_patients_volumes_adds_no_certainty() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=20).tolist()
    patients = [str(number) for number in range(20)]
    once = bootstrap_interval(values, patients, ["a"] * 20)
    assert bootstrap_interval(values * 5, patients * 5, ["a"] * 100) == pytest.approx(once)
    assert signed_rank(values * 5, patients * 5) == signed_rank(values, patients)


def test_one_patient_has_no_interval() -> None:
    assert bootstrap_interval([1.0, 3.0], ["a", "a"], ["x", "x"]) == (2.0, None, None)
    assert signed_rank([1.0], ["a"]) == 1.0


def test_signed_rank_is_scipys_on_patients() -> None:
    values = np.random.default_rng(3).normal(0.3, 1, 30)
    assert signed_rank(values.tolist(), [str(n) for n in range(30)]) == wilcoxon(values).pvalue
    assert signed_rank([0.5, 0.5, -0.5, 0.0, 0.25], list("abcde")) <= 1  # ties and zeros


def test_holm() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []
    p = np.random.default_rng(0).uniform(0, 0.2, 12)
    corrected = np.array(holm(p.tolist()))
    assert (corrected >= false_discovery_control(p)).all()
    assert (np.argsort(corrected[np.argsort(p)], kind="stable") == np.arange(12)).all()


def test_seeds_are_averaged_per_volume_and_their_spread_reported_apart() -> None:
    runs = [many(0.0), many(1.0), many(2.0)]
    assert means_by_category(average_seeds(runs))[ALL].psnr == pytest.approx(
        means_by_category(runs[1])[ALL].psnr
    )
    assert seed_spread(runs, "psnr") == pytest.approx((means_by_category(runs[1])[ALL].psnr, 1.0))
    assert seed_spread(runs[:1], "psnr")[1] is None


def test_other_volumes_cannot_be_paired() -> None:
    with pytest.raises(ValueError, match="same volumes"):
        compare(many(), many()[1:], "psnr")
    with pytest.raises(ValueError, match="same volumes"):
        average_seeds([many(), many()[1:]])
    with pytest.raises(ValueError, match="twice"):
        compare(many() + many(), many(), "psnr")
