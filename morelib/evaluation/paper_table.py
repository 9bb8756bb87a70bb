"""The paper's Table I as data, and its sentences about that table as computed checks."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from morelib.data.volume import CATEGORIES

Metric = Literal["ssim", "psnr"]
Verdict = Literal["holds", "partly", "not supported"]
METHODS = ("E2EVarNet", "PromptMR+", "MoRE")

# Table I of the paper: fastMRI multi-coil, 8x. SSIM in percent, PSNR in dB, columns in the order of CATEGORIES.
# Some copies of the paper print the second and fifth column as AXTIPOST and AXTIPRE.
_SSIM = {
    "E2EVarNet": (89.80, 93.99, 91.85, 90.79, 92.17, 84.14, 92.59),
    "PromptMR+": (88.88, 94.53, 92.71, 89.87, 92.37, 84.40, 93.37),
    "MoRE": (89.50, 94.69, 92.69, 90.42, 92.43, 84.92, 93.64),
}
_PSNR = {
    "E2EVarNet": (34.87, 37.16, 33.88, 35.84, 35.99, 34.53, 35.99),
    "PromptMR+": (34.94, 37.54, 34.81, 36.08, 35.94, 35.01, 36.56),
    "MoRE": (35.32, 38.11, 34.79, 36.33, 36.42, 35.34, 36.96),
}
TABLE_I: dict[Metric, dict[str, dict[str, float]]] = {
    "ssim": {method: dict(zip(CATEGORIES, row, strict=True)) for method, row in _SSIM.items()},
    "psnr": {method: dict(zip(CATEGORIES, row, strict=True)) for method, row in _PSNR.items()},
}
# Volumes per category in the paper's training set.
TRAINING_VOLUMES = {category: 75 if category.startswith("COR") else 50 for category in CATEGORIES}


def mean(method: str, metric: Metric, weights: dict[str, int] | None = None) -> float:
    """The mean over the seven columns, equally or by `weights` (such as TRAINING_VOLUMES)."""
    row = TABLE_I[metric][method]
    return float(
        np.average(list(row.values()), weights=None if weights is None else [weights[c] for c in row])
    )


def spread(method: str, metric: Metric) -> float:
    """The standard deviation over the seven columns (of the columns themselves: divided by 7)."""
    return float(np.std(list(TABLE_I[metric][method].values())))


def winners(metric: Metric) -> dict[str, str]:
    """The best method of each column."""
    return {c: max(METHODS, key=lambda method: TABLE_I[metric][method][c]) for c in CATEGORIES}


def ranks(method: str, metric: Metric) -> dict[str, int]:
    """The rank of `method` in each column, 1 = best."""
    own = TABLE_I[metric][method]
    return {c: 1 + sum(TABLE_I[metric][other][c] > own[c] for other in METHODS) for c in CATEGORIES}


def gain(method: str, other: str, metric: Metric) -> dict[str, float]:
    """`method` minus `other` in each column."""
    return {c: TABLE_I[metric][method][c] - TABLE_I[metric][other][c] for c in CATEGORIES}


def lead(method: str, metric: Metric) -> dict[str, float]:
    """`method` minus the best of the others in each column: negative where it is not first."""
    others = [other for other in METHODS if other != method]
    return {c: TABLE_I[metric][method][c] - max(TABLE_I[metric][o][c] for o in others) for c in CATEGORIES}


@dataclass(frozen=True)
class Check:
    """A sentence of the paper, what its own table says to that, and whether the two agree.

    The page book/paper_check.md gives the same verdicts under the same words; a test compares them.
    """

    claim: str
    finding: str
    verdict: Verdict


def _points(values: Iterable[float]) -> str:
    return ", ".join(f"{value:.2f}" for value in sorted(values)) + " points"


def _verdict(holds: bool, partly: bool = False) -> Verdict:
    return "holds" if holds else "partly" if partly else "not supported"


def checks() -> list[Check]:
    """The paper's claims about Table I, recomputed from Table I."""
    psnr = {method: mean(method, "psnr") for method in METHODS}
    won = {
        metric: [c for c, best in winners(metric).items() if best == "MoRE"] for metric in ("ssim", "psnr")
    }
    worst = max(max(ranks("MoRE", metric).values()) for metric in ("ssim", "psnr"))
    leads = lead("MoRE", "ssim")
    behind = {c: -value for c, value in leads.items() if value < 0}
    ahead = [value for value in leads.values() if value > 0]
    flair_t1 = gain("MoRE", "E2EVarNet", "ssim")
    deviations = {method: spread(method, "psnr") for method in METHODS}
    superior = all(len(columns) == len(CATEGORIES) for columns in won.values())
    return [
        Check(
            "highest average PSNR",
            ", ".join(f"{method} {value:.2f} dB" for method, value in psnr.items()),
            _verdict(max(psnr, key=lambda method: psnr[method]) == "MoRE"),
        ),
        Check(
            "best PSNR in six of seven; 0.02 dB short on AXT2",
            f"best in {len(won['psnr'])}; AXT2 {lead('MoRE', 'psnr')['AXT2']:+.2f} dB",
            _verdict(len(won["psnr"]) == 6 and round(lead("MoRE", "psnr")["AXT2"], 2) == -0.02),
        ),
        Check(
            "AXFLAIR and AXT1: best PSNR, slightly lower SSIM than E2EVarNet",
            f"SSIM {flair_t1['AXFLAIR']:+.2f} and {flair_t1['AXT1']:+.2f} points",
            _verdict(
                {"AXFLAIR", "AXT1"} <= set(won["psnr"]) and flair_t1["AXFLAIR"] < 0 and flair_t1["AXT1"] < 0
            ),
        ),
        Check(
            "best SSIM in four of seven",
            f"best in {len(won['ssim'])}: {', '.join(won['ssim'])}",
            _verdict(len(won["ssim"]) == 4),
        ),
        Check("first or second in SSIM everywhere", f"its worst rank is {worst}", _verdict(worst <= 2)),
        Check(
            'SSIM gaps are "relatively small" where it is second',
            f"gaps of {_points(behind.values())}; leads of {_points(ahead)}",
            _verdict(max(behind.values()) < min(ahead), partly=min(behind.values()) < min(ahead)),
        ),
        Check(
            '"competitive or superior SSIM/PSNR across seven modalities"',
            f"superior in SSIM in {len(won['ssim'])}, in PSNR in {len(won['psnr'])} of {len(CATEGORIES)}",
            _verdict(superior, partly=bool(won["ssim"] and won["psnr"])),
        ),
        Check(
            '"highly stable", "well-balanced", "can better balance reconstruction performance" than a dense baseline',
            "standard deviation of PSNR over the columns: "
            + ", ".join(f"{method} {value:.2f} dB" for method, value in deviations.items()),
            _verdict(deviations["MoRE"] < min(deviations["E2EVarNet"], deviations["PromptMR+"])),
        ),
        Check(
            "400 volumes",
            f"five brain categories of 50 and two knee categories of 75 make {sum(TRAINING_VOLUMES.values())}",
            _verdict(sum(TRAINING_VOLUMES.values()) == 400),
        ),
    ]
