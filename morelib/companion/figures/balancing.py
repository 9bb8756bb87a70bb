"""Load balancing in pictures: the router losses, their annealing, and what they make of a router."""

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go
import torch
from plotly.subplots import make_subplots

from morelib.companion.figures.style import COLOURS, layout
from morelib.companion.router_only import RouterRun, RouterState
from morelib.evaluation.tables import Table
from morelib.routing.losses import RouterLosses, anneal, router_losses
from morelib.training import TrainConfig

# Arm to its runs, one per seed.
Runs = Mapping[str, Sequence[RouterRun]]


def two_expert_losses(points: int = 121) -> tuple[list[float], list[RouterLosses]]:
    """Eq. 7 for a batch of slices that all have the gates (g, 1 - g) and choose the larger, K = 1, for g in (0, 1)."""
    gates = torch.linspace(0.005, 0.995, points, dtype=torch.float64)
    logits = torch.stack([gates.logit() / 2, -gates.logit() / 2], -1)
    losses = [router_losses(z[None], z[None].softmax(-1), z[None].argmax(-1, keepdim=True)) for z in logits]
    return gates.tolist(), losses


def loss_curves(config: TrainConfig) -> go.Figure:
    """Left: each term of Eq. 7 over a two-expert gate. Right: their weighted sum as alpha_1 is annealed."""
    gates, losses = two_expert_losses()
    figure = make_subplots(
        1, 2, subplot_titles=("each term, unweighted", "weighted sum, least value 0"), horizontal_spacing=0.12
    )
    for colour, (name, field) in zip(
        COLOURS, {"auxiliary": "aux", "sparsity": "sparse", "z-loss": "z"}.items(), strict=False
    ):
        values = [float(getattr(loss, field)) for loss in losses]
        figure.add_scatter(x=gates, y=values, name=name, line_color=colour, row=1, col=1)
    for colour, progress in zip(COLOURS[3:], (0.0, 0.5, 1.0), strict=False):
        alpha = anneal(config.alpha_aux, progress)
        total = torch.stack([loss.weighted(alpha, config.alpha_sparse, config.alpha_z) for loss in losses])
        figure.add_scatter(
            x=gates,
            y=(total - total.min()).tolist(),
            name=f"α₁ = {alpha:.3g}",
            line_color=colour,
            row=1,
            col=2,
        )
    figure.update_xaxes(title_text="gate of the first expert")
    figure.update_yaxes(range=[0, 2], row=1, col=1)
    figure.update_yaxes(type="log", range=[-5, -1], exponentformat="power", dtick=1, row=1, col=2)
    return layout(figure, height=400).update_layout(legend_y=1.12)


def annealing_curves(config: TrainConfig) -> go.Figure:
    """tau and alpha_1 over the planned steps, and the constant alpha_2 and alpha_3, on a log axis."""
    progress = [step / 100 for step in range(101)]
    lines = {
        "τ": [anneal(config.tau, p) for p in progress],
        "α₁ (auxiliary)": [anneal(config.alpha_aux, p) for p in progress],
        "α₂ (sparsity)": [config.alpha_sparse] * len(progress),
        "α₃ (z)": [config.alpha_z] * len(progress),
    }
    figure = go.Figure()
    for colour, dash, (name, values) in zip(
        COLOURS, ("solid", "solid", "dash", "dot"), lines.items(), strict=False
    ):
        figure.add_scatter(x=progress, y=values, name=name, line={"color": colour, "dash": dash, "width": 3})
    figure.update_xaxes(title="progress of the training", tickformat=".0%")
    figure.update_yaxes(type="log", dtick=1, exponentformat="power")
    return layout(figure, height=380)


