"""What a reconstruction costs: parameters, operations, time as medians of interleaved rounds, and peak memory."""

import weakref
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from statistics import median
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode
from torch.utils.weak import WeakIdKeyDictionary

from morelib.data.batches import Batch
from morelib.evaluation.evaluate import Model, ready
from morelib.nn.count import count_parameters
from morelib.nn.more import routings
from morelib.routing.convolution import plainly


@dataclass(frozen=True)
class Cost:
    """Of one network and one slice: `parameters` held and `active`; floating-point `operations` and `seconds` of a
    forward pass; peak `memory` of one, and of one with its backward pass, in bytes. JSON-ready through `asdict`.
    """

    parameters: int
    active: int
    operations: int
    seconds: float
    memory: int
    training_memory: int


def measure(
    models: Mapping[str, nn.Module], batch: Batch, device: torch.device | str = "cpu"
) -> dict[str, Cost]:
    """The cost of each model on `batch`. Times are comparable with each other only, see `seconds_per_pass`."""
    for model in models.values():
        model.to(device).eval()
    times = seconds_per_pass(models, batch, device)
    return {
        name: Cost(
            *count_parameters(model),
            operations(model, batch.to(device)),
            times[name],
            *memory_of_passes(model, batch, device),
        )
        for name, model in models.items()
    }


def operations(model: Model, batch: Batch) -> int:
    """Floating-point operations of one pass, two per multiplication and addition.

    Convolutions and matrix products count; Fourier transforms, scans and elementwise work do not.
    """
    with FlopCounterMode(display=False) as counter, torch.no_grad(), plainly():
        model(batch.kspace, batch.mask, n_acs=batch.n_acs)
    return int(counter.get_total_flops())


def seconds_per_pass(
    models: Mapping[str, Model], batch: Batch, device: torch.device | str = "cpu", repeats: int = 5
) -> dict[str, float]:
    """Median time of a forward pass on `batch` by model, in seconds.

    The models take turns, after a round that is not counted, so that what else the machine does falls on all alike:
    compare the numbers with each other, not with those of another run.
    """
    batch = batch.to(device)

    def run(model: Model) -> float:
        return seconds(lambda: model(batch.kspace, batch.mask, n_acs=batch.n_acs), device)

    with ExitStack() as stack:
        running = {name: stack.enter_context(ready(model, device)) for name, model in models.items()}
        return by_turns({name: partial(run, model) for name, model in running.items()}, repeats)


def by_turns(measures: Mapping[str, Callable[[], float]], repeats: int) -> dict[str, float]:
    """The median of what each measure returns over `repeats` rounds; each is called once more, first, to warm up."""
    rounds = [{name: measure() for name, measure in measures.items()} for _ in range(repeats + 1)]
    return {name: median(one[name] for one in rounds[1:]) for name in measures}


def seconds(work: Callable[[], object], device: torch.device | str = "cpu") -> float:
    """How long `work` takes on `device`, until it is done there."""
    _wait(device)
    started = perf_counter()
    work()
    _wait(device)
    return perf_counter() - started


def _wait(device: torch.device | str) -> None:
    """Until a GPU has done what it was given: Python goes ahead of it."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()


def peak_memory(work: Callable[[], object], device: torch.device | str = "cpu") -> int:
    """The most bytes that `work` holds on `device` at any moment, beyond those held before.

    On a GPU by the allocator's own count, operators' scratch space included; `work` is called once more before, so
    that what libraries set aside once is not counted. On the CPU the storages of all tensors that operators give are
    followed from birth to death; scratch space within an operator is not seen.
    """
    if torch.device(device).type == "cuda":
        work()
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with LiveStorages() as storages:
        work()
    return storages.peak


def memory_of_passes(model: nn.Module, batch: Batch, device: torch.device | str = "cpu") -> tuple[int, int]:
    """Peak memory in bytes of one forward pass, and of one with its backward pass, gradients included.

    Parameters, the optimiser's moments and `batch` itself do not count. Cached router inputs are filled first, as
    they are in all but the first steps of a training run. All of it happens to a copy: the model stays as it is.
    """
    batch = batch.to(device)
    model = deepcopy(model).to(device)

    def forward() -> Tensor:
        return model(batch.kspace, batch.mask, n_acs=batch.n_acs).image

    def step() -> None:
        model.zero_grad(set_to_none=True)
        forward().mean().backward()

    with torch.no_grad():
        model.eval()
        inference = peak_memory(forward, device)
        model.train()
        for _ in range(max((routing.cache.capacity for routing in routings(model)), default=0)):
            forward()
    return inference, peak_memory(step, device)


class LiveStorages(TorchDispatchMode):
    """Counts the bytes of storages that operators make, until each is freed: `live` now, `peak` at most."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._known = WeakIdKeyDictionary()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for storage in _storages((args, kwargs)):  # those that were there before are not ours
            self._known.setdefault(storage, None)
        with self:  # in inference mode composite operators arrive whole; their parts do the work
            parts = func.decompose(*args, **(kwargs or {}))
        output = func(*args, **(kwargs or {})) if parts is NotImplemented else parts
        for storage in _storages(output):
            if storage not in self._known:
                self._known[storage] = None
                self.live += storage.nbytes()
                weakref.finalize(storage, self._free, storage.nbytes())
        self.peak = max(self.peak, self.live)
        return output

    def _free(self, size: int) -> None:
        self.live -= size


def _storages(tree: Any) -> list[torch.UntypedStorage]:
    return [leaf.untyped_storage() for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]
