"""Figures of chapter 12 show the numbers they were given."""

import pytest

from morelib.companion.bench.growth import Point
from morelib.companion.bench.parts import OF_THEIRS
from morelib.companion.bench.result import FASTER, TIME, Row
from morelib.companion.figures.cost import FAR, goals_figure, growth_figure, margin, parts_figure, rows_table

PARTS = [
    Row("maps", "fastMRI", OF_THEIRS, 0.6),
    Row("rest", "fastMRI", OF_THEIRS, 0.4),
    Row("maps", "ours", OF_THEIRS, 0.1),
    Row("rest", "ours", OF_THEIRS, 0.2),
]
JUDGED = [
    Row("forward", "fastMRI", FASTER, 3.0, at_least=2.0),
    Row("step", "dense", TIME, 2.2, at_most=1.1),
    Row("compiled", "eager", FASTER, at_least=1.5),
    Row("maps", "whole", TIME, 0.5),
]


def test_parts_are_stacked_by_system_and_not_in_the_table() -> None:
    figure = parts_figure([*PARTS, *JUDGED])
    assert [(trace.name, tuple(trace.x), tuple(trace.y)) for trace in figure.data] == [
        ("maps", (0.6, 0.1), ("fastMRI", "ours")),
        ("rest", (0.4, 0.2), ("fastMRI", "ours")),
    ]
    assert [row[0] for row in rows_table([*PARTS, *JUDGED], "").rows] == [row.what for row in JUDGED]


def test_curves_are_relative_to_the_first_system_at_the_largest_value() -> None:
    points = [
        Point("coils", 4, "fastMRI", 8.0, 400),
        Point("coils", 4, "ours", 4.0, 100),
        Point("coils", 2, "fastMRI", 6.0, 200),
        Point("coils", 2, "ours", None, 50),
    ]
    figure = growth_figure(points)
    curves = [(trace.name, tuple(trace.x), tuple(trace.y)) for trace in figure.data]
    assert curves == [
        ("fastMRI", (2, 4), (0.75, 1.0)),
        ("fastMRI", (2, 4), (0.5, 1.0)),
        ("ours", (4,), (0.5,)),
        ("ours", (2, 4), (0.125, 0.25)),
    ]
    assert [trace.name for trace in figure.data if trace.showlegend] == ["fastMRI", "ours"]


def test_goals_are_dots_left_and_right_of_one() -> None:
    assert [margin(row) for row in JUDGED[:2]] == [1.5, pytest.approx(0.5)]
    far = Row("waiting", "training", TIME, 1e-4, at_most=0.05)
    met, missed = goals_figure([*JUDGED, far]).data
    assert (tuple(met.x), tuple(missed.x)) == ((1.5, FAR), (pytest.approx(0.5),))
