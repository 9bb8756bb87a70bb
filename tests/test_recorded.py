"""What pages say of recorded runs is what was recorded."""

import re
from pathlib import Path

import pytest

from morelib.companion.bench.model import DENSE, FASTMRI, PUBLISHED
from morelib.companion.bench.result import Row
from morelib.evaluation import VolumeScore, compare
from morelib.evaluation.statistics import ALL, average_seeds, means_by_category
from morelib.files import read_json

ROOT = Path(__file__).parents[1]
Runs = dict[str, list[list[VolumeScore]]]


@pytest.fixture(scope="module")
def runs() -> Runs:
    """The scores of every network by seed."""
    stored = read_json(ROOT / "book" / "results" / "cpu" / "table_1.json")["result"]
    return {
        name: [[VolumeScore(**score) for score in run] for run in by_seed] for name, by_seed in stored.items()
    }


def _ssim(scores: list[VolumeScore]) -> float:
    return 100 * means_by_category(scores)[ALL].ssim


def test_the_table_on_the_page_on_limits(runs: Runs) -> None:
    page = (ROOT / "book" / "limits.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (.+?) \| (\d\d\.\d) \((.+?)\) \|(.*)\|$", page, re.MULTILINE)
    assert {name for name, *_ in rows} == set(runs) - {"Zero-filled", "CG-SENSE", "TV-SENSE"}
    ours = average_seeds(runs["MoRE"])
    for name, mean, spread, against in rows:
        seeds = [_ssim(run) for run in runs[name]]
        assert mean == f"{sum(seeds) / len(seeds):.1f}", name
        assert spread == (f"{min(seeds):.1f} to {max(seeds):.1f}" if len(seeds) > 1 else "one seed"), name
        if name != "MoRE":
            gain = compare(average_seeds(runs[name]), ours, "ssim")[-1]
            low, high = (f"{100 * end:+.2f}" for end in (gain.low, gain.high))
            assert against.strip().replace("−", "-") == f"{100 * gain.mean:+.2f} ({low} to {high})", name


def test_the_scores_in_the_readme(runs: Runs) -> None:
    text = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    names = ("E2EVarNet", "MoRE", "Gated dense", "Dense, MoRE's active size", "Dense, MoRE's total size")
    means = [f"{_ssim(average_seeds(runs[name])):.1f}" for name in names]
    told = re.search(
        r"E2EVarNet reaches ([\d.]+) % SSIM, MoRE ([\d.]+),.*? reaches ([\d.]+).*? ([\d.]+) and ([\d.]+)\.",
        text,
    )
    assert told is not None
    assert list(told.groups()) == means


MORE, PROMPTMR = "MoRE N=8, K=1, ", "PromptMR+, preset paper, "
# What the lines of the table of speed are, in their order: `what` and the beginning of `against`.
LINES = (
    ("E2EVarNet, forward", FASTMRI),
    ("E2EVarNet, step", FASTMRI),
    (f"{MORE}router as printed, 16 cached inputs, step", "E2EVarNet of MoRE's active size"),
    (f"{MORE}router as printed, 16 cached inputs, step", DENSE),
    (f"{MORE}router_width 16, 16 cached inputs, step", DENSE),
    (f"{MORE}router as printed, no cached inputs, step", DENSE),
    (f"{PROMPTMR}forward", DENSE),
    (f"{PROMPTMR}step", DENSE),
    (f"{PROMPTMR}forward", PUBLISHED),
    (f"{PROMPTMR}step", PUBLISHED),
)
MACHINES = ("epyc-2-cores-full-size", "epyc-2-cores-256x144", "h100-full-size")


def test_the_table_of_speed_on_the_page_on_limits() -> None:
    page = (ROOT / "book" / "limits.md").read_text(encoding="utf-8").partition("## Speed")[2]
    lines = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if line[:2] == "| "
    ]
    (_, *head), *body, (_, *commits, _) = lines
    assert len(head) == len(MACHINES) + 1
    files = [read_json(ROOT / "book" / "results" / "bench" / f"model-{machine}.json") for machine in MACHINES]
    assert [file["run_card"]["commit"][:7] for file in files] == commits
    for (label, *cells, _), (what, against) in zip(body, LINES, strict=True):
        for cell, file in zip(cells, files, strict=True):
            found = [
                row
                for row in (Row(**row) for row in file["rows"])
                if row.what == what and row.against.startswith(against) and row.times
            ]
            if not found:
                assert cell == "not measured", label
                continue
            number = cell.strip("*")
            assert number == f"{found[0].value:.{len(number.partition('.')[2])}f}", label
            assert (cell != number) == (found[0].holds is False), f"{label}: bold where the goal is missed"
