"""Grids of grey-value images with captions: the way every reconstruction is shown."""

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import ArrayLike

from morelib.companion.figures.style import COLOURS


@dataclass(frozen=True)
class Panel:
    """One image of a grid.

    image: real (y, x). title: above it. vmax: upper end of the grey scale, the image's 99.5th percentile when None.
    cmap: `gray` for images, `inferno` for errors. note: small text inside, such as a score. boxes: drawn around
    pathology, (x, y, width, height) in pixels.
    """

    image: ArrayLike
    title: str = ""
    vmax: float | None = None
    cmap: str = "gray"
    note: str = ""
    boxes: Sequence[tuple[int, int, int, int]] = ()

    @property
    def upper(self) -> float:
        """The value drawn brightest; never zero."""
        return (float(np.percentile(np.asarray(self.image), 99.5)) if self.vmax is None else self.vmax) or 1.0


def montage(panels: Sequence[Panel], columns: int = 4) -> Figure:
    """Draw panels in reading order, `columns` in a row; the last places may stay empty. Without panels: nothing."""
    if not panels:
        return Figure(figsize=(10, 0.1))
    padded = [*panels, *[None] * (-len(panels) % columns)]
    return image_grid([padded[start : start + columns] for start in range(0, len(padded), columns)])


def image_grid(
    rows: Sequence[Sequence[Panel | None]], row_titles: Sequence[str] = (), width: float = 10.0
) -> Figure:
    """Draw rows of panels, equal in number, on one figure `width` inches wide; None leaves a place empty."""
    columns = len(rows[0])
    shape = next(np.shape(panel.image) for panel in rows[0] if panel)
    cell = (width - (0.4 if row_titles else 0.0)) / columns
    lines = max((panel.title.count("\n") + 1 for row in rows for panel in row if panel), default=1)
    height = cell * shape[0] / shape[1] + 0.1 + 0.18 * lines
    figure, axes = plt.subplots(len(rows), columns, figsize=(width, len(rows) * height), squeeze=False)
    for r, row in enumerate(rows):
        for axis, panel in zip(axes[r], row, strict=True):
            axis.set_xticks([])
            axis.set_yticks([])
            for spine in axis.spines.values():
                spine.set_visible(False)
            if panel is None:
                continue
            image = np.asarray(panel.image)
            axis.imshow(image, cmap=panel.cmap, vmin=0, vmax=panel.upper, interpolation="nearest")
            axis.set_title(panel.title, fontsize=10, pad=4)
            for x, y, w, h in panel.boxes:
                frame = Rectangle(
                    (x - 1, y - 1), w + 1, h + 1, fill=False, edgecolor=COLOURS[4], linewidth=1.2
                )
                axis.add_patch(frame)
            if panel.note:
                axis.text(
                    0.03, 0.04, panel.note, transform=axis.transAxes, color="white", fontsize=8,
                    bbox={"facecolor": "black", "alpha": 0.55, "edgecolor": "none", "pad": 2},
                )  # fmt: skip
        if row_titles:
            axes[r, 0].set_ylabel(row_titles[r], fontsize=10)
    figure.tight_layout(pad=0.4)
    plt.close(figure)  # shown once, as the value of the cell, and not again by the inline backend
    return figure
