"""The channel-attention block: two convolutions whose output channels are rescaled by what the channels hold."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ChannelAttentionBlock(nn.Module):
    """x + scale * (conv3x3 - PReLU - conv3x3)(x), scale in (0, 1) per channel from the global mean.

    (batch, channels, y, x) in and out. No normalisation and no bias. The PReLU is the block's own.

    Args:
        channels: width of the block.
        reduction: the attention's bottleneck is channels // reduction wide, at least 1.

    Source: Fig. 1c of the paper, after RCAN (Zhang 2018).
    """

    def __init__(self, channels: int, reduction: int = 4) -> None:
        super().__init__()
        bottleneck = max(channels // reduction, 1)
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.PReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
        )
        self.attention = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, bottleneck, 1, bias=False),
            nn.ReLU(),
            nn.Conv2d(bottleneck, channels, 1, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        features = self.body(x)
        scale = self._scale(features.mean((-2, -1)))
        return torch.addcmul(x, scale[..., None, None], features)

    def _scale(self, mean: Tensor) -> Tensor:
        """The attention of channel means (batch, channels): 1x1 convolutions of single pixels, as matrix products."""
        _, squeeze, activation, excite, _ = self.attention
        assert isinstance(squeeze, nn.Conv2d) and isinstance(excite, nn.Conv2d)  # for type checkers
        inner = activation(F.linear(mean, squeeze.weight.flatten(1)))
        return F.linear(inner, excite.weight.flatten(1)).sigmoid()

    def pooled(self, x: Tensor) -> Tensor:
        """The mean of `forward(x)` over (y, x), (batch, channels), exactly, without the second convolution's maps.

        Each tap of a kernel sees a window of the convolution's input: all of it but for a row or a column at the rim,
        where the padding is. So the mean of the output is linear in the sums of the input over nine windows.
        """
        first, activation, second = self.body
        assert isinstance(second, nn.Conv2d)  # which nn.Sequential does not tell type checkers
        pixels = activation(first(x)).movedim(1, -1).flatten(1, 2)
        sums = _windows(x) @ pixels
        mean = torch.einsum("bwc,ocw->bo", sums, second.weight.flatten(2)) / pixels.shape[1]
        return x.mean((-2, -1)) + self._scale(mean) * mean


def _windows(x: Tensor) -> Tensor:
    """The pixels that each tap of a 3x3 kernel sees of x (batch, channels, y, x) padded by zeros, as (9, y * x)."""
    seen_y, seen_x = (x.new_ones(3, n).tril(n - 2).triu(-1) for n in x.shape[-2:])
    return torch.einsum("iy,jx->ijyx", seen_y, seen_x).flatten(2).flatten(0, 1)
