"""Whole networks: ours against fastMRI's, experts against the dense network, PromptMR+ against its arithmetic."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from morelib.companion.bench.apart import Build, runners, times_of
from morelib.companion.bench.dispatch import ALL, CHOSEN, GATHERED, N_EXPERTS, WAYS, samples
from morelib.companion.bench.network import AS_FASTMRI, OnPart, Setting, exact_float32, times
from morelib.companion.bench.parts import bench_parts
from morelib.companion.bench.precision import bench_precision
from morelib.companion.bench.result import DIFFERENCE, FASTER, MEMORY, SHARE, TIME, Row, compared
from morelib.companion.bench.training import bench_training
from morelib.evaluation.cost import operations
from morelib.nn.count import count_parameters
from morelib.nn.unrolled import Unrolled

FASTMRI = "fastmri.models.VarNet, same weights"
NO_CACHE = "router as printed, no cached inputs"
# Options of MoRE beside N = 8, K = 1, and what rows call them.
ROUTERS: dict[str, dict[str, Any]] = {
    "router as printed, 16 cached inputs": {},
    NO_CACHE: {"cached_inputs": 0},
    "router_width 16, 16 cached inputs": {"router_width": 16},
}
DENSE = "E2EVarNet, same widths"
PUBLISHED = "E2EVarNet as published (instance normalisation), same widths"


def _quiet(part: str) -> None:
    """For callers who do not want to know what runs."""


def bench_model(setting: Setting, on_part: OnPart = _quiet, quick: bool = False) -> Iterator[Row]:
    """All rows, each as soon as it is known; `on_part` is told what runs next.

    With `quick` those that decide between networks: no parts of the time, no variants that have no goal.
    """
    yield from against_fastmri(setting, on_part, quick)
    if not quick:
        yield from bench_parts(setting, on_part)
    yield from sensitivity(setting, on_part)
    yield from experts(setting, on_part, quick)
    ways = {name: WAYS[name] for name in (CHOSEN if setting.device == "cpu" else GATHERED, ALL)}
    yield from samples(setting, 1, ways, on_part)
    yield from promptmr(setting, on_part)
    yield from bench_precision(setting, on_part)
    yield from bench_training(setting.repeats, on_part)


def against_fastmri(setting: Setting, on_part: OnPart = _quiet, quick: bool = False) -> Iterator[Row]:
    """E2EVarNet, plain, checkpointed and with low-resolution maps, against fastMRI's with the same weights."""
    on_gpu = setting.device != "cpu"
    plain, checkpointed, low = "E2EVarNet", "E2EVarNet, checkpointing", "E2EVarNet, maps at ACS resolution"
    variants: dict[str, dict[str, Any]] = {plain: {}, checkpointed: {"checkpointing": True}}
    timed = {"forward": [plain], "step": [plain]}
    if not quick:
        variants[low] = {"sens_resolution": "acs"}
        timed = {"forward": [plain, low], "step": [plain, checkpointed, low]}
    builds: dict[str, Build] = {FASTMRI: Setting.fastmri}
    builds |= {name: partial(_same_weights, options=options) for name, options in variants.items()}
    with runners(setting, builds) as running:
        with exact_float32():
            expected, image = (torch.as_tensor(running[name].forward()) for name in (FASTMRI, plain))
        difference = float((image - expected).norm() / expected.norm())
        yield Row("E2EVarNet, output", FASTMRI, DIFFERENCE, difference, at_most=1e-5)

        for kind, names in timed.items():
            took = times_of({name: running[name] for name in (*names, FASTMRI)}, kind, setting, on_part)
            for name in names:
                pair = took[name], took[FASTMRI]
                goal = {"at_least": 3.0 if on_gpu and kind == "forward" else 2.0} if name == plain else {}
                yield compared(f"{name}, {kind}", FASTMRI, pair, FASTER, setting.repeats, **goal)
        on_part("memory of a step")
        held = {name: runner.step_memory() for name, runner in running.items()}
    goals = {plain: 0.5, checkpointed: 0.25}
    for name in variants:
        yield Row(f"{name}, step", FASTMRI, MEMORY, held[name] / held[FASTMRI], at_most=goals.get(name))


def _same_weights(setting: Setting, options: dict[str, Any]) -> Unrolled:
    return setting.same_as(setting.fastmri(), **options)


