"""What happens inside an unrolled network: its images cascade by cascade, features, parameters, step size."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import plotly.graph_objects as go
import torch
from matplotlib.figure import Figure
from plotly.subplots import make_subplots
from torch import Tensor, nn

from morelib.companion.figures.images import Panel, image_grid
from morelib.companion.figures.style import COLOURS, layout
from morelib.data import Batch
from morelib.evaluation.metrics import psnr
from morelib.evaluation.tables import Table
from morelib.nn import Unrolled
from morelib.nn.count import count_parameters
from morelib.nn.hooks import hooked
from morelib.physics.fourier import centre_crop


class Journey(NamedTuple):
    """images: x_0 .. x_T, magnitudes (batch, y, x). corrections: D(x_0) .. D(x_{T-1}), complex (batch, y, x)."""

    images: list[Tensor]
    corrections: list[Tensor]


@torch.no_grad()
def follow(model: Unrolled, batch: Batch, sens_maps: Tensor | None = None) -> Journey:
    """Run `model` on a batch and keep what enters and leaves each denoiser; the last image is the network's output."""
    images: list[Tensor] = []
    corrections: list[Tensor] = []

    def keep(_: nn.Module, inputs: tuple[Tensor, ...], output: tuple[Tensor, Any]) -> None:
        images.append(inputs[0].abs())
        corrections.append(output[0])

    with hooked((cascade.denoiser, keep) for cascade in model.cascades):
        output = model(batch.kspace, batch.mask, batch.n_acs, sens_maps)
    return Journey([*images, output.image], corrections)


def cascade_grid(journeys: Mapping[str, Sequence[Tensor]], target: Tensor, shown: int = 5) -> Figure:
    """One row per network: evenly spaced stops of its journey, PSNR (dB) inside, and the target last.

    Args:
        journeys: row title to images x_0 .. x_T, (1, y, x).
        target: (1, h, w), to whose size all images are cropped.
        shown: at most so many stops.
    """
    size, vmax = (target.shape[-2], target.shape[-1]), float(target.max())
    rows = []
    for images in journeys.values():
        stops = np.unique(np.linspace(0, len(images) - 1, min(shown, len(images))).round().astype(int))
        cropped = {int(stop): centre_crop(images[stop], size).numpy() for stop in stops}
        rows.append(
            [
                Panel(image[0], _stop_name(stop), vmax, note=f"{psnr(target.numpy(), image):.1f} dB")
                for stop, image in cropped.items()
            ]
            + [Panel(target[0].numpy(), "target", vmax)]
        )
    return image_grid(rows, list(journeys))


def _stop_name(stop: int) -> str:
    return "zero-filled" if stop == 0 else f"after cascade {stop}"


def cascade_curves(journeys: Mapping[str, Journey], target: Tensor) -> go.Figure:
    """Left: PSNR of every image. Right: size of D(x) relative to x (solid), and without D's mean (dotted)."""
    figure = make_subplots(
        1, 2, subplot_titles=("PSNR of the image, dB", "‖D(x)‖ / ‖x‖"), horizontal_spacing=0.1
    )
    size = (target.shape[-2], target.shape[-1])
    for colour, (name, journey) in zip(COLOURS, journeys.items(), strict=False):
        scores = [psnr(target.numpy(), centre_crop(image, size).numpy()) for image in journey.images]
        numbers = list(range(1, len(journey.corrections) + 1))
        varying = [correction - correction.mean((-2, -1), keepdim=True) for correction in journey.corrections]
        line = {"mode": "lines+markers", "legendgroup": name, "marker_color": colour}
        figure.add_scatter(y=scores, **line, name=name, row=1, col=1)
        for parts, dash, label in (
            (journey.corrections, "solid", "all of D"), (varying, "dot", "D without its mean")
        ):  # fmt: skip
            sizes = [
                float(torch.linalg.norm(part) / torch.linalg.norm(image))
                for part, image in zip(parts, journey.images, strict=False)
            ]
            figure.add_scatter(
                x=numbers, y=sizes, **line, line_dash=dash, name=f"{name}: {label}", showlegend=False, row=1, col=2
            )  # fmt: skip
    step = 1 if len(numbers) < 8 else 2
    figure.update_xaxes(title_text="cascades passed", dtick=step, row=1, col=1)
    figure.update_xaxes(title_text="cascade", dtick=step, row=1, col=2)
    figure.update_yaxes(rangemode="tozero", row=1, col=2)
    return layout(figure, height=380).update_layout(legend_y=1.12)


def feature_grid(features: Sequence[Tensor]) -> Figure:
    """Encoder features E_1 .. E_L, each (1, channels, y, x): mean magnitude over channels, the central square."""
    return image_grid(
        [
            [
                Panel(
                    centre_crop(level[0].abs().mean(0), (min(level.shape[-2:]),) * 2).numpy(),
                    f"$E_{number}$: {level.shape[1]} channels, {level.shape[2]}×{level.shape[3]}",
                    cmap="viridis",
                )
                for number, level in enumerate(features, start=1)
            ]
        ]
    )


def parameter_table(models: Mapping[str, Unrolled]) -> Table:
    """Where the parameters of each network are."""
    rows = []
    for name, model in models.items():
        parts = model.cascades[0], model.sensitivity, model
        cells = (len(model.cascades), *(count_parameters(part)[0] for part in parts))
        rows.append((name, *(f"{cell:,}" for cell in cells)))
    header = ("network", "cascades", "parameters per cascade", "sensitivity network", "all parameters")
    return Table(header, tuple(rows), "Each cascade counts one denoiser and its step size.")


def step_size_curves(panels: Mapping[str, Mapping[float, Sequence[float]]]) -> go.Figure:
    """Error over steps for several step sizes.

    Args:
        panels: title to {eta: relative error before the first step, after one, after two, ...}.
    """
    figure = make_subplots(1, len(panels), subplot_titles=list(panels), horizontal_spacing=0.1)
    for column, curves in enumerate(panels.values(), start=1):
        for colour, (eta, errors) in zip(COLOURS, curves.items(), strict=False):
            figure.add_scatter(
                y=np.maximum(errors, 1e-8), mode="lines+markers", name=f"η = {eta:g}", legendgroup=str(eta),
                line={"color": colour}, showlegend=column == 1, row=1, col=column,
            )  # fmt: skip
    figure.update_xaxes(title_text="steps")
    figure.update_yaxes(type="log", exponentformat="power")
    figure.update_yaxes(title_text="relative error", row=1, col=1)
    return layout(figure, height=400).update_layout(legend_y=1.12)
