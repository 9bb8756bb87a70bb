"""The guided state-space layer: a selective scan over the pixels of one stream, steered by the other stream."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from morelib.nn.hifi_mamba.layers import GatedUnit
from morelib.nn.hifi_mamba.scan import selective_scan

# Step sizes at the start (Gu & Dao 2023): some channels remember a thousand pixels, some ten.
SHORTEST, LONGEST = 1e-3, 1e-1


class GuidedStateSpace(nn.Module):
    """SS2D: pixels in raster order (row by row, one direction) through `selective_scan`, with a gate and projections.

    What a state takes up and gives out (B and C) is chosen by the low-frequency stream x, as in Mamba, plus a part
    chosen by the high-frequency stream: an edge may decide where the memory is written. Step sizes, B and C are then
    smoothed along the sequence, looking both ways, which gives the one-directional scan some sight of what follows.

    Args:
        channels: of both streams; twice as many inside.
        state: numbers per channel that the scan remembers.
        dropout: of the output.
        kernel, dilation: of the smoothing; 7 in HiFi-Mamba, 11 in V2.

    `forward` maps (batch, y, x, channels) and a guide of the same shape to that shape.
    """

    def __init__(
        self, channels: int, state: int = 16, dropout: float = 0.1, kernel: int = 11, dilation: int = 2
    ) -> None:
        super().__init__()
        inner, rank = 2 * channels, math.ceil(channels / 16)
        self.sizes = (rank, state, state)
        self.enter = nn.Linear(channels, 2 * inner, bias=False)
        self.local = nn.Conv2d(inner, inner, 3, padding=1, groups=inner)
        self.select = nn.Linear(inner, sum(self.sizes), bias=False)
        self.guide = nn.Linear(channels, inner, bias=False)
        self.select_by_guide = nn.Linear(inner, 2 * state, bias=False)
        self.gate_B, self.gate_C = GatedUnit(state), GatedUnit(state)
        self.smooth = nn.Conv1d(
            sum(self.sizes),
            sum(self.sizes),
            kernel,
            padding=dilation * (kernel // 2),
            dilation=dilation,
            groups=sum(self.sizes),
            bias=False,
        )
        self.step = nn.Linear(rank, inner)
        self.log_rate = nn.Parameter(torch.arange(1.0, state + 1).log().repeat(inner, 1))
        self.skip = nn.Parameter(torch.ones(inner))
        self.leave = nn.Linear(inner, channels, bias=False)
        self.dropout = nn.Dropout(dropout)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Mamba's start: step sizes spread evenly in the logarithm; the guide selects as the stream itself does."""
        rank = self.sizes[0]
        nn.init.uniform_(self.step.weight, -(rank**-0.5), rank**-0.5)
        log_range = math.log(SHORTEST), math.log(LONGEST)
        step = torch.empty_like(self.step.bias).uniform_(*log_range).exp()
        with torch.no_grad():
            # The inverse of softplus.
            self.step.bias.copy_(step + torch.log(-torch.expm1(-step)))
            self.select_by_guide.weight.copy_(self.select.weight[rank:])

    def forward(self, x: Tensor, guide: Tensor) -> Tensor:
        u, z = self.enter(x).chunk(2, -1)
        u = F.silu(self.local(u.movedim(-1, 1))).movedim(1, -1)
        size = u.shape[1:3]
        u = u.flatten(1, 2)
        step, B, C = self.select(u).split(self.sizes, -1)
        guide_B, guide_C = self.select_by_guide(self.guide(guide.flatten(1, 2))).chunk(2, -1)
        chosen = torch.cat([step, B + self.gate_B(guide_B), C + self.gate_C(guide_C)], -1)
        step, B, C = self.smooth(chosen.transpose(1, 2)).transpose(1, 2).split(self.sizes, -1)
        y = selective_scan(u, F.softplus(self.step(step)), -self.log_rate.exp(), B, C, self.skip)
        return self.dropout(self.leave(y.unflatten(1, size) * F.silu(z)))
