"""What reconstructions cost: where the time goes, how it grows, and how far from the goals it is."""

from collections.abc import Sequence

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from morelib.companion.bench.growth import Point
from morelib.companion.bench.parts import OF_THEIRS
from morelib.companion.bench.result import HEADER, Row
from morelib.companion.figures.style import COLOURS, layout
from morelib.evaluation.tables import Table

AXIS_NAMES = {
    "matrix": "matrix (columns)",
    "coils": "coils",
    "cascades": "cascades",
    "experts": "experts N",
    "chosen": "chosen experts K of 8",
}
# Where measured and goal coincide, a comparison is met; beyond, it is met with so much to spare.
GOAL_AXIS = "how far beyond the goal (1: just met)"
FAR = 8  # beyond that a row is met whatever the machine


def rows_table(rows: Sequence[Row], caption: str) -> Table:
    """The rows of a benchmark for a page; those of `parts_figure` are left out."""
    return Table(HEADER, tuple(row.cells for row in rows if row.unit != OF_THEIRS), caption)


def parts_figure(rows: Sequence[Row]) -> go.Figure:
    """Stacked bars: what each part takes, fastMRI's whole reconstruction being one."""
    parts = [row for row in rows if row.unit == OF_THEIRS]
    figure = go.Figure()
    for name in dict.fromkeys(row.what for row in parts):
        own = [row for row in parts if row.what == name]
        figure.add_bar(
            x=[row.value for row in own],
            y=[row.against for row in own],
            name=name,
            orientation="h",
            text=[f"{row.value:.0%}" for row in own],
            hovertemplate="%{y}<br>%{x:.2f} of fastMRI's time<extra>" + name + "</extra>",
        )
    figure.update_layout(barmode="stack")
    figure.update_xaxes(title="time, fastMRI's whole reconstruction = 1")
    figure.update_yaxes(autorange="reversed")
    return layout(figure, height=260).update_layout(margin={"l": 130})


def growth_figure(points: Sequence[Point]) -> go.Figure:
    """One column per axis: time of a reconstruction above, memory of a training step below.

    Both are relative to the first system of the axis at the axis's largest value, which is one. Hover for bytes.
    """
    axes = list(dict.fromkeys(point.axis for point in points))
    systems = list(dict.fromkeys(point.system for point in points))
    figure = make_subplots(2, len(axes), vertical_spacing=0.08, horizontal_spacing=0.07)
    for column, axis in enumerate(axes, start=1):
        here = sorted((point for point in points if point.axis == axis), key=lambda point: point.value)
        top = next(point for point in here if point.value == here[-1].value)
        for number, system in enumerate(systems):
            for row, (name, unit) in enumerate((("forward", top.forward), ("memory", top.memory)), start=1):
                own = [point for point in here if point.system == system and getattr(point, name) is not None]
                if not own:
                    continue
                figure.add_scatter(
                    x=[point.value for point in own],
                    y=[getattr(point, name) / unit for point in own],
                    text=[f"{point.memory / 2**20:.0f} MiB for a step" for point in own],
                    mode="lines+markers",
                    line={"color": COLOURS[number % len(COLOURS)]},
                    name=system,
                    legendgroup=system,
                    showlegend=row == 2
                    and system not in {trace.name for trace in figure.data if trace.showlegend},
                    hovertemplate="%{x}: %{y:.2f}<br>%{text}<extra>" + system + "</extra>",
                    row=row,
                    col=column,
                )
        ticks = sorted({point.value for point in here})
        figure.update_xaxes(tickvals=ticks, col=column)
        figure.update_xaxes(title=AXIS_NAMES[axis], row=2, col=column)
        figure.update_xaxes(showticklabels=False, row=1, col=column)
    figure.update_yaxes(rangemode="tozero")
    figure.update_yaxes(title="time", row=1, col=1)
    figure.update_yaxes(title="memory", row=2, col=1)
    return layout(figure, height=480)


def goals_figure(rows: Sequence[Row]) -> go.Figure:
    """Every measured row with a goal as a dot: to the right of one the goal is met. Far ones stand at the end."""
    judged = {_label(row): row for row in rows if row.holds is not None and row.value}
    figure = go.Figure()
    for holds, name in ((True, "met"), (False, "missed")):
        own = [row for row in judged.values() if row.holds is holds]
        figure.add_scatter(
            x=[min(margin(row), FAR) for row in own],
            y=[_label(row) for row in own],
            text=[f"{row.cells[2]}, goal {row.goal}" for row in own],
            mode="markers",
            marker={"color": COLOURS[2 if holds else 1], "size": 11},
            name=name,
            hovertemplate="%{text}<extra></extra>",
        )
    figure.add_vline(x=1, line={"color": "#555", "dash": "dash"})
    ticks = [0.125, 0.25, 0.5, 1, 2, 4, FAR]
    labels = [*map(str, ticks[:-1]), f"{FAR} or more"]
    figure.update_xaxes(title=GOAL_AXIS, type="log", tickvals=ticks, ticktext=labels)
    figure.update_yaxes(
        autorange="reversed", tickfont={"size": 11}, categoryorder="array", categoryarray=list(judged)
    )
    return layout(figure, height=120 + 42 * len(judged)).update_layout(margin={"l": 360})


def _label(row: Row) -> str:
    return f"{row.what}<br>{row.unit}, {row.against}"


def margin(row: Row) -> float:
    """How many times better than its goal a measured row is."""
    assert row.value is not None
    if row.at_least is not None:
        return row.value / row.at_least
    assert row.at_most is not None
    return row.at_most / row.value
