"""The block of HiFi-MambaV2: context, frequency split, consensus, two streams, fusion by experts."""

import torch
from torch import Tensor, nn

from morelib.nn.hifi_mamba.consensus import Consensus
from morelib.nn.hifi_mamba.experts import ExpertBank, SharedRoutedExperts
from morelib.nn.hifi_mamba.layers import ChannelAttention, DropPath, GlobalContext, InvertedBottleneck
from morelib.nn.hifi_mamba.pyramid import LaplacianPyramid
from morelib.nn.hifi_mamba.state_space import GuidedStateSpace
from morelib.routing.pixel import PixelChoice


class HifiMambaBlock(nn.Module):
    """x + what two streams make of it. Half of the channels carry low frequencies, half high ones.

    Args:
        width: channels, even.
        bank: experts, this block's own or shared with others.
        state, dropout: see `GuidedStateSpace`.
        drop_path: see `DropPath`.

    `forward` maps (batch, y, x, width) to the same shape and what each pixel chose.
    """

    def __init__(
        self, width: int, bank: ExpertBank, state: int = 16, drop_path: float = 0.0, dropout: float = 0.1
    ) -> None:
        super().__init__()
        half = width // 2
        self.context = GlobalContext(width)
        self.refine_low = InvertedBottleneck(half)
        self.pyramid = LaplacianPyramid()
        self.consensus = Consensus()
        self.refine_high = InvertedBottleneck(half)
        self.refine_output = InvertedBottleneck(half)
        self.norm_low, self.norm_high = nn.LayerNorm(half), nn.LayerNorm(half)
        self.scan = GuidedStateSpace(half, state, dropout)
        self.fuse = nn.Linear(2 * width, width)
        self.experts = SharedRoutedExperts(width, bank)
        self.attention = ChannelAttention(width)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> tuple[Tensor, PixelChoice]:
        context = self.context(x)
        high, low = context.movedim(-1, 1).chunk(2, 1)
        # The low stream gives up its high frequencies; the high stream takes them as far as they agree with its own.
        low, residual = self.pyramid(self.refine_low(low))
        high = self.consensus(high + residual, residual)
        high = self.refine_high(high)
        pixels_low, pixels_high = low.movedim(1, -1), high.movedim(1, -1)
        pixels_low = self.scan(self.norm_low(pixels_low), self.norm_high(pixels_high))
        pixels_high = self.refine_output(high).movedim(1, -1)
        fused = self.fuse(torch.cat([context, pixels_high, pixels_low], -1))
        fused, choice = self.experts(fused)
        return x + self.drop_path(self.attention(fused)), choice
