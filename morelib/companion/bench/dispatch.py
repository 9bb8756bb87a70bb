"""What routing costs, apart from the router: of single pixels, and of whole samples to decoders."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from morelib.companion.bench.network import OnPart, Setting, times
from morelib.companion.bench.result import FASTER, TIME, Row, compared
from morelib.nn.graphs import Replayed
from morelib.nn.hifi_mamba.experts import expert
from morelib.nn.unet import Decoder, Encoder
from morelib.routing.dispatch import mix_all_experts, mix_experts
from morelib.routing.pixel import choose, dispatch, dispatch_densely

N_EXPERTS = 8
CHOSEN, GATHERED, ALL = "chosen decoders", "decoders with gathered weights", "all decoders"
# Ways of running one decoder of eight for each sample; all give the same.
WAYS: Mapping[str, Callable[..., Tensor]] = {
    CHOSEN: partial(mix_experts, gather=False),
    GATHERED: partial(mix_experts, gather=True),
    ALL: mix_all_experts,
}


def bench_dispatch(
    setting: Setting, width: int = 128, tokens: int = 25_600, on_part: OnPart = lambda part: None
) -> Iterator[Row]:
    """Pixels of HiFi-MambaV2 (`width` channels, `tokens` of them), then samples of MoRE at `setting`."""
    yield from pixels(setting, width, tokens, on_part=on_part)
    for batch in (1, 4):
        yield from samples(setting, batch, on_part=on_part)


def pixels(
    setting: Setting, width: int, tokens: int, n_experts: int = 4, on_part: OnPart = lambda part: None
) -> Iterator[Row]:
    """Each pixel's own expert, against one expert for all and all experts for all: router, sorting, scattering too.

    The router is an untrained one, which uses all experts about equally. That is the dearest case: a collapsed router
    makes one block, and costs what one expert costs.
    """
    torch.manual_seed(0)
    experts = nn.ModuleList(expert(width) for _ in range(n_experts)).to(setting.device)
    router = nn.Linear(width, n_experts).to(setting.device)
    x = torch.randn(tokens, width, device=setting.device, requires_grad=True)

    def routed(run: Callable[..., Tensor]) -> Tensor:
        _, weight, selected = choose(router(x))
        return run(experts, x, selected, weight)

    own = f"{tokens} pixels to {n_experts} experts of {width} channels"
    ways: dict[str, Callable[[], Tensor]] = {
        own: lambda: routed(dispatch),
        "one expert for all": lambda: experts[0](x),
        "all experts for all": lambda: routed(dispatch_densely),
    }
    for kind in ("forward", "forward and backward"):
        took = _by_turns(ways, kind, setting, on_part)
        for against, goal in (("one expert for all", 1.5), ("all experts for all", 0.5)):
            pair = took[own], took[against]
            yield compared(f"{own}, {kind}", against, pair, TIME, setting.repeats, at_most=goal)


def samples(
    setting: Setting,
    batch: int,
    ways: Mapping[str, Callable[..., Tensor]] = WAYS,
    on_part: OnPart = lambda part: None,
) -> Iterator[Row]:
    """One decoder of eight for each sample of a batch; each of `ways` against the last, which computes all eight."""
    torch.manual_seed(0)
    height, width = (-(-size // 16) * 16 for size in setting.size[:2])
    image = torch.randn(batch, 2, height, width).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        features = Encoder(2, setting.widths).to(setting.device)(image.to(setting.device))
    bank = nn.ModuleList(Decoder(2, setting.widths) for _ in range(N_EXPERTS)).to(setting.device)
    weights = torch.rand(batch, N_EXPERTS, device=setting.device)
    selected = (torch.arange(batch, device=setting.device) * 3 % N_EXPERTS).unsqueeze(-1)

    works = {name: partial(way, list(bank), features, weights, selected) for name, way in ways.items()}
    # Running chosen modules asks for the choice, and cannot be recorded.
    recorded = [name for name in works if setting.device != "cpu" and name != CHOSEN]
    for kind in ("forward", "forward and backward"):
        took = _by_turns(works, kind, setting, on_part, recorded)
        for name in list(works)[:-1]:
            what = f"{name}, 1 of {N_EXPERTS}, batch {batch}, {kind}"
            yield compared(what, ALL, (took[name], took[ALL]), FASTER, setting.repeats,
                           at_least=4.0)  # fmt: skip


def _by_turns(
    ways: Mapping[str, Callable[[], Tensor]],
    kind: str,
    setting: Setting,
    on_part: OnPart,
    recorded: Sequence[str] = (),
) -> dict[str, float]:
    """Median seconds by way; kind is `forward` or `forward and backward`; those `recorded` replay a CUDA graph."""

    def run(way: Callable[[], Tensor]) -> None:
        with torch.set_grad_enabled(kind != "forward"):
            output = way()
            if output.requires_grad:
                output.sum().backward()

    works: dict[str, Callable[[], None]] = {name: partial(run, way) for name, way in ways.items()}
    for name in recorded:
        works[name] = Replayed(works[name])
    return times(works, setting, lambda name: on_part(f"{name}, {kind}"))
