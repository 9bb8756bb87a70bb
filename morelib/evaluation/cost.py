"""What a reconstruction costs: operations, and time as medians of interleaved rounds."""

from collections.abc import Callable, Mapping
from functools import partial
from statistics import median
from time import perf_counter

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from morelib.data.batches import Batch
from morelib.evaluation.evaluate import Model


def operations(model: Model, batch: Batch) -> int:
    """Floating-point operations of one pass, two per multiplication and addition.

    Convolutions and matrix products count; Fourier transforms, scans and elementwise work do not.
    """
    with FlopCounterMode(display=False) as counter, torch.no_grad():
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
    for model in models.values():
        if isinstance(model, nn.Module):
            model.to(device).eval()

    def run(model: Model) -> float:
        return seconds(lambda: model(batch.kspace, batch.mask, n_acs=batch.n_acs), device)

    with torch.inference_mode():
        return by_turns({name: partial(run, model) for name, model in models.items()}, repeats)


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