def sensitivity(setting: Setting, on_part: OnPart = _quiet) -> Iterator[Row]:
    """Coil maps estimated at ACS resolution, against the network at full resolution."""
    ours, full = "sensitivity maps at ACS resolution", "at full resolution"
    batch = setting.batch
    kinds = ("acs", "full")
    networks = {
        kind: setting.network("e2e_varnet", sens_resolution=kind).to(setting.device) for kind in kinds
    }

    def maps(name: str) -> Tensor:
        with torch.inference_mode():
            found: Tensor = networks[name].sensitivity(batch.kspace, batch.mask, batch.n_acs)
        return found

    on_part("operations")
    counted = {name: operations(network.sensitivity, batch) for name, network in networks.items()}
    whole = operations(networks["full"], batch)
    yield Row("sensitivity network", "whole E2EVarNet", SHARE, counted["full"] / whole)
    yield Row(ours, full, SHARE, counted["acs"] / counted["full"], at_most=0.1)
    took = times({f"maps, {name}": partial(maps, name) for name in networks}, setting, on_part)
    yield compared(ours, full, (took["maps, acs"], took["maps, full"]), TIME, setting.repeats)


def experts(setting: Setting, on_part: OnPart = _quiet, quick: bool = False) -> Iterator[Row]:
    """MoRE with N = 8, K = 1 against two dense networks.

    One has as many parameters as MoRE runs for a slice, its router's among them. The other has the same widths: it is
    the encoder and the decoder that run, and the router comes on top. With `quick` the first only.
    """
    for router, options in ROUTERS.items():
        if not (quick and router == NO_CACHE):
            yield from _router(f"MoRE N={N_EXPERTS}, K=1, {router}", options, setting, on_part, quick)


def _router(
    name: str, options: dict[str, Any], setting: Setting, on_part: OnPart, quick: bool
) -> Iterator[Row]:
    """`experts` with one router: few networks at a time, as each process keeps some of the memory that it freed."""
    more = _network("more", n_experts=N_EXPERTS, top_k=1, **options)
    with torch.device("meta"):
        widths = setting.widths_of(count_parameters(more(setting))[1])
    as_large = f"E2EVarNet of MoRE's active size ({'-'.join(map(str, widths))})"
    builds = {name: more, as_large: _network("e2e_varnet", widths=widths)}
    if not quick:
        builds[DENSE] = _network("e2e_varnet")
    rivals = [each for each in builds if each != name]
    with runners(setting, builds) as running:
        running[name].fill_cache()
        # Reconstruction routes its own slice only: there a cache changes nothing.
        for kind in ("step",) if name.endswith(NO_CACHE) else ("forward", "step"):
            took = times_of(running, kind, setting, on_part)
            for against in rivals:
                pair = took[name], took[against]
                yield compared(f"{name}, {kind}", against, pair, TIME, setting.repeats, at_most=1.1)
        on_part("memory of a step")
        held = {each: runner.step_memory() for each, runner in running.items()}
    for against in rivals:
        yield Row(f"{name}, step", against, MEMORY, held[name] / held[against], at_most=1.1)


def _network(name: str, **options: Any) -> Build:
    """Builds `Setting.network`."""
    return partial(Setting.network, name=name, **options)


def promptmr(setting: Setting, on_part: OnPart = _quiet) -> Iterator[Row]:
    """PromptMR+ against E2EVarNet of the same widths: its time is to grow less than its arithmetic.

    Without normalisation, as the paper trains it, E2EVarNet is faster than as it was published. Neither count of
    operations knows the difference.
    """
    name = "PromptMR+, preset paper"
    builds = {
        DENSE: _network("e2e_varnet"),
        PUBLISHED: _network("e2e_varnet", **AS_FASTMRI),
        name: _network("promptmr_plus", preset="paper"),
    }
    with runners(setting, builds) as running:
        on_part("operations")
        ours, dense = (running[each].operations() for each in (name, DENSE))
        yield Row(name, DENSE, SHARE, ours / dense)
        for kind in ("forward", "step"):
            took = times_of(running, kind, setting, on_part)
            for against in (DENSE, PUBLISHED):
                pair = took[name], took[against]
                yield compared(f"{name}, {kind}", against, pair, TIME, setting.repeats, at_most=ours / dense)
