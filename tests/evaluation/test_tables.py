"""Tables say what their numbers are, mark the best, and survive as markdown and as HTML."""

from dataclasses import replace
from xml.etree import ElementTree

import pytest

from morelib.data.volume import CATEGORIES
from morelib.evaluation.cost import Cost
from morelib.evaluation.scores import VolumeScore
from morelib.evaluation.statistics import compare
from morelib.evaluation.tables import (
    Table,
    against_table,
    beats,
    comparison_table,
    cost_table,
    paper_results_table,
    results_table,
    seed_table,
)


def scores(psnr: float, ssim: float) -> list[VolumeScore]:
    return [
        VolumeScore(
            f"{category}{number}.h5", category, f"p{number}", 4, 6.1, psnr + number, ssim, 0.1, "synthetic"
        )
        for category in CATEGORIES
        for number in range(2)
    ]


@pytest.fixture
def systems() -> dict[str, list[list[VolumeScore]]]:
    return {
        "zero-filled": [scores(20, 0.5)],
        "e2e_varnet": [scores(30, 0.8), scores(32, 0.8)],
        "more": [scores(31, 0.9), scores(30, 0.9)],
    }


def test_results_table(systems: dict[str, list[list[VolumeScore]]]) -> None:
    table = results_table(systems)
    assert len(table.header) == 1 + 7 + 1 + 1
    assert table.header[1] == "AXFLAIR\n2 vol.,\n2 pat."
    assert table.header[6].startswith("knee-fs\n")
    assert table.header[-2] == "mean\n14 vol.,\n2 pat."
    assert [row[0] for row in table.rows] == list(systems)
    assert [row[-1] for row in table.rows] == ["1", "2", "2"]
    assert [row[1] for row in table.rows] == ["50.00 / 20.50", "80.00 / **31.50**", "**90.00** / 31.00"]
    assert len({len(row) for row in (table.header, *table.rows)}) == 1


def test_what_prints_equal_is_bold_together() -> None:
    one = scores(30, 0.8)
    table = results_table({"a": [one], "b": [[replace(s, ssim=s.ssim + 1e-7) for s in one]]})
    assert table.rows[0][1] == table.rows[1][1] == "**80.00** / **30.50**"


def test_paper_table_matches_the_paper() -> None:
    table = paper_results_table()
    assert table.header == (
        "",
        "AXFLAIR",
        "AXT1POST",
        "AXT2",
        "AXT1",
        "AXT1PRE",
        "knee-fs",
        "knee-nofs",
        "mean",
    )
    assert table.rows[2][1] == "89.50 / **35.32**"
    assert table.rows[0][1] == "**89.80** / 34.87"
    assert [row[-1] for row in table.rows] == ["90.76 / 35.47", "90.88 / 35.84", "**91.18** / **36.18**"]


def test_comparison_table_states_n_interval_and_p(systems: dict[str, list[list[VolumeScore]]]) -> None:
    table = comparison_table(
        compare(systems["more"][0], systems["zero-filled"][0], "ssim"), "more", "zero-filled"
    )
    assert table.rows[0] == ("AXFLAIR", "+40.00", "+40.00 to +40.00", "0.500", "1.000", "2 (2)")
    assert table.rows[-1][0] == "mean"
    assert "Holm" in table.caption
    single = [s for s in systems["more"][0] if s.patient == "p0"]
    assert comparison_table(compare(single, single, "psnr"), "a", "b").rows[0][2] == "n < 2"


def test_seed_table(systems: dict[str, list[list[VolumeScore]]]) -> None:
    assert seed_table(systems).rows == (
        ("zero-filled", "50.00", "20.50", "1"),
        ("e2e_varnet", "80.00 ± 0.00", "31.50 ± 1.41", "2"),
        ("more", "90.00 ± 0.00", "31.00 ± 0.71", "2"),
    )


def test_beats(systems: dict[str, list[list[VolumeScore]]]) -> None:
    assert beats(systems, "more", "zero-filled") == dict.fromkeys(CATEGORIES, True)
    assert not any(beats(systems, "more", "e2e_varnet").values())


def test_markdown_and_html() -> None:
    table = Table(("", "a\nn = 1"), (("x < y", "**1.00** / 2"),), "caption & more")
    assert (
        table.markdown() == "|  | a<br>n = 1 |\n| --- | --- |\n| x < y | **1.00** / 2 |\n\ncaption & more\n"
    )
    root = ElementTree.fromstring(table.html().replace("<br>", "<br/>"))
    assert root.find("tbody/tr/th").text == "x < y"  # type: ignore[union-attr]
    assert root.find("tbody/tr/td/strong").text == "1.00"  # type: ignore[union-attr]
    assert root.find("caption").text == "caption & more"  # type: ignore[union-attr]


def test_tables_say_which_data_were_not_measured() -> None:
    def caption(origin: str) -> str:
        return results_table({"a": [[replace(s, origin=origin) for s in scores(30, 0.8)]]}).caption

    assert caption("synthetic").endswith("Synthetic data (phantom).")
    assert "simulated from magnitude images" in caption("simulated")
    assert caption("measured").endswith("in bold.")


def test_every_other_system_is_set_against_the_reference(systems: dict[str, list[list[VolumeScore]]]) -> None:
    table = against_table(systems, "e2e_varnet", samples=100)
    assert [row[0] for row in table.rows] == ["zero-filled", "more"]
    assert [row[1] for row in table.rows] == ["-11.00", "-0.50"]
    assert [row[4] for row in table.rows] == ["-30.00", "+10.00"]
    assert "14 volumes of 2 patients" in table.caption and table.caption.endswith("Synthetic data (phantom).")


def test_cost_table_gives_time_in_multiples_of_the_reference() -> None:
    costs = {"a": Cost(1000, 1000, 2 * 10**9, 0.5, 10**6, 2 * 10**6), "b": Cost(2500, 1500, 10**9, 1.0, 0, 0)}
    table = cost_table(costs, {"a": "6 epochs", "b": "2 epochs"}, "a", "Cost.")
    assert table.rows[0] == ("a", "1,000", "1,000", "2.00", "1.00", "1.0 MB", "2.0 MB", "6 epochs")
    assert table.rows[1][1:5] == ("2,500", "1,500", "1.00", "2.00")
    assert len(table.header) == len(table.rows[1])
