"""The router in pictures: what it sees of an image, what it decides, what noise changes, what experts weigh."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import plotly.graph_objects as go
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor, nn

from morelib.companion.figures.style import COLOURS, layout
from morelib.evaluation.tables import Table, category_name
from morelib.nn.count import count_parameters
from morelib.nn.more import MoreDenoiser, denoisers_of
from morelib.nn.unrolled import Unrolled
from morelib.routing.router import Crop, router_input
from morelib.routing.selection import select_top_k

CROPS: tuple[Crop, ...] = ("centre", "pool")


def crop_figure(image: Tensor, features: Sequence[Tensor]) -> Figure:
    """Left: the part of the field of view that the centre crop keeps of each level. Right: what the router gets.

    Args:
        image: the encoder's input as a magnitude, real (y, x).
        features: E_1 .. E_L, each (1, channels, y, x), finest first.
    """
    levels = len(features)
    height, width = image.shape
    figure, axes = plt.subplot_mosaic(
        [["image", *(f"centre{i}" for i in range(levels))], ["image", *(f"pool{i}" for i in range(levels))]],
        figsize=(10, 4.6),
        width_ratios=[1.6, *[1] * levels],
        layout="constrained",
    )
    axes["image"].imshow(image.numpy(), cmap="gray", vmax=float(image.quantile(0.995)))
    for colour, level, number in zip(COLOURS, features, range(1, levels + 1), strict=False):
        share = features[-1].shape[-2] / level.shape[-2], features[-1].shape[-1] / level.shape[-1]
        box = width * (1 - share[1]) / 2 - 0.5, height * (1 - share[0]) / 2 - 0.5
        axes["image"].add_patch(
            Rectangle(
                box,
                width * share[1],
                height * share[0],
                fill=False,
                edgecolor=colour,
                linewidth=3,
                clip_on=False,
            )
        )
        for crop in CROPS:
            axis = axes[f"{crop}{number - 1}"]
            seen = router_input([level, features[-1]], crop)[0, : level.shape[1]].abs().mean(0)
            axis.imshow(seen.numpy(), cmap="viridis", interpolation="nearest")
            for spine in axis.spines.values():
                spine.set(edgecolor=colour, linewidth=3)
        axes[f"centre{number - 1}"].set_title(f"$E_{number}$: {_fraction(share[0])} × {_fraction(share[1])}")
    for name, axis in axes.items():
        axis.set(xticks=[], yticks=[])
        if name.endswith("0"):
            axis.set_ylabel("centre crop (printed)" if name.startswith("centre") else "pooled")
    axes["image"].set_title("field of view")
    plt.close(figure)  # shown once, as the value of the cell
    return figure


def _fraction(share: float) -> str:
    return "1" if share == 1 else f"1/{1 / share:.3g}"


def gates_figure(gates: Tensor, selected: Tensor, categories: Sequence[str]) -> go.Figure:
    """Gates of one slice per row; the selected experts are boxed. gates (batch, N), selected int64 (batch, k)."""
    names = [category_name(category) for category in categories]
    figure = go.Figure(
        go.Heatmap(
            z=gates.tolist(), x=[f"expert {i + 1}" for i in range(gates.shape[-1])], y=names,
            texttemplate="%{z:.3f}", colorscale="Blues", zmin=0, zmax=max(0.5, float(gates.max())),
            xgap=3, ygap=3, colorbar={"title": "gate"},
        )
    )  # fmt: skip
    for row, chosen in enumerate(selected.tolist()):
        for expert in chosen:
            figure.add_shape(
                type="rect", x0=expert - 0.47, x1=expert + 0.47, y0=row - 0.44, y1=row + 0.44,
                line={"color": COLOURS[1], "width": 3},
            )  # fmt: skip
    figure.update_yaxes(autorange="reversed", showgrid=False)
    figure.update_xaxes(side="top", showgrid=False)
    return layout(figure, height=120 + 36 * len(names)).update_layout(margin={"l": 90, "t": 40, "b": 20})


def flip_rate(
    margin: float, taus: Sequence[float], n_experts: int, draws: int = 4000, seed: int = 0
) -> list[float]:
    """How often noise replaces the leading expert (K = 1) whose gate is `margin` above all the others, per tau."""
    gates = torch.full((draws, n_experts), (1 - margin) / n_experts)
    gates[:, 0] += margin
    generator = torch.Generator().manual_seed(seed)
    return [float((select_top_k(gates, 1, tau, generator) != 0).float().mean()) for tau in taus]


def flip_curves(margins: Sequence[float], n_experts: int) -> go.Figure:
    """Flip rate over tau, one curve per margin, and the rate of pure chance. Shaded: where the paper's tau goes."""
    taus = np.geomspace(1e-3, 3, 36)
    figure = go.Figure()
    for colour, margin in zip(COLOURS, margins, strict=False):
        figure.add_scatter(
            x=taus,
            y=flip_rate(margin, taus.tolist(), n_experts),
            name=f"margin {margin:g}",
            line_color=colour,
        )
    figure.add_hline(
        1 - 1 / n_experts, line_dash="dot", line_color="#8c8c8c",
        annotation_text="chance: 1 − 1/N", annotation_position="bottom left",
    )  # fmt: skip
    figure.add_vrect(0.01, 1, fillcolor="#8c8c8c", opacity=0.12, line_width=0)
    figure.update_xaxes(type="log", title="noise scale τ", dtick=1)
    figure.update_yaxes(title="share of flipped selections", range=[0, 1])
    return layout(figure, height=400)


