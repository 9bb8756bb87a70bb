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
    "gated_dense": "Gated dense",
    "dense_active": "Dense, MoRE's active size",
    "dense_total": "Dense, MoRE's total size",
    "image_unet": "Image U-Net",
    "dense_acs": "E2EVarNet, coarse maps",
    "promptmr_plus": "PromptMR+",
    "hifi_mamba_v2": "HiFi-MambaV2",
}

# Those that are trained; what belongs to MoRE is never red in one figure and blue in the next.
SYSTEM_COLOURS = dict(zip(list(SYSTEM_NAMES)[3:], (*COLOURS, "#6A51A3"), strict=True))


def system_name(arm: str) -> str:
    """What a reader is told. Arms of a profile of one's own go by the name they have there."""
    return SYSTEM_NAMES.get(arm, arm)


def layout(figure: go.Figure, height: int) -> go.Figure:
    """The book's plotly layout: white, compact, legend above the plot."""
    figure.update_layout(
        template="plotly_white",
        height=height,
        margin={"l": 60, "r": 20, "t": 60, "b": 50},
        font={"family": "system-ui, sans-serif", "size": 13},
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.02, "x": 0},
        colorway=list(COLOURS),
    )
    return figure
