"""Cross-frequency consensus: how far the high-frequency stream believes what the pyramid just split off the low one."""

import math

import torch
from torch import Tensor, nn


class Consensus(nn.Module):
    """high, residual -> w residual + (1 - w) high, with w in (0, 1) for each pixel from how well the two agree.

    Agreement is the cosine between the two channel vectors of a pixel: detail points the same way in both streams,
    noise and aliasing do not. A learned gain, at first 2, says how sharply agreement counts. Tensors are
    (batch, channels, y, x).
    """

    def __init__(self) -> None:
        super().__init__()
        self.log_gain = nn.Parameter(torch.tensor(math.log(2.0)))

    def forward(self, high: Tensor, residual: Tensor) -> Tensor:
        weight = self.weight(high, residual)
        return weight * residual + (1 - weight) * high

    def weight(self, high: Tensor, residual: Tensor) -> Tensor:
        """w, (batch, 1, y, x): above one half where the streams agree, below where they contradict each other."""
        # Unlike the square root of a sum, the norm has a gradient at zero: a pixel without signal gives no NaN.
        lengths = torch.linalg.vector_norm(high, dim=1) * torch.linalg.vector_norm(residual, dim=1)
        cosine = (high * residual).sum(1) / (lengths + 1e-6)
        return torch.sigmoid(self.log_gain.exp() * cosine).unsqueeze(1)
