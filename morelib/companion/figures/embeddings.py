"""t-SNE pictures of routing embeddings, and which expert each category was sent to."""

from collections import Counter
from collections.abc import Mapping

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from morelib.companion.figures.style import CATEGORY_COLOURS, layout
from morelib.data.volume import CATEGORY_NAMES
from morelib.evaluation import Table
from morelib.evaluation.routing import CollectedRouting, neighbour_accuracy, tsne
from morelib.routing.diagnostics import label_agreement, usage_by_label


def tsne_figure(collected: Mapping[str, CollectedRouting], cascade: int, seed: int = 0) -> go.Figure:
    """One scatter plot per entry of `collected` (such as trained and untrained), coloured by category.

    Axes carry no unit: only neighbourhoods mean something in a t-SNE. Fewer than two slices leave a plot empty.
    """
    figure = make_subplots(1, len(collected), subplot_titles=list(collected), horizontal_spacing=0.04)
    for column, routing in enumerate(collected.values(), start=1):
        if len(routing.volume) < 2:
            continue
        points = tsne(routing.embedding[cascade], seed=seed)
        for category in CATEGORY_COLOURS:
            rows = [i for i, name in enumerate(routing.acquisition) if name == category]
            if not rows:
                continue
            figure.add_scatter(
                x=points[rows, 0],
                y=points[rows, 1],
                text=[routing.volume[i] for i in rows],
                mode="markers",
                marker={"color": CATEGORY_COLOURS[category], "size": 9, "opacity": 0.85},
                name=CATEGORY_NAMES[category],
                legendgroup=category,
                showlegend=column == 1,
                hovertemplate="%{text}<extra></extra>",
                row=1,
                col=column,
            )
    figure.update_xaxes(showticklabels=False, zeroline=False)
    figure.update_yaxes(showticklabels=False, zeroline=False)
    layout(figure, height=400)
    return figure.update_layout(legend={"y": -0.05, "yanchor": "top"}, margin={"l": 20})


def category_table(collected: Mapping[str, CollectedRouting], cascade: int, caption: str) -> Table:
    """Per router and anatomy: do embeddings of one cascade tell categories apart, and do choices follow them in each.

    Chance is the share of the most frequent category. Anatomies that the data lack have no row.
    """
    rows = []
    for name, everything in collected.items():
        for anatomy in ("brain", "knee"):
            routing = everything.of_anatomy(anatomy)
            labels = routing.acquisition
            if not labels:
                continue
            near = neighbour_accuracy(routing.embedding[cascade], labels, routing.volume)
            chance = max(Counter(labels).values()) / len(labels)
            agreement = ", ".join(f"{label_agreement(chosen, labels):+.2f}" for chosen in routing.selected)
            cells = str(len(labels)), f"{near:.2f}", f"{chance:.2f}", agreement
            rows.append((f"{name}, {anatomy}", *cells))
    header = ("router", "slices", "neighbour\naccuracy", "chance", "agreement, per cascade")
    return Table(header, tuple(rows), caption)


def usage_figure(routing: CollectedRouting) -> go.Figure:
    """Per cascade a map of category against expert: the share of a category's selections that went to it."""
    cascades, n_experts = len(routing.gates), routing.gates.shape[-1]
    figure = make_subplots(
        1, cascades, subplot_titles=[f"cascade {c + 1}" for c in range(cascades)], shared_yaxes=True
    )
    for cascade in range(cascades):
        usage = usage_by_label(routing.selected[cascade], routing.acquisition, n_experts)
        names = [category for category in CATEGORY_NAMES if category in usage]
        values = [usage[category] for category in names]
        figure.add_heatmap(
            z=values,
            x=[str(expert + 1) for expert in range(n_experts)],
            y=[CATEGORY_NAMES[category] for category in names],
            text=[[f"{share:.0%}" for share in row] for row in values],
            texttemplate="%{text}",
            zmin=0,
            zmax=1,
            colorscale="Blues",
            showscale=False,
            row=1,
            col=cascade + 1,
        )
    figure.update_xaxes(title="expert")
    figure.update_yaxes(autorange="reversed")
    layout(figure, height=340)
    return figure.update_layout(margin={"l": 90})
