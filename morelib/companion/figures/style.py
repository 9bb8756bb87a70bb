"""Colours and layout that all figures share."""

import plotly.graph_objects as go

# Okabe and Ito's palette: distinguishable with colour-vision deficiency, legible on white and on dark pages.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C8C8C", "#B8A800")

# One colour per category, so that a colour means the same thing in every chapter.
CATEGORY_COLOURS = {
    "AXFLAIR": COLOURS[0],
    "AXT1POST": COLOURS[1],
    "AXT2": COLOURS[2],
    "AXT1": COLOURS[3],
    "AXT1PRE": COLOURS[4],
    "CORPDFS_FBK": COLOURS[5],
    "CORPD_FBK": COLOURS[6],
}

SYSTEM_NAMES = {
    "zero_filled": "Zero-filled",
    "cg_sense": "CG-SENSE",
    "tv_sense": "TV-SENSE",
    "e2e_varnet": "E2EVarNet",
    "more": "MoRE",
    "promptmr_plus": "PromptMR+",
    "hifi_mamba_v2": "HiFi-MambaV2",
}


def layout(figure: go.Figure, *, height: int = 360, **options: object) -> go.Figure:
    """The book's plotly layout: white, compact, legend above the plot."""
    figure.update_layout(
        template="plotly_white",
        height=height,
        margin={"l": 60, "r": 20, "t": 60, "b": 50},
        font={"family": "system-ui, sans-serif", "size": 13},
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.02, "x": 0},
        colorway=list(COLOURS),
        **options,
    )
    return figure
