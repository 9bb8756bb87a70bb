"""Figures of the chapter on data: what scan headers say, and how they hang together with the contrast."""

import re
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
from matplotlib.figure import Figure
from plotly.subplots import make_subplots

from morelib.companion.figures.images import Panel, montage
from morelib.companion.figures.style import COLOURS, layout
from morelib.data import CATEGORIES, VolumeInfo, read_slice
from morelib.data.pathology import Box, read_boxes
from morelib.evaluation.tables import category_name


def header_shares(
    categories: Sequence[str], factors: Mapping[str, Sequence[object]], most: int = 8
) -> go.Figure:
    """One panel per header field: of each category (row) the share of volumes with each value (column).

    Args:
        categories: of each volume.
        factors: name of a field to its value for each volume; the `most` frequent values get a column, the rest one.
    """
    names = list(dict.fromkeys(categories))
    figure = make_subplots(2, 2, subplot_titles=list(factors), horizontal_spacing=0.05, vertical_spacing=0.2)
    for number, values in enumerate(factors.values()):
        texts = [str(value) for value in values]
        kept = [value for value, _ in Counter(texts).most_common(most)]
        columns = sorted(kept, key=_number_first)
        if len(set(texts)) > most:
            columns.append("other")
        cells = Counter(zip(categories, (t if t in kept else "other" for t in texts), strict=True))
        total = Counter(categories)
        share = np.array([[100 * cells[name, column] / total[name] for column in columns] for name in names])
        figure.add_heatmap(
            z=share, x=[f"{column} " for column in columns], y=[category_name(name) for name in names],
            colorscale="Blues", zmin=0, zmax=100, xgap=2, ygap=2, showscale=number == 0,
            colorbar={"title": "% of the<br>category", "thickness": 12},
            texttemplate="%{z:.0f}", textfont={"size": 10},
            hovertemplate="%{y}, %{x}: %{z:.1f} %<extra></extra>",
            row=number // 2 + 1, col=number % 2 + 1,
        )  # fmt: skip
    figure.update_yaxes(autorange="reversed")
    figure.update_yaxes(showticklabels=False, col=2)  # the rows are those of the left panels
    figure.update_xaxes(type="category", tickangle=-35)
    return layout(figure, height=720)


def pathology_montage(volumes: Sequence[VolumeInfo]) -> Figure:
    """For each label among the boxes of `volumes` the slice where it is largest, with all its boxes there.

    Contrasts that show fluid, first in the order of the categories, are preferred.
    """
    best: dict[str, tuple[VolumeInfo, Box]] = {}
    for volume in sorted(volumes, key=lambda volume: CATEGORIES.index(volume.acquisition)):
        for box in read_boxes(volume.path):
            there = best.setdefault(box.label, (volume, box))
            same_contrast = there[0].acquisition == volume.acquisition
            if same_contrast and box.width * box.height > there[1].width * there[1].height:
                best[box.label] = volume, box
    panels = []
    for label, (volume, box) in best.items():
        around = [b for b in read_boxes(volume.path) if b.slice == box.slice and b.label == label]
        image = read_slice(volume, box.slice)[1]
        assert image is not None, "boxes are in pixels of the target"
        title = f"{textwrap.fill(label.replace('/', '/ '), 30)}\n{category_name(volume.acquisition)}, {volume.origin}"
        panels.append(Panel(image, title, boxes=[(b.x, b.y, b.width, b.height) for b in around]))
    return montage(panels)


def guess_bars(accuracy: Mapping[str, Mapping[str, float]], chance: Mapping[str, float]) -> go.Figure:
    """How often the contrast is named right from header fields alone.

    Args:
        accuracy: group of volumes to {field: balanced accuracy from 0 to 1}.
        chance: group to the accuracy of a blind guess.
    """
    figure = make_subplots(1, len(accuracy), subplot_titles=list(accuracy), shared_yaxes=True)
    for column, (group, values) in enumerate(accuracy.items(), start=1):
        figure.add_bar(
            x=list(values), y=[100 * value for value in values.values()], marker_color=COLOURS[0],
            text=[f"{100 * value:.0f}" for value in values.values()], showlegend=False,
            hovertemplate="%{x}: %{y:.1f} %<extra></extra>", row=1, col=column,
        )  # fmt: skip
        figure.add_hline(y=100 * chance[group], line={"color": COLOURS[1], "dash": "dash"}, row=1, col=column)
    figure.add_scatter(
        x=[None], y=[None], mode="lines", name="blind guess", line={"color": COLOURS[1], "dash": "dash"}
    )
    figure.update_xaxes(tickangle=-35)
    figure.update_yaxes(range=[0, 100])
    figure.update_yaxes(title_text="balanced accuracy (%)", row=1, col=1)
    return layout(figure, height=430).update_layout(legend_y=1.12)


def beside(real: Mapping[str, Sequence[object]], phantom: Mapping[str, Sequence[object]]) -> go.Figure:
    """Header statistics of two sets of volumes side by side: one panel per field, bars in percent of the volumes."""
    figure = make_subplots(1, len(real), subplot_titles=list(real), horizontal_spacing=0.06)
    for column, field in enumerate(real, start=1):
        values = sorted({str(v) for v in (*real[field], *phantom[field])}, key=_number_first)
        for index, (name, volumes) in enumerate({"fastMRI": real, "phantom": phantom}.items()):
            counts = Counter(str(value) for value in volumes[field])
            figure.add_bar(
                x=[f"{value} " for value in values], y=[100 * counts[v] / len(volumes[field]) for v in values],
                name=name, marker_color=COLOURS[index], legendgroup=name, showlegend=column == 1,
                hovertemplate="%{x}: %{y:.1f} %<extra></extra>", row=1, col=column,
            )  # fmt: skip
    figure.update_xaxes(type="category", tickangle=-40)
    figure.update_yaxes(title_text="% of the volumes", row=1, col=1)
    return layout(figure, height=400).update_layout(legend_y=1.15)


def _number_first(text: str) -> tuple[int, float, str]:
    """Sorts by the number that a text begins with, texts without one last."""
    number = re.match(r"[0-9.]+", text)
    return (0, float(number[0]), text) if number else (1, 0.0, text)