def parameter_counts(denoiser: MoreDenoiser) -> dict[str, int]:
    """Parameters of one cascade's denoiser: encoder, router, and one expert decoder."""
    parts: dict[str, nn.Module] = {
        "encoder": denoiser.encoder,
        "router": denoiser.router,
        "one expert": denoiser.experts[0],
    }
    return {name: count_parameters(part)[0] for name, part in parts.items()}


def parameter_bars(denoiser: MoreDenoiser) -> go.Figure:
    """Parameters that one slice uses, for K = 1 .. N, and those that lie idle. The router runs on every slice."""
    counts, n = parameter_counts(denoiser), len(denoiser.experts)
    ks = list(range(1, n + 1))
    bars = {
        "encoder": [counts["encoder"]] * n,
        "router": [counts["router"]] * n,
        "active experts": [k * counts["one expert"] for k in ks],
        "idle experts": [(n - k) * counts["one expert"] for k in ks],
    }
    figure = go.Figure()
    for colour, (name, values) in zip((*COLOURS[:3], "#dddddd"), bars.items(), strict=True):
        figure.add_bar(
            y=[f"K = {k}" for k in ks], x=values, name=name, orientation="h", marker_color=colour,
            texttemplate="%{x:,}", textposition="inside", insidetextanchor="middle",
        )  # fmt: skip
    figure.update_layout(barmode="stack", legend_traceorder="normal")
    figure.update_yaxes(autorange="reversed")
    figure.update_xaxes(title="parameters of one cascade's denoiser")
    return layout(figure, height=150 + 45 * n)


def draw_gates(model: Unrolled) -> Unrolled:
    """Give every router a random W. It starts at zero, where all gates are equal and nothing is chosen for a reason."""
    for denoiser in denoisers_of(model):
        nn.init.normal_(denoiser.router.gate.weight)
    return model


def gradient_norms(model: Unrolled) -> dict[str, float]:
    """Norm of the gradients that the last backward pass left, of all routers and of everything else."""
    squares = {"router": 0.0, "everything else": 0.0}
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            part = "router" if ".router." in name else "everything else"
            squares[part] += float(parameter.grad.double().square().sum())
    return {part: square**0.5 for part, square in squares.items()}


def scales_table(scales: Mapping[int, Tensor], caption: str) -> Table:
    """Lowest, mean and highest gate of each cascade, from `collect_scales` of the networks by seed."""
    rows = tuple(
        (f"seed {seed}, cascade {number}", *(f"{value:.3f}" for value in (row.min(), row.mean(), row.max())))
        for seed, by_cascade in scales.items()
        for number, row in enumerate(by_cascade, start=1)
    )
    return Table(("", "lowest gate", "mean", "highest gate"), rows, caption)
