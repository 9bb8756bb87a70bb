"""Grey-value images that a slider steps through, drawn by plotly without a kernel."""

import base64
import io
from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
from matplotlib.image import imsave
from plotly.subplots import make_subplots

from morelib.companion.figures.images import Panel
from morelib.companion.figures.style import layout


def image_slider(
    steps: Mapping[str, Sequence[Panel]], prefix: str = "", height: int = 420, active: int = 0
) -> go.Figure:
    """One row of panels per slider position; every position has the same number of panels.

    Args:
        steps: label of each position to its panels; titles and notes may change from one to the next.
        prefix: stands before the label of the present position, as in "acceleration: ".
        height: of the figure, pixels.
        active: the position shown first.
    """
    labels = list(steps)
    columns = len(steps[labels[0]])
    figure = make_subplots(1, columns, subplot_titles=[" "] * columns, horizontal_spacing=0.02)
    for number, label in enumerate(labels):
        for column, panel in enumerate(steps[label]):
            trace = go.Image(source=_png(panel), visible=number == active, hoverinfo="skip")
            figure.add_trace(trace, row=1, col=column + 1)
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False)
    moves = [
        {"method": "update", "label": label, "args": [
            {"visible": [here == number for here in range(len(labels)) for _ in range(columns)]},
            {f"annotations[{column}].text": _caption(panel) for column, panel in enumerate(steps[label])},
        ]}
        for number, label in enumerate(labels)
    ]  # fmt: skip
    for annotation, panel in zip(figure.layout.annotations, steps[labels[active]], strict=True):
        annotation.text, annotation.font.size = _caption(panel), 13
    layout(figure, height=height)
    slider = {"active": active, "currentvalue": {"prefix": prefix}, "steps": moves, "pad": {"t": 10}}
    return figure.update_layout(sliders=[slider], margin={"l": 10, "r": 10, "t": 60, "b": 10})


def _caption(panel: Panel) -> str:
    return panel.title + (f"<br><sup>{panel.note}</sup>" if panel.note else "")


def _png(panel: Panel) -> str:
    """The panel as a PNG in a data URI: a tenth of the size of its numbers, and drawn at once."""
    file = io.BytesIO()
    imsave(file, np.asarray(panel.image), vmin=0, vmax=panel.upper, cmap=panel.cmap, format="png")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
