"""How many parameters a network holds, and how many of them run."""

from torch import nn

from morelib.nn.hifi_mamba.experts import SharedRoutedExperts
from morelib.nn.more import denoisers_of


def count_parameters(model: nn.Module) -> tuple[int, int]:
    """(all parameters, those that one slice, or one pixel, can pass through): experts not chosen stand apart.

    A bank of experts that several blocks of HiFi-MambaV2 share counts as many experts as there are blocks to choose,
    all at most.
    """
    total = _size(model)
    return total, total - _idle_decoders(model) - _idle_perceptrons(model)


def _idle_decoders(model: nn.Module) -> int:
    """MoRE: all but K decoders of each cascade."""
    return sum(_size(d.experts[0]) * (len(d.experts) - d.routing.top_k) for d in denoisers_of(model))


def _idle_perceptrons(model: nn.Module) -> int:
    """HiFi-MambaV2: the routed experts of a bank beyond one for each block that uses it."""
    layers = [module for module in model.modules() if isinstance(module, SharedRoutedExperts)]
    idle = 0
    for bank in {layer.bank for layer in layers}:
        users = sum(layer.bank is bank for layer in layers)
        idle += _size(bank.routed[0]) * max(len(bank.routed) - users, 0)
    return idle


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
