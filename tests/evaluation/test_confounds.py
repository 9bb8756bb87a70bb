"""What a header gives away: nothing, everything, and cases that can be counted by hand."""

import numpy as np
import pytest

from morelib.evaluation.confounds import association, guess_from

LABELS = ["a"] * 6 + ["b"] * 6 + ["c"] * 6


def test_a_factor_that_names_the_label_gives_it_away() -> None:
    factor = [(ord(label), "scanner") for label in LABELS]
    assert association(LABELS, factor) == pytest.approx(1)
    assert guess_from(LABELS, factor) == 1


def test_a_constant_factor_gives_nothing_away() -> None:
    # Leaving one out makes its own label the rarest: guessing is never better than chance.
    assert guess_from(LABELS, ["same"] * 18) <= 1 / 3
    assert association(LABELS, ["same"] * 18) == pytest.approx(0)


def test_a_random_factor_is_near_chance() -> None:
    rng = np.random.default_rng(0)
    labels = [str(label) for label in rng.integers(4, size=4000)]
    factor = rng.integers(3, size=4000).tolist()
    assert abs(association(labels, factor)) < 0.01
    assert abs(guess_from(labels, factor) - 0.25) < 0.05


def test_counted_by_hand_with_unequal_labels() -> None:
    # Factor 1 holds a a b, factor 2 holds a b b: of each, two of three others agree or not.
    labels, factor = ["a", "a", "b", "a", "b", "b"], [1, 1, 1, 2, 2, 2]
    # a in 1: others a, b tie -> 1/2 twice; b in 1: others a, a -> 0; a in 2: others b, b -> 0; b in 2: tie twice.
    assert guess_from(labels, factor) == pytest.approx((1 / 3 + 1 / 3) / 2)


def test_a_value_of_its_own_is_a_guess_among_all() -> None:
    assert guess_from(["a", "b"], ["x", "y"]) == pytest.approx(0.5)
