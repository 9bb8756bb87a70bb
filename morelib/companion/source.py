"""The library's own source in a chapter, so that the reader sees the code that runs."""

import inspect
import textwrap
from collections.abc import Callable
from typing import Any

from IPython.display import Markdown


def show_source(*objects: Callable[..., Any] | type) -> Markdown:
    """The source of functions, methods or classes as one highlighted block, for the last line of a cell.

    Markdown and not `IPython.display.Code`, which brings colours of its own that ignore the page's dark mode.
    """
    blocks = (textwrap.dedent(inspect.getsource(item)).rstrip() for item in objects)
    return Markdown("```python\n" + "\n\n\n".join(blocks) + "\n```")
