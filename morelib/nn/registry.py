"""Networks by name. A new network is one file and one line here."""

import inspect
from collections.abc import Callable
from typing import Any

import torch

from morelib.errors import UserError
from morelib.nn import controls, e2e_varnet, hifi_mamba, more, promptmr_plus

# name: (factory, presets). All are an `Unrolled` but `image_unet`, which has no cascades and is called like one.
NETWORKS: dict[str, tuple[Callable[..., Any], dict[str, dict[str, Any]]]] = {
    "e2e_varnet": (e2e_varnet.e2e_varnet, e2e_varnet.PRESETS),
    "more": (more.more, more.PRESETS),
    "promptmr_plus": (promptmr_plus.promptmr_plus, promptmr_plus.PRESETS),
    "hifi_mamba_v2": (hifi_mamba.hifi_mamba_v2, hifi_mamba.PRESETS),
    "gated_dense": (controls.gated_dense, {}),
    "image_unet": (controls.image_unet, {}),
}


def options_of(name: str) -> tuple[str, ...]:
    """The options that `build_model(name, ...)` takes. Raises UserError for an unknown name."""
    return tuple(inspect.signature(_network(name)[0]).parameters)


def build_model(name: str, *, preset: str | None = None, **options: Any) -> Any:
    """Build a network by name; options given override those of the preset. The class depends on the name.

    Raises:
        UserError: unknown name, preset or option; the line lists the known ones.

    >>> model = build_model("more", cascades=2, widths=(4, 6), sens_widths=(4, 6), n_experts=3, top_k=1)
    >>> len(model.cascades)
    2
    """
    factory, presets = _network(name)
    if preset is not None and preset not in presets:
        known_presets = ", ".join(presets) or "none"
        raise UserError(f"unknown preset {preset!r} of model {name}; known presets are {known_presets}")
    known = options_of(name)
    if unknown := sorted(set(options) - set(known)):
        raise UserError(
            f"model {name} has no option {', '.join(unknown)}; its options are {', '.join(known)}"
        )
    model = factory(**{**(presets[preset] if preset else {}), **options})
    # Features are channels-last: kernels in another order are copied at every call.
    for parameter in model.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return model


def _network(name: str) -> tuple[Callable[..., Any], dict[str, dict[str, Any]]]:
    if name not in NETWORKS:
        raise UserError(f"unknown model {name!r}; known models are {', '.join(NETWORKS)}")
    return NETWORKS[name]
