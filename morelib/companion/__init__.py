"""The executable paper: run-all, run cards, figures, widgets. The only room that knows notebooks.

`Companion` is what a notebook works with. It is imported on first use, so that the command line and the
notebook runner start without torch.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from morelib.companion.session import Companion

__all__ = ["Companion"]


def __getattr__(name: str) -> Any:
    if name == "Companion":
        from morelib.companion.session import Companion

        return Companion
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
