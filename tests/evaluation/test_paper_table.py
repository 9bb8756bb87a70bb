"""The arithmetic of the claims about the paper's Table I."""

from pathlib import Path

import pytest

from morelib.data.volume import CATEGORIES
from morelib.evaluation.paper_table import (
    METHODS,
    TABLE_I,
    TRAINING_VOLUMES,
    checks,
    gain,
    lead,
    mean,
    ranks,
    spread,
    winners,
)


def rounded(values: dict[str, float]) -> dict[str, float]:
    return {key: round(value, 2) for key, value in values.items()}


def test_means() -> None:
    assert [round(mean(method, "psnr"), 2) for method in METHODS] == [35.47, 35.84, 36.18]
    assert [round(mean(method, "ssim"), 2) for method in METHODS] == [90.76, 90.88, 91.18]
    assert [round(mean(method, "psnr", TRAINING_VOLUMES), 2) for method in METHODS] == [35.44, 35.83, 36.18]


def test_gains_over_the_baselines() -> None:
    def total(other: str) -> tuple[float, float]:
        return (
            round(mean("MoRE", "ssim") - mean(other, "ssim"), 2),
            round(mean("MoRE", "psnr") - mean(other, "psnr"), 2),
        )

    assert total("E2EVarNet") == (0.42, 0.72)
    assert total("PromptMR+") == (0.31, 0.34)


def test_winners_and_ranks() -> None:
    assert winners("psnr") == {c: "PromptMR+" if c == "AXT2" else "MoRE" for c in CATEGORIES}
    assert [c for c, best in winners("ssim").items() if best == "MoRE"] == [
        "AXT1POST",
        "AXT1PRE",
        "CORPDFS_FBK",
        "CORPD_FBK",
    ]
    assert max(ranks("MoRE", "ssim").values()) == max(ranks("MoRE", "psnr").values()) == 2
    assert round(lead("MoRE", "psnr")["AXT2"], 2) == -0.02


def test_gaps_and_leads_of_ssim() -> None:
    leads = rounded(lead("MoRE", "ssim"))
    assert {c: v for c, v in leads.items() if v < 0} == {"AXFLAIR": -0.30, "AXT2": -0.02, "AXT1": -0.37}
    assert {c: leads[c] for c in ("AXT1POST", "AXT1PRE", "CORPD_FBK")} == {
        "AXT1POST": 0.16,
        "AXT1PRE": 0.06,
        "CORPD_FBK": 0.27,
    }


def test_spread_does_not_support_better_balance() -> None:
    assert [spread(method, "psnr") for method in METHODS] == pytest.approx([1.02, 0.93, 1.055], abs=0.005)
    assert [spread(method, "ssim") for method in METHODS] == pytest.approx([2.97, 3.21, 3.04], abs=0.005)
    best_minus_worst = {m: max(row.values()) - min(row.values()) for m, row in TABLE_I["psnr"].items()}
    assert (round(best_minus_worst["PromptMR+"], 2), round(best_minus_worst["MoRE"], 2)) == (2.73, 3.32)


def test_the_stronger_baseline_is_not_always_stronger() -> None:
    assert {c for c, value in gain("E2EVarNet", "PromptMR+", "psnr").items() if value > 0} == {"AXT1PRE"}
    assert TABLE_I["psnr"]["E2EVarNet"]["AXT1PRE"] == TABLE_I["psnr"]["E2EVarNet"]["CORPD_FBK"] == 35.99


def test_checks_say_which_claims_hold() -> None:
    verdicts = [check.verdict for check in checks()]
    assert verdicts == ["holds"] * 5 + ["partly"] * 2 + ["not supported", "holds"]
    assert all(check.finding for check in checks())


def test_the_page_and_the_code_give_the_same_verdicts() -> None:
    page = (Path(__file__).parents[2] / "book" / "paper_check.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if "| **" in line]
    written = {row[0]: row[1].strip("*") for row in rows if len(row) == 3}
    for check in checks():
        assert written[check.claim] == check.verdict
