"""Networks by name. A new network is one file and one line here."""

import inspect
from collections.abc import Callable
from typing import Any

from morelib.errors import UserError
from morelib.nn import e2e_varnet, more
from morelib.nn.unrolled import Unrolled

# name: (factory, presets)
NETWORKS: dict[str, tuple[Callable[..., Unrolled], dict[str, dict[str, Any]]]] = {
    "e2e_varnet": (e2e_varnet.e2e_varnet, e2e_varnet.PRESETS),
    "more": (more.more, more.PRESETS),
}


def build_model(name: str, *, preset: str | None = None, **options: Any) -> Unrolled:
    """Build a network by name; options given override those of the preset.

    Raises:
        UserError: unknown name, preset or option; the line lists the known ones.

    >>> model = build_model("more", cascades=2, widths=(4, 6), sens_widths=(4, 6), n_experts=3, top_k=1)
    >>> len(model.cascades)
    2
    """
    if name not in NETWORKS:
        raise UserError(f"unknown model {name!r}; known models are {', '.join(NETWORKS)}")
    factory, presets = NETWORKS[name]
    if preset is not None and preset not in presets:
        raise UserError(f"unknown preset {preset!r} of model {name}; known presets are {', '.join(presets)}")
    known = inspect.signature(factory).parameters
    if unknown := sorted(set(options) - set(known)):
        raise UserError(
            f"model {name} has no option {', '.join(unknown)}; its options are {', '.join(known)}"
        )
    return factory(**{**(presets[preset] if preset else {}), **options})
