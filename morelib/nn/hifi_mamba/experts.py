"""Shared and routed experts per pixel: every pixel goes through one expert that all share and one that it chooses."""

import torch
from torch import Tensor, nn

from morelib.routing.pixel import PixelChoice, choose, dispatch


class ExpertBank(nn.Module):
    """One shared expert and `n_experts` routed ones, each Linear - GELU - Linear, twice as wide inside."""

    def __init__(self, channels: int, n_experts: int) -> None:
        super().__init__()
        self.shared = expert(channels)
        self.routed = nn.ModuleList(expert(channels) for _ in range(n_experts))


def expert(channels: int) -> nn.Sequential:
    """A perceptron on the last axis."""
    return nn.Sequential(nn.Linear(channels, 2 * channels), nn.GELU(), nn.Linear(2 * channels, channels))


class SharedRoutedExperts(nn.Module):
    """shared(x) + g_e routed_e(x) for each pixel x, e its most probable expert and g_e the softmax weight.

    Args:
        channels: width.
        bank: the experts; may be the same in several blocks. The router is the block's own.

    `forward` maps (batch, y, x, channels) to the same shape and what each pixel chose. No capacity limit: no pixel is
    dropped.
    """

    waits_for_values = True  # how many pixels each expert receives, see `morelib.nn.graphs.recordable`

    def __init__(self, channels: int, bank: ExpertBank) -> None:
        super().__init__()
        self.bank = bank
        self.router = nn.Linear(channels, len(bank.routed))

    def forward(self, x: Tensor) -> tuple[Tensor, PixelChoice]:
        tokens = x.flatten(0, 2)
        # Not in a short format under autocast: rounded gates tie, and ties all go to one expert.
        with torch.autocast(x.device.type, enabled=False):
            gates, weight, selected = choose(self.router(tokens.to(self.router.weight.dtype)))
        routed = dispatch(self.bank.routed, tokens, selected, weight)
        gates, selected = gates.unflatten(0, x.shape[:3]), selected.unflatten(0, x.shape[:3])
        output = self.bank.shared(x) + routed.view_as(x)
        return output, PixelChoice(gates, selected)
