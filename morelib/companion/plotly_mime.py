"""Plotly figures in the book: a MIME renderer for MyST-NB that stays offline.

None of plotly's own renderers both draws in a static page and makes no request. This one writes the figure's
JSON into the page; `figures.js` draws it with the one plotly.min.js that `sphinx_ext` puts into the build.
"""

import json
from typing import Any, ClassVar

from docutils import nodes

PLOTLY_MIME = "application/vnd.plotly.v1+json"
MARKER = "morelib-plotly"  # the class by which `sphinx_ext` finds the pages that need plotly.min.js
DEFAULT_HEIGHT = 450  # pixels; plotly's own default


def figure_html(figure: dict[str, Any]) -> str:
    """HTML of one figure.

    Args:
        figure: Plotly's MIME bundle, `{"data": [...], "layout": {...}}`, as it stands in the notebook.

    Returns:
        A div of the figure's height (so that the page does not jump when it is drawn) holding its JSON.
    """
    height = figure.get("layout", {}).get("height") or DEFAULT_HEIGHT
    # A text inside the figure may hold "</script>", which would end the element early.
    payload = json.dumps(figure, separators=(",", ":")).replace("</", "<\\/")
    return (
        f'<div class="{MARKER}" style="min-height:{int(height)}px">'
        f'<script type="application/json">{payload}</script></div>'
    )


class PlotlyRenderer:
    """Entry point `myst_nb.mime_renderers`; the interface is `myst_nb.core.render.MimeRenderPlugin`."""

    mime_priority_overrides: ClassVar[list[tuple[str, str, int | None]]] = [("html", PLOTLY_MIME, 1)]

    @staticmethod
    def handle_mime(renderer: Any, data: Any, inline: bool) -> list[nodes.Element] | None:
        """Nodes for a plotly output, or None for any other type so that MyST-NB goes on as usual."""
        if inline or data.mime_type != PLOTLY_MIME:
            return None
        return [nodes.raw("", figure_html(data.content), format="html")]
