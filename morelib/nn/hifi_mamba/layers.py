"""The small layers of a HiFi-MambaV2 block: inverted bottleneck, global context, channel attention, drop path."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class InvertedBottleneck(nn.Module):
    """x + GELU(1x1(GELU(norm(depthwise 3x3(GELU(norm(1x1(x)))))))), five times as wide inside (DWIB).

    (batch, channels, y, x) in and out. The norm is taken over a whole sample, so the layer does not see the batch.
    """

    def __init__(self, channels: int, expansion: int = 5) -> None:
        super().__init__()
        inner = expansion * channels
        self.body = nn.Sequential(
            nn.Conv2d(channels, inner, 1, bias=False),
            nn.GroupNorm(1, inner),
            nn.GELU(),
            nn.Conv2d(inner, inner, 3, padding=1, groups=inner, bias=False),
            nn.GroupNorm(1, inner),
            nn.GELU(),
            nn.Conv2d(inner, channels, 1, bias=False),
            nn.GELU(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class GlobalContext(nn.Module):
    """The global context path: normalised features, each channel scaled by what the whole image says about it.

    (batch, y, x, channels) in and out. Source: squeeze and excitation (Hu 2018), bottleneck width / 8, at least 4.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        bottleneck = max(channels // 8, 4)
        self.squeeze = nn.Linear(channels, bottleneck, bias=False)
        self.excite = nn.Linear(bottleneck, channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        gate = torch.sigmoid(self.excite(F.relu(self.squeeze(x.mean((1, 2))))))
        return x * gate[:, None, None]


class ChannelAttention(nn.Module):
    """Each channel scaled by sigmoid(a GELU(W mean + b) + c), the mean taken over the image.

    (batch, y, x, channels) in and out. The published code has a depthwise 3x3 convolution in place of a and c. On a
    map of one pixel only its middle tap acts, and that is a.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mix = nn.Linear(channels, channels)
        # The spread that a 3x3 convolution starts with.
        self.scale = nn.Parameter(torch.empty(channels).uniform_(-1 / 3, 1 / 3))
        self.shift = nn.Parameter(torch.empty(channels).uniform_(-1 / 3, 1 / 3))

    def forward(self, x: Tensor) -> Tensor:
        gate = torch.sigmoid(self.scale * F.gelu(self.mix(x.mean((1, 2)))) + self.shift)
        return x * gate[:, None, None]


class DropPath(nn.Module):
    """Stochastic depth (Huang 2016): in training a sample skips this branch with the given probability.

    Surviving branches are scaled up, so that the mean stays. Any shape with the batch first.
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.probability == 0:
            return x
        keep = torch.rand(len(x), *[1] * (x.ndim - 1), device=x.device) >= self.probability
        return x * keep / (1 - self.probability)


class GatedUnit(nn.Module):
    """GEGLU (Shazeer 2020): a gelu-gated product of two linear maps, six times as wide, and back. Last axis."""

    def __init__(self, features: int, expansion: int = 6) -> None:
        super().__init__()
        self.enter = nn.Linear(features, 2 * expansion * features, bias=False)
        self.leave = nn.Linear(expansion * features, features, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.enter(x).chunk(2, -1)
        return self.leave(F.gelu(gate) * value)
