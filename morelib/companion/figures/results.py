"""Table I as a picture, and reconstructions with their error maps."""

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
import torch
from matplotlib.figure import Figure

from morelib.companion.figures.images import Panel, image_grid
from morelib.companion.figures.style import CATEGORY_COLOURS, SYSTEM_NAMES, layout
from morelib.data.dataset import SliceDataset
from morelib.data.volume import CATEGORY_NAMES
from morelib.evaluation import VolumeScore, reconstruct_volume
from morelib.evaluation.evaluate import Model
from morelib.evaluation.metrics import psnr, ssim
from morelib.evaluation.tables import category_name


def gain_by_volume(a: Sequence[VolumeScore], b: Sequence[VolumeScore], names: tuple[str, str]) -> go.Figure:
    """PSNR of a minus PSNR of b, one dot per test volume, by category; the same volumes in both."""
    reference = {score.volume: score.psnr for score in b}
    figure = go.Figure()
    for category, colour in CATEGORY_COLOURS.items():
        group = [score for score in a if score.acquisition == category]
        figure.add_scatter(
            x=[CATEGORY_NAMES[category]] * len(group),
            y=[score.psnr - reference[score.volume] for score in group],
            text=[score.volume for score in group],
            mode="markers",
            marker={"color": colour, "size": 9, "opacity": 0.8},
            hovertemplate="%{text}<br>%{y:+.2f} dB<extra></extra>",
            showlegend=False,
        )
    figure.add_hline(y=0, line={"color": "#555", "width": 1})
    figure.update_yaxes(title=f"PSNR of {names[0]} minus {names[1]} (dB)")
    return layout(figure, height=340)


def reconstruction_figure(
    models: Mapping[str, Model],
    dataset: SliceDataset,
    acquisitions: Sequence[str],
    error_scale: float = 4.0,
    device: torch.device | str = "cpu",
) -> Figure:
    """The middle slice of the first volume of each acquisition: target and every model, error maps below.

    Errors are absolute and drawn `error_scale` times brighter than the images. Above each error map: PSNR and SSIM of
    this slice, with its volume's data range. Acquisitions of which `dataset` has no volume are left out.
    """
    first = {volume.acquisition: number for number, volume in reversed(list(enumerate(dataset.volumes)))}
    rows, row_titles = [], []
    for acquisition in (name for name in acquisitions if name in first):
        number, info = first[acquisition], dataset.volumes[first[acquisition]]
        item = dataset[dataset.items_of(number)[info.n_slices // 2]]
        grey = float(np.percentile(item.target, 99.5))
        images: list[Panel | None] = [Panel(item.target, "target", grey)]
        errors: list[Panel | None] = [None]
        for name, model in models.items():
            prediction, target = reconstruct_volume(model, [item], device)
            score = f"{psnr(target, prediction, item.max_value):.2f} dB, {ssim(target, prediction, item.max_value):.3f}"
            images.append(Panel(prediction[0], SYSTEM_NAMES[name], grey))
            errors.append(Panel(np.abs(prediction - target)[0], score, grey / error_scale, "inferno"))
        rows += [images, errors]
        row_titles += [f"{category_name(acquisition)}, slice {item.index}", f"error × {error_scale:g}"]
    if not rows:
        figure = Figure(figsize=(10, 0.4))
        figure.text(0, 0.5, f"These data have no {' and no '.join(map(category_name, acquisitions))}.")
        return figure
    return image_grid(rows, row_titles)