def collapse_curves(runs: Runs, n_experts: int) -> go.Figure:
    """Effective experts over steps, one panel per arm, one line per seed."""
    columns = 4
    figure = make_subplots(
        -(-len(runs) // columns), columns, subplot_titles=list(runs), shared_xaxes="all", shared_yaxes="all",
        horizontal_spacing=0.03, vertical_spacing=0.16,
    )  # fmt: skip
    for number, seeds in enumerate(runs.values()):
        where = {"row": number // columns + 1, "col": number % columns + 1}
        for seed, run in enumerate(seeds):
            figure.add_scatter(
                x=run.steps, y=[state.effective for state in run.history], name=f"seed {seed}", mode="lines+markers",
                line_color=COLOURS[seed], marker_size=5, legendgroup=str(seed), showlegend=number == 0, **where,
            )  # fmt: skip
        figure.update_xaxes(
            title_text="step" if number >= len(runs) - columns else "", showticklabels=True, **where
        )
    figure.update_yaxes(range=[0.8, n_experts + 0.2], dtick=1)
    figure.update_yaxes(title_text="effective experts", col=1)
    figure.update_annotations(font_size=13)
    return layout(figure, height=480).update_layout(legend_y=1.08)


def load_bars(runs: Runs) -> go.Figure:
    """Final load of each run as a stacked bar, the busiest expert first: which number it carries means nothing."""
    rows = [(f"{arm}, seed {seed}", sorted(run.final.load, reverse=True))
            for arm, seeds in runs.items() for seed, run in enumerate(seeds)]  # fmt: skip
    names = ("busiest expert", "second", "third", *(f"{i}th" for i in range(4, len(rows[0][1]) + 1)))
    figure = go.Figure()
    for rank, name in enumerate(names[: len(rows[0][1])]):
        figure.add_bar(
            y=[row for row, _ in rows], x=[load[rank] for _, load in rows], name=name, orientation="h",
            marker_color=COLOURS[rank % len(COLOURS)],
        )  # fmt: skip
    figure.update_layout(barmode="stack", bargap=0.15, legend_traceorder="normal")
    figure.update_yaxes(autorange="reversed", dtick=1)
    figure.update_xaxes(title="share of the slices", tickformat=".0%", range=[0, 1])
    return layout(figure, height=110 + 22 * len(rows))


def decision_plane(runs: Runs, n_experts: int) -> go.Figure:
    """Every run as a point: experts in use against what the choice says about the slice."""
    figure = go.Figure()
    for colour, (arm, seeds) in zip(COLOURS, runs.items(), strict=False):
        figure.add_scatter(
            x=[run.final.effective for run in seeds], y=[run.final.information for run in seeds], mode="markers",
            name=arm, marker={"size": 12, "color": colour, "opacity": 0.75, "line": {"color": "white", "width": 1}},
            text=[f"seed {seed}" for seed in range(len(seeds))],
        )  # fmt: skip
    figure.update_xaxes(title="effective experts", range=[0.8, n_experts + 0.2], dtick=1)
    figure.update_yaxes(title="information between slice and expert, nats")
    top = max(0.1, *(run.final.information for seeds in runs.values() for run in seeds))
    figure.update_yaxes(range=[-0.05 * top, 1.1 * top])
    return layout(figure, height=460).update_layout(
        legend={"orientation": "v", "x": 1.02, "y": 1, "yanchor": "top"}
    )


def outcome_table(states: Mapping[str, Sequence[RouterState]], caption: str) -> Table:
    """Per arm or control: mean over seeds, and least to largest where they differ."""
    fields = {"effective": 2, "entropy": 2, "information": 3, "agreement": 2}
    rows = tuple(
        (
            name,
            *(
                _spread([getattr(state, field) for state in seeds], digits)
                for field, digits in fields.items()
            ),
        )
        for name, seeds in states.items()
    )
    return Table(
        ("", "effective experts", "sample entropy", "information", "AMI with category"), rows, caption
    )


def _spread(values: Sequence[float], digits: int) -> str:
    # Adding zero turns the -0.0 of a rounded small negative into 0.0.
    mean, low, high = (round(v, digits) + 0.0 for v in (sum(values) / len(values), min(values), max(values)))
    return f"{mean:.{digits}f}" + (f"\n({low:.{digits}f} to {high:.{digits}f})" if low < high else "")
