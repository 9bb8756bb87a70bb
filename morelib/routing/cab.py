"""The channel-attention block: two convolutions whose output channels are rescaled by what the channels hold."""

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
        return x + self.attention(features) * features
