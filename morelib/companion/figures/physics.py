"""Figures of the chapter on physics: contrasts, coils, k-space, masks, aliasing, least squares without a prior."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import plotly.graph_objects as go
import torch
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray
from plotly.subplots import make_subplots
from torch import Tensor

from morelib.companion.figures.images import Panel, montage
from morelib.companion.figures.style import COLOURS, layout
from morelib.evaluation.tables import category_name
from morelib.physics.fourier import ifft1c
from morelib.physics.masks import Mask

# What makes each contrast recognisable.
CONTRASTS = {
    "AXFLAIR": "T2-weighted, fluid nulled",
    "AXT1POST": "T1-weighted, after contrast agent",
    "AXT2": "T2-weighted: fluid bright",
    "AXT1": "T1-weighted: fluid dark",
    "AXT1PRE": "T1-weighted, before contrast agent",
    "CORPDFS_FBK": "proton density, fat suppressed",
    "CORPD_FBK": "proton density: fat bright",
}


def contrast_montage(images: Mapping[str, ArrayLike]) -> Figure:
    """One real image (y, x) per acquisition, each on its own grey scale; sizes may differ."""
    panels = [
        Panel(image, f"{category_name(acquisition)}\n{CONTRASTS.get(acquisition, '')}")
        for acquisition, image in images.items()
    ]
    return montage(panels)


def phase_panel(image: Tensor, title: str = "") -> Panel:
    """The phase of a complex image (y, x), on a cyclic colour map: -pi and pi look alike."""
    return Panel((image.angle() % (2 * np.pi)).numpy(), title, vmax=2 * np.pi, cmap="twilight")


def log_magnitude(kspace: Tensor, decades: float = 4.0) -> NDArray[np.float32]:
    """Magnitude of k-space (y, x) on a logarithmic scale: 1 at the peak, 0 at 10^-decades of it and below."""
    magnitude = kspace.abs().numpy()
    relative = magnitude / (magnitude.max() or 1.0)
    return np.asarray(np.clip(1 + np.log10(np.maximum(relative, 10**-decades)) / decades, 0, 1))


def mask_strips(masks: Sequence[Mask]) -> Figure:
    """Each mask as a strip: sampled columns blue, those of the centre (ACS) orange; net acceleration beside it."""
    figure, axes = plt.subplots(len(masks), 1, figsize=(10, 0.52 * len(masks) + 0.5), squeeze=False)
    colours = ListedColormap(["#f1f1f1", COLOURS[0], COLOURS[1]])
    for axis, mask in zip(axes[:, 0], masks, strict=True):
        width = len(mask.mask)
        code = mask.mask.int().numpy().copy()
        first = (width - mask.n_acs + 1) // 2
        code[first : first + mask.n_acs] *= 2
        axis.imshow(code[None], cmap=colours, vmin=0, vmax=2, aspect="auto", interpolation="nearest")
        axis.set_xticks([])
        axis.set_yticks([])
        axis.spines[:].set_visible(False)
        axis.set_ylabel(mask.kind, rotation=0, ha="right", va="center", fontsize=9, family="monospace")
        axis.text(1.01, 0.5, f"{mask.acceleration:.2f}×", transform=axis.transAxes, va="center", fontsize=10)
    axes[-1, 0].set_xlabel("phase-encode column x", fontsize=9)
    figure.tight_layout(pad=0.4, h_pad=0.5)
    plt.close(figure)
    return figure


def acceleration_bars(
    settings: Mapping[str, Mapping[str, Sequence[float]]], nominal: Sequence[float]
) -> go.Figure:
    """Nominal against net acceleration.

    Args:
        settings: title of each panel to {kind: net acceleration of each draw}. The whisker spans all draws.
        nominal: the acceleration asked for in each panel.
    """
    figure = make_subplots(1, len(settings), subplot_titles=list(settings), horizontal_spacing=0.08)
    for column, (draws, asked) in enumerate(zip(settings.values(), nominal, strict=True), start=1):
        # The mean number of sampled columns, not the mean of the ratios, is what a scan saves: harmonic mean.
        means = [1 / np.mean(1 / np.asarray(values)) for values in draws.values()]
        above = [max(values) - mean for values, mean in zip(draws.values(), means, strict=True)]
        below = [mean - min(values) for values, mean in zip(draws.values(), means, strict=True)]
        figure.add_trace(
            go.Bar(
                x=list(draws), y=means, name="net", marker_color=COLOURS[0], showlegend=column == 1,
                error_y={"type": "data", "array": above, "arrayminus": below, "color": "#444", "thickness": 1.2},
                hovertemplate="%{x}: %{y:.2f}×<extra></extra>",
            ),
            row=1, col=column,
        )  # fmt: skip
        figure.add_hline(y=asked, line={"color": COLOURS[1], "dash": "dash", "width": 2}, row=1, col=column)
    figure.add_trace(
        go.Scatter(
            x=[None], y=[None], mode="lines", name="nominal",
            line={"color": COLOURS[1], "dash": "dash", "width": 2},
        )
    )  # fmt: skip
    figure.update_xaxes(tickangle=-35)
    figure.update_yaxes(rangemode="tozero")
    figure.update_yaxes(title_text="acceleration", row=1, col=1)
    return layout(figure, height=430).update_layout(legend_y=1.12)


def point_spread(masks: Sequence[Mask]) -> go.Figure:
    """What one bright pixel becomes along x when only the columns of each mask are kept (peak scaled to 1)."""
    figure = go.Figure()
    for mask in masks:
        spread = ifft1c(mask.mask.to(torch.complex64), -1).abs()
        offset = np.arange(len(spread)) - len(spread) // 2
        label = f"{mask.kind}, {mask.acceleration:.1f}×"
        figure.add_trace(go.Scatter(x=offset, y=(spread / spread.max()).numpy(), name=label, mode="lines"))
    figure.update_xaxes(title_text="distance from the pixel along x")
    figure.update_yaxes(title_text="relative magnitude", range=[0, 1.03])
    return layout(figure, height=340)


def convergence(residual: Sequence[float], error: Sequence[float]) -> go.Figure:
    """Data residual and image error over the iterations of least squares; the smallest error is marked."""
    best = int(np.argmin(error))
    titles = ("residual ‖Ax − y‖ / ‖y‖", "error against the full scan")
    figure = make_subplots(1, 2, subplot_titles=titles, horizontal_spacing=0.1)
    for column, values in enumerate((residual, error), start=1):
        figure.add_scatter(y=values, mode="lines", line={"color": COLOURS[column - 1]}, row=1, col=column)
    figure.add_scatter(
        x=[best], y=[error[best]], mode="markers+text", text=[f"iteration {best}"], textposition="top center",
        marker={"color": COLOURS[1], "size": 9}, row=1, col=2,
    )  # fmt: skip
    figure.update_xaxes(title_text="iteration")
    return layout(figure, height=340).update_layout(showlegend=False)
