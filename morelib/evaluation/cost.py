"""What a reconstruction costs: operations, and time as medians of interleaved rounds."""

import statistics
from collections.abc import Mapping
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
    batch, times = batch.to(device), {name: list[float]() for name in models}
    for model in models.values():
        if isinstance(model, nn.Module):
            model.to(device).eval()
    with torch.inference_mode():
        for _ in range(repeats + 1):
            for name, model in models.items():
                _wait(device)
                started = perf_counter()
                model(batch.kspace, batch.mask, n_acs=batch.n_acs)
                _wait(device)
                times[name].append(perf_counter() - started)
    return {name: statistics.median(values[1:]) for name, values in times.items()}


def _wait(device: torch.device | str) -> None:
    """Until a GPU has done what it was given: Python goes ahead of it."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()
