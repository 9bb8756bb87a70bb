"""Rows say what was measured, whether it meets its goal, and nothing where nothing was measured."""

from pathlib import Path

import pytest

from morelib.companion.bench.result import (
    DIFFERENCE,
    FASTER,
    TIME,
    UNMEASURED,
    Row,
    compared,
    recorded,
    result_table,
    write_result,
)
from morelib.errors import UserError

ROWS = [
    compared("ours", "theirs", (1.0, 3.0), FASTER, 5, at_least=2.0),
    compared("ours", "theirs", (3.0, 1.0), TIME, 5, at_most=1.1),
    Row("image", "theirs", DIFFERENCE, 2e-7, at_most=1e-5),
    Row("compiled", "eager", FASTER, at_least=1.5),
]


def test_the_unit_says_which_is_divided_by_which() -> None:
    assert [row.value for row in ROWS] == [3.0, 3.0, 2e-7, None]


def test_a_goal_is_met_or_missed_or_not_known() -> None:
    assert [row.holds for row in ROWS] == [True, False, True, None]
    assert [row.goal for row in ROWS] == ["at least 2", "at most 1.1", "at most 1e-05", "at least 1.5"]
    assert Row("share", "whole", "of the operations", 0.47).holds is None


def test_cells_for_a_table() -> None:
    assert ROWS[0].cells == ("ours", "theirs", "3.00 times faster", "at least 2", "yes", "5")
    assert ROWS[2].cells[2] == "2e-07 relative difference"
    assert ROWS[3].cells == ("compiled", "eager", UNMEASURED, "at least 1.5", "", "")


def test_absolute_times_are_shown_on_request_only() -> None:
    with_times, without = (result_table("title", ROWS, absolute=absolute) for absolute in (True, False))
    assert list(with_times.columns[-1].cells) == ["1000.0 : 3000.0", "3000.0 : 1000.0", "", ""]
    assert len(without.columns) == len(with_times.columns) - 1


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    assert recorded(tmp_path, "model", Row) == []
    folder = tmp_path / "book" / "results" / "bench"
    write_result(folder / "model-b.json", {"device": "b"}, {"size": [1, 2, 3]}, ROWS)
    write_result(folder / "model-a.json", {"device": "a"}, {"size": [1, 2, 3]}, ROWS[:1])
    first, second = recorded(tmp_path, "model", Row)
    assert (first.card, second.card, second.setting) == (
        {"device": "a"},
        {"device": "b"},
        {"size": [1, 2, 3]},
    )
    assert [row.cells for row in second.rows] == [row.cells for row in ROWS]


@pytest.mark.parametrize(
    "text", ["", "[]", '{"rows": []}', '{"run_card": {}, "setting": {}, "rows": [{"x": 1}]}']
)
def test_another_file_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "book" / "results" / "bench" / "model-a.json"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    with pytest.raises(UserError, match=r"model-a\.json: not the result of a benchmark; make it again"):
        recorded(tmp_path, "model", Row)


def test_a_recorded_result_says_where_it_is_from(tmp_path: Path) -> None:
    card = {"profile": "bench model", "data": "synthetic noise", "device": "a machine", "commit": "abc"}
    write_result(tmp_path / "book" / "results" / "bench" / "model-a.json", card, {"size": [1, 2, 3]}, ROWS)
    (result,) = recorded(tmp_path, "model", Row)
    line = "bench model at 1x2x3 (readout, phase, coils), synthetic noise. a machine; commit abc."
    assert result.describe() == line
