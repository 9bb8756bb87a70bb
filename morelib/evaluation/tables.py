"""Results as tables, in markdown and HTML, with everything needed to read them in their headers."""

import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from morelib.data.volume import CATEGORY_NAMES, SIMULATED, SYNTHETIC
from morelib.evaluation import paper_table
from morelib.evaluation.cost import Cost
from morelib.evaluation.scores import VolumeScore
from morelib.evaluation.statistics import (
    ALL,
    MetricName,
    PairedDifference,
    average_seeds,
    categories_of,
    compare,
    holm,
    means_by_category,
    seed_spread,
)

_ORIGIN_NOTES = {
    SYNTHETIC: "Synthetic data (phantom).",
    SIMULATED: "K-space simulated from magnitude images, single coil.",
}

# One system's scores: one list per training seed (a single one for systems that are not trained).
Runs = Sequence[Sequence[VolumeScore]]


@dataclass(frozen=True)
class Table:
    """Cells are text in which `**x**` is bold and a line break may stand; notebooks show it as HTML."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str

    def markdown(self) -> str:
        """A pipe table, the caption below."""
        lines = [self.header, ("---",) * len(self.header), *self.rows]
        text = "\n".join("| " + " | ".join(cells).replace("\n", "<br>") + " |" for cells in lines)
        return f"{text}\n\n{self.caption}\n"

    def html(self) -> str:
        """A `<table>` with a `<caption>`; text is escaped."""
        head = "".join(f"<th>{_html(cell)}</th>" for cell in self.header)
        body = "".join(
            f"<tr><th>{_html(row[0])}</th>" + "".join(f"<td>{_html(cell)}</td>" for cell in row[1:]) + "</tr>"
            for row in self.rows
        )
        caption = f"<caption>{_html(self.caption)}</caption>"
        return f'<table class="more-results">{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'

    _repr_html_ = html


def results_table(systems: Mapping[str, Runs], caption: str = "") -> Table:
    """SSIM (%) / PSNR (dB) of each system (rows) in each category (columns) and their mean, best in bold.

    Every system must have scored the same volumes; a cell is the mean over volumes of the mean over seeds. The
    caption ends with a word on data that were not measured.
    """
    means = {name: means_by_category(average_seeds(runs)) for name, runs in systems.items()}
    reference = next(iter(means.values()))
    header = [
        "",
        *(f"{category_name(c)}\n{_count(m.n_volumes, m.n_patients)}" for c, m in reference.items()),
        "seeds",
    ]
    values = {
        name: {column: (100 * mean.ssim, mean.psnr) for column, mean in row.items()}
        for name, row in means.items()
    }
    rows = _rows(values)
    seeded = [(*row, str(len(runs))) for row, runs in zip(rows, systems.values(), strict=True)]
    caption = caption or "SSIM (%) / PSNR (dB), per volume; best of a column in bold."
    return Table(tuple(header), tuple(seeded), caption + _origin_note(systems))


def paper_results_table() -> Table:
    """The paper's Table I with the mean of its seven columns, in the form of `results_table`."""
    values = {}
    for method in paper_table.METHODS:
        ssim, psnr = paper_table.TABLE_I["ssim"][method], paper_table.TABLE_I["psnr"][method]
        values[method] = {column: (ssim[column], psnr[column]) for column in ssim}
        values[method][ALL] = (paper_table.mean(method, "ssim"), paper_table.mean(method, "psnr"))
    columns = [category_name(column) for column in values[paper_table.METHODS[0]]]
    caption = (
        "The paper's Table I: SSIM (%) / PSNR (dB) on fastMRI at 8x, best of a column in bold. The paper gives no"
        " number of volumes or patients, no seeds and no errors; the last column is computed here."
    )
    return Table(("", *columns), tuple(_rows(values)), caption)


def comparison_table(differences: Sequence[PairedDifference], a: str, b: str) -> Table:
    """One row per category: a minus b with its 95 % interval and p-values."""
    metric = differences[0].metric
    scale, unit = {"ssim": (100.0, "points"), "psnr": (1.0, "dB"), "nmse": (1.0, "")}[metric]
    header = ("", f"difference {unit}".strip(), "95 % interval", "p", "p (Holm)", "volumes (patients)")
    rows = []
    for d in differences:
        counts = f"{d.n_volumes} ({d.n_patients})"
        name = category_name(d.category)
        rows.append((name, f"{scale * d.mean:+.2f}", _interval(d, scale), _p(d.p), _p(d.p_holm), counts))
    caption = (
        f"{metric.upper()} of {a} minus {b} on the same volumes, seeds averaged. Interval: bootstrap over patients;"
        " p: Wilcoxon signed-rank over patients, corrected by Holm for the rows of this table;"
        " with n patients it is never below 2 / 2^n."
    )
    return Table(header, tuple(rows), caption)


