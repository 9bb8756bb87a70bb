"""What per-pixel routing costs: each pixel's own expert, against one expert for all pixels and all for all."""

from collections.abc import Callable
from functools import partial
from typing import Any


def bench_dispatch(
    width: int = 128,
    n_experts: int = 4,
    tokens: int = 25_600,
    repeats: int = 9,
    backward: bool = True,
    device: str | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Time the routed experts of HiFi-MambaV2: the router, the sorting, the experts, the scattering.

    The three ways run in turn, `repeats` times after a first round that is not counted, so that what else the machine
    does falls on all alike; medians are compared. The router is an untrained one, which uses all experts about
    equally. That is the dearest case: a collapsed router makes one block, and costs what one expert costs.

    Args:
        width: channels; 128 in the paper.
        n_experts: routed experts.
        tokens: pixels of the feature grid, by default those of a 320 x 320 image at patch 2.
        repeats: timed rounds, at least 5.
        backward: time forward and backward pass together, else the forward pass.
        device: `cpu` or `cuda`; the GPU where there is one when None.
        seed: of weights and tokens.

    Returns:
        JSON-ready: the medians `dispatch_s`, `one_expert_s` and `all_experts_s`, the ratios `to_one_expert` and
        `to_all_experts` of the first to the others, the `load` of the experts, and the settings.

    Raises:
        ValueError: fewer than 5 repeats.
    """
    # Here, because the command line starts without torch.
    import torch
    from torch import Tensor

    from morelib.evaluation import best_device
    from morelib.evaluation.cost import by_turns, seconds
    from morelib.nn.hifi_mamba.experts import expert
    from morelib.routing.pixel import choose, dispatch, dispatch_densely

    if repeats < 5:
        raise ValueError(f"repeats is {repeats}; a median of fewer than 5 says little")
    device = device or best_device()
    torch.manual_seed(seed)
    experts = torch.nn.ModuleList(expert(width) for _ in range(n_experts)).to(device)
    router = torch.nn.Linear(width, n_experts).to(device)
    x = torch.randn(tokens, width, device=device, requires_grad=backward)

    def routed(run: Callable[..., Tensor]) -> Tensor:
        _, weight, selected = choose(router(x))
        return run(experts, x, selected, weight)

    ways: dict[str, Callable[[], Tensor]] = {
        "dispatch": lambda: routed(dispatch),
        "one_expert": lambda: experts[0](x),
        "all_experts": lambda: routed(dispatch_densely),
    }

    def run(way: Callable[[], Tensor]) -> None:
        with torch.set_grad_enabled(backward):
            output = way()
            if backward:
                output.sum().backward()

    def measure(way: Callable[[], Tensor]) -> float:
        return seconds(lambda: run(way), device)

    median = by_turns({name: partial(measure, way) for name, way in ways.items()}, repeats)
    with torch.no_grad():
        load = torch.bincount(router(x).argmax(-1), minlength=n_experts) / tokens
    return {
        **{f"{name}_s": value for name, value in median.items()},
        "to_one_expert": median["dispatch"] / median["one_expert"],
        "to_all_experts": median["dispatch"] / median["all_experts"],
        "load": load.tolist(),
        "width": width,
        "n_experts": n_experts,
        "tokens": tokens,
        "repeats": repeats,
        "backward": backward,
        "device": device,
        "threads": torch.get_num_threads(),
    }
