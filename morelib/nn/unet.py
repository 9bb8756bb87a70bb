"""A U-Net in two halves, encoder and decoder, so that one encoder can serve several decoders.

Its input comes channels-last through the `Door`, and every layer keeps it so: on a processor such convolutions take
half the time. Activations are computed in place: a convolution does not need its own output for the gradient.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from morelib.nn.activation import Activation, Norm
from morelib.routing.convolution import Convolution, convolve


class ConvBlock(nn.Sequential):
    """Twice: 3x3 convolution without bias, optional instance norm, leaky ReLU (0.2)."""

    def __init__(self, in_channels: int, out_channels: int, norm: Norm) -> None:
        super().__init__(
            Convolution(in_channels, out_channels, 3),
            Activation(norm),
            Convolution(out_channels, out_channels, 3),
            Activation(norm),
        )


class Encoder(nn.Module):
    """Blocks of the given widths with 2x2 average pooling between them.

    Args:
        in_channels: channels of the input.
        widths: one per level; the last is the bottleneck.
        norm: `none` as the paper describes its baseline, or `instance` as fastMRI publishes it.
    """

    def __init__(self, in_channels: int, widths: Sequence[int], norm: Norm = "none") -> None:
        super().__init__()
        self.blocks = nn.ModuleList(ConvBlock(i, o, norm) for i, o in pairwise([in_channels, *widths]))

    def forward(self, x: Tensor) -> list[Tensor]:
        """(batch, in_channels, y, x) to the features E_1 .. E_L, finest first."""
        features: list[Tensor] = []
        for block in self.blocks:
            x = block(F.avg_pool2d(features[-1], 2) if features else x)
            features.append(x)
        return features


class Decoder(nn.Module):
    """From the bottleneck back to full size: transposed convolution, skip, block; last a 1x1 convolution with bias.

    Args:
        out_channels: channels of the output.
        widths: the encoder's widths, finest first.
        norm: as for the encoder.
        zero_init: start the last convolution at zero, so that the correction starts as none. Compared
            networks must start with the same residual scale, or the comparison measures the scale.
    """

    def __init__(
        self, out_channels: int, widths: Sequence[int], norm: Norm = "none", zero_init: bool = False
    ) -> None:
        super().__init__()
        steps = list(pairwise(reversed(widths)))
        self.up = nn.ModuleList(
            nn.Sequential(nn.ConvTranspose2d(i, o, 2, stride=2, bias=False), Activation(norm))
            for i, o in steps
        )
        self.blocks = nn.ModuleList(ConvBlock(2 * o, o, norm) for _, o in steps)
        self.last = nn.Conv2d(widths[0], out_channels, 1)
        if zero_init:
            nn.init.zeros_(self.last.weight)
            assert self.last.bias is not None
            nn.init.zeros_(self.last.bias)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Features E_1 .. E_L, finest first, to (batch, out_channels, y, x)."""
        *skips, x = features
        for up, block, skip in zip(self.up, self.blocks, reversed(skips), strict=True):
            enlarge, activate = up.children()
            assert isinstance(enlarge, nn.ConvTranspose2d)  # which nn.Sequential does not tell type checkers
            x = enlarge_by_matrix(x, enlarge.weight) if x.is_cuda else enlarge(x)
            if x.shape[-2:] != skip.shape[-2:]:
                x = block(torch.cat([_fit(activate(x), skip), skip], 1))
            elif torch.is_grad_enabled() or x.is_cuda:
                x = block(activate(x, skip))
            else:
                # On a processor as few large maps as can be: such memory, once free, goes back to the system and comes
                # again page by page, filled with zeros. Without joined channels a reconstruction takes a sixth less.
                x = activate(x)
                first, *others = block.children()
                assert isinstance(first, Convolution)
                of_x, of_skip = first.weight.split([x.shape[1], skip.shape[1]], 1)
                x = convolve(x, of_x)
                x.add_(convolve(skip, of_skip))
                for layer in others:
                    x = layer(x)
        return self.last(x)


def enlarge_by_matrix(x: Tensor, kernel: Tensor) -> Tensor:
    """The transposed convolution of 2x2 kernels (in, out, 2, 2) with stride 2 as a matrix product, what it is.

    For GPUs, whose library has no fast kernel for so few channels; on a processor the convolution is faster.
    """
    batch, _, height, width = x.shape
    pixels = F.linear(x.movedim(1, -1), kernel.permute(2, 3, 1, 0).flatten(0, 2))
    squares = pixels.unflatten(-1, (2, 2, -1)).transpose(2, 3)  # (batch, y, 2, x, 2, out)
    return squares.reshape(batch, 2 * height, 2 * width, -1).movedim(-1, 1)


def _fit(x: Tensor, skip: Tensor) -> Tensor:
    """Pad right and bottom by reflection where pooling an odd size lost a row or column."""
    missing_y, missing_x = skip.shape[-2] - x.shape[-2], skip.shape[-1] - x.shape[-1]
    return F.pad(x, (0, missing_x, 0, missing_y), "reflect")


class UNet(nn.Module):
    """Encoder and one decoder (Ronneberger 2015, in fastMRI's form). (batch, in, y, x) to (batch, out, y, x)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        widths: Sequence[int],
        norm: Norm = "none",
        zero_init: bool = False,
    ) -> None:
        super().__init__()
        self.encoder = Encoder(in_channels, widths, norm)
        self.decoder = Decoder(out_channels, widths, norm, zero_init)

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.encoder(x))
