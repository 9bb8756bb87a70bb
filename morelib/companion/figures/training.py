"""Curves of training runs, drawn from their log.jsonl."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from morelib.companion.figures.style import COLOURS, SYSTEM_COLOURS, layout, system_name
from morelib.evaluation import Table

Log = Sequence[Mapping[str, Any]]


def read_log(run_folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's log.jsonl, one per epoch."""
    return [json.loads(line) for line in (run_folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]


def summary(log: Log) -> dict[str, Any]:
    """What a run amounts to, JSON-ready: epochs, steps, best epoch and its loss, seconds, experts in use at the end."""
    best = min(log, key=lambda line: line["val_ssim_loss"])
    return {
        "epochs": len(log),
        "steps": log[-1]["step"],
        "best_epoch": best["epoch"] + 1,
        "val_ssim_loss": best["val_ssim_loss"],
        "seconds": sum(line["seconds"] for line in log),
        "effective_by_gate": log[-1].get("effective_by_gate"),
    }


def trained_for(summaries: Sequence[Mapping[str, Any]]) -> str:
    """How long the runs of one system took, in epochs and steps; the range where seeds stopped at different times."""
    return ",\n".join(_range([one[unit] for one in summaries], unit) for unit in ("epochs", "steps"))


def _range(numbers: Sequence[int], unit: str) -> str:
    low, high = min(numbers), max(numbers)
    return f"{low} {unit}" if low == high else f"{low} to {high} {unit}"


def training_table(
    runs: Mapping[str, Sequence[Mapping[str, Any]]], seeds: Mapping[str, Sequence[int]], zero_filled: float
) -> Table:
    """One row per run, from the `summary` of each system's runs and their seeds; zero-filled: its 1 - SSIM."""
    header = ("run", "epochs", "steps", "best epoch", "validation SSIM", "time")
    rows = tuple(
        (
            f"{system_name(system)}, seed {seed}",
            *(str(run[key]) for key in ("epochs", "steps", "best_epoch")),
            f"{100 * (1 - run['val_ssim_loss']):.2f} %",
            f"{run['seconds']:.0f} s",
        )
        for system, summaries in runs.items()
        for seed, run in zip(seeds[system], summaries, strict=True)
    )
    caption = (
        "SSIM is the mean over validation slices that early stopping watches;"
        f" that of the zero-filled image is {100 * (1 - zero_filled):.2f} %."
    )
    return Table(header, rows, caption)


def loss_curves(logs: Mapping[str, Sequence[Log]], zero_filled: float, training: bool = True) -> go.Figure:
    """Validation 1 - SSIM over epochs of each system's runs, and that of training; zero-filled as a dashed line."""
    figure = go.Figure()
    for system, runs in logs.items():
        for number, log in enumerate(runs):
            epochs = [line["epoch"] + 1 for line in log]
            for key, dash, name in (
                ("train_ssim_loss", "dot", "training"),
                ("val_ssim_loss", "solid", "validation"),
            )[not training :]:
                figure.add_scatter(
                    x=epochs,
                    y=[line[key] for line in log],
                    mode="lines+markers",
                    line={"color": SYSTEM_COLOURS.get(system, "#555"), "dash": dash},
                    name=f"{system_name(system)}, {name}" if training else system_name(system),
                    legendgroup=f"{system}-{key}",
                    showlegend=number == 0,
                )
    figure.add_hline(
        y=zero_filled, line={"dash": "dash", "color": "#555"}, annotation_text="zero-filled, validation"
    )
    longest = max(len(log) for runs in logs.values() for log in runs)
    figure.update_xaxes(title="epoch", dtick=1 if longest < 15 else None)
    figure.update_yaxes(title="1 - SSIM", rangemode="tozero")
    return layout(figure, height=400)


def router_curves(log: Log) -> go.Figure:
    """Left: the three unweighted terms of Eq. 7 over epochs. Right: the annealed tau and alpha_1, on a log axis."""
    figure = make_subplots(
        1, 2, subplot_titles=("terms of Eq. 7, mean over cascades", "annealed coefficients")
    )
    epochs = [line["epoch"] + 1 for line in log]
    terms = {"aux": "auxiliary", "sparse": "sparsity", "z": "z-loss"}
    for column, names in enumerate((terms, {"tau": "tau", "alpha_aux": "alpha_1"}), start=1):
        for key, name in names.items():
            figure.add_scatter(
                x=epochs, y=[line[key] for line in log], mode="lines+markers", name=name, row=1, col=column
            )
    figure.update_xaxes(title="epoch")
    figure.update_yaxes(type="log", col=2, row=1)
    layout(figure, height=360)
    # The subplot titles stand where the legend would.
    return figure.update_layout(legend={"y": -0.3, "yanchor": "top"}, margin={"b": 90})


def usage_curves(log: Log) -> go.Figure:
    """Effective experts per cascade over epochs: by counted selections (noise included) and by mean gate."""
    figure = make_subplots(
        1, 2, subplot_titles=("by selections, noise included", "by mean gate"), shared_yaxes=True
    )
    epochs = [line["epoch"] + 1 for line in log]
    n_experts = len(log[0]["load"][0])
    for column, key in enumerate(("effective_experts", "effective_by_gate"), start=1):
        for cascade in range(len(log[0][key])):
            figure.add_scatter(
                x=epochs,
                y=[line[key][cascade] for line in log],
                mode="lines+markers",
                line={"color": COLOURS[cascade % len(COLOURS)]},
                name=f"cascade {cascade + 1}",
                legendgroup=str(cascade),
                showlegend=column == 1,
                row=1,
                col=column,
            )
    figure.update_xaxes(title="epoch")
    figure.update_yaxes(range=[0.8, n_experts + 0.2])
    figure.update_yaxes(title="effective experts", row=1, col=1)
    layout(figure, height=360)
    return figure.update_layout(legend={"y": -0.3, "yanchor": "top"}, margin={"b": 90})