def against_table(systems: Mapping[str, Runs], reference: str, samples: int = 2000) -> Table:
    """One row per other system: the mean of the categories minus that of `reference`, PSNR and SSIM.

    Intervals and tests are those of `compare`; p-values are corrected by Holm for the rows.
    """
    others = [name for name in systems if name != reference]
    base = average_seeds(systems[reference])
    columns: list[list[str]] = []
    scales: tuple[tuple[MetricName, float], ...] = (("psnr", 1.0), ("ssim", 100.0))
    for metric, scale in scales:
        means = [compare(average_seeds(systems[name]), base, metric, samples)[-1] for name in others]
        corrected = holm([mean.p for mean in means])
        columns.append([f"{scale * mean.mean:+.2f}" for mean in means])
        columns.append([_interval(mean, scale) for mean in means])
        columns.append([_p(p) for p in corrected])
    rows = tuple((name, *cells) for name, cells in zip(others, zip(*columns, strict=True), strict=True))
    scores = systems[reference][0]
    counts = f"{len(scores)} volumes of {len({score.patient for score in scores})} patients"
    caption = (
        f"Minus {reference}, mean of the categories, {counts}. Intervals: 95 %, bootstrap over patients;"
        " p: Wilcoxon over patients, corrected by Holm for the rows."
    )
    header = ("", "PSNR (dB)", "interval", "p (Holm)", "SSIM (points)", "interval", "p (Holm)")
    return Table(header, rows, caption + _origin_note(systems))


def seed_table(systems: Mapping[str, Runs]) -> Table:
    """Mean of the categories and its standard deviation over training seeds, for systems with at least one run."""
    rows = []
    for name, runs in systems.items():
        cells = []
        for scale, (mean, deviation) in ((100, seed_spread(runs, "ssim")), (1, seed_spread(runs, "psnr"))):
            cells.append(f"{scale * mean:.2f}" + ("" if deviation is None else f" ± {scale * deviation:.2f}"))
        rows.append((name, *cells, str(len(runs))))
    caption = "Mean of the categories; ± is the standard deviation over training seeds, not over patients."
    return Table(("", "SSIM (%)", "PSNR (dB)", "seeds"), tuple(rows), caption + _origin_note(systems))


def cost_table(costs: Mapping[str, Cost], trained: Mapping[str, str], reference: str, caption: str) -> Table:
    """One row per network: size, work, time in multiples of that of `reference`, memory, how long it was trained."""
    header = (
        "",
        "parameters",
        "of these run",
        "GFLOP",
        f"time,\n{reference} = 1",
        "memory,\nforward",
        "memory,\ntraining",
        "trained",
    )
    rows = tuple(
        (
            name,
            f"{cost.parameters:,}",
            f"{cost.active:,}",
            f"{cost.operations / 1e9:.2f}",
            f"{cost.seconds / costs[reference].seconds:.2f}",
            f"{cost.memory / 1e6:.1f} MB",
            f"{cost.training_memory / 1e6:.1f} MB",
            trained[name],
        )
        for name, cost in costs.items()
    )
    return Table(header, rows, caption)


def beats(systems: Mapping[str, Runs], system: str, reference: str) -> dict[str, bool]:
    """Per category: has `system` a higher mean SSIM and a higher mean PSNR than `reference`?"""
    ours, theirs = (means_by_category(average_seeds(systems[name])) for name in (system, reference))
    categories = categories_of(systems[system][0])
    return {c: ours[c].ssim > theirs[c].ssim and ours[c].psnr > theirs[c].psnr for c in categories}


def category_name(category: str) -> str:
    """The name the paper prints for an acquisition."""
    return CATEGORY_NAMES.get(category, category)


def _rows(values: Mapping[str, Mapping[str, tuple[float, float]]]) -> list[tuple[str, ...]]:
    """Rows of "SSIM / PSNR" cells; whatever prints as the best of its column is bold."""
    printed = {
        name: {column: [f"{value:.2f}" for value in pair] for column, pair in row.items()}
        for name, row in values.items()
    }
    rows = []
    for name, row in printed.items():
        cells = []
        for column, pair in row.items():
            best = [max((other[column][i] for other in printed.values()), key=float) for i in (0, 1)]
            cells.append(" / ".join(f"**{v}**" if v == top else v for v, top in zip(pair, best, strict=True)))
        rows.append((name, *cells))
    return rows


def _origin_note(systems: Mapping[str, Runs]) -> str:
    origins = {score.origin for runs in systems.values() for scores in runs for score in scores}
    return "".join(f" {_ORIGIN_NOTES[origin]}" for origin in sorted(origins & set(_ORIGIN_NOTES)))


def _count(volumes: int, patients: int) -> str:
    return f"{volumes} vol.,\n{patients} pat."


def _interval(difference: PairedDifference, scale: float) -> str:
    if difference.low is None or difference.high is None:
        return "n < 2"
    return f"{scale * difference.low:+.2f} to {scale * difference.high:+.2f}"


def _p(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _html(text: str) -> str:
    escaped = html.escape(text).replace("\n", "<br>")
    return re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", escaped)
