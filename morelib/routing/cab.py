"""The channel-attention block: two convolutions whose output channels are rescaled by what the channels hold."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from morelib.routing.cab_gradient import (
    OneSample,
    attention,
    attention_gradient,
    mean_of_convolution,
    window_sums,
)
from morelib.routing.convolution import MANY, Convolution, by_hand
from morelib.routing.rows import as_maps, per_channel, pixel_sums, rows


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
            Convolution(channels, channels, 3),
            _PReLU(),
            Convolution(channels, channels, 3),
        )
        self.attention = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, bottleneck, 1, bias=False),
            nn.ReLU(),
            nn.Conv2d(bottleneck, channels, 1, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        first, activation, second = self.body
        assert isinstance(activation, _PReLU)  # which nn.Sequential does not tell type checkers
        # Only a processor can be asked for the slope without a wait.
        if _by_one_sample(x) and by_hand(x) and activation.weight.item() > 0:
            kernels = first.weight, activation.weight, second.weight
            out: Tensor = OneSample.apply(x, *kernels, *self._matrices())
            return out
        features = self.body(x)
        if torch.compiler.is_compiling():  # which finds such gradients itself
            return torch.addcmul(x, self._scale(features.mean((-2, -1)))[..., None, None], features)
        out = _AddScaled.apply(x, features, *self._matrices())
        return out

    def _scale(self, mean: Tensor) -> Tensor:
        """The attention of channel means (batch, channels): 1x1 convolutions of single pixels, as matrix products."""
        return attention(mean, *self._matrices())[1]

    def _matrices(self) -> tuple[Tensor, Tensor]:
        """The attention's kernels, (bottleneck, channels) and (channels, bottleneck)."""
        _, squeeze, _, excite, _ = self.attention
        assert isinstance(squeeze, nn.Conv2d) and isinstance(excite, nn.Conv2d)  # for type checkers
        return squeeze.weight.flatten(1), excite.weight.flatten(1)

    def pooled(self, x: Tensor) -> Tensor:
        """The mean of `forward(x)` over (y, x), (batch, channels), exactly, without the second convolution's maps.

        Each tap of a kernel sees a window of the convolution's input: all of it but for a row or a column at the rim,
        where the padding is. So the mean of the output is linear in the sums of the input over nine windows.
        """
        first, activation, second = self.body
        assert isinstance(second, Convolution)  # which nn.Sequential does not tell type checkers
        inner = activation(first(x))
        mean = mean_of_convolution(window_sums(inner), second.weight, inner)
        return x.mean((-2, -1)) + self._scale(mean) * mean


def _by_one_sample(x: Tensor) -> bool:
    """Whether x suits `OneSample`. Small maps stay in the cache, where PyTorch's gradients are as fast."""
    batch, _, height, width = x.shape
    many = height * width >= MANY or not torch.is_grad_enabled()
    return batch == 1 and min(height, width) > 1 and many


# Two operations with gradients that pass over the pixels fewer times than PyTorch's, as a processor waits for memory.


class _PReLU(nn.PReLU):
    """One slope for all channels."""

    def forward(self, x: Tensor) -> Tensor:
        if torch.compiler.is_compiling():
            return super().forward(x)
        out: Tensor = _PReLUFunction.apply(x, self.weight)
        return out


class _PReLUFunction(torch.autograd.Function):
    """F.prelu, whose own backward writes what each pixel adds to the slope's gradient in a tensor, and then sums."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, slope: Tensor) -> Tensor:
        ctx.save_for_backward(x, slope)
        return F.prelu(x, slope)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        x, slope = ctx.saved_tensors
        positive = torch.ops.aten.threshold_backward(grad, x, 0)
        grad_x = torch.lerp(positive, grad, slope.to(grad.dtype))
        negative = torch.sub(grad, positive, out=positive)
        return grad_x, negative.mul_(x).sum(dtype=slope.dtype).view_as(slope)


class _AddScaled(torch.autograd.Function):
    """x + s * f with s = sigmoid(E relu(S mean(f))), the mean of f over (y, x).

    x, f: (batch, channels, y, x). S: squeeze, (bottleneck, channels). E: excite, (channels, bottleneck).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, features: Tensor, squeeze: Tensor, excite: Tensor) -> Tensor:
        mean = pixel_sums(features) / features[0, 0].numel()
        inner, scale = attention(mean, squeeze, excite)
        ctx.save_for_backward(features, squeeze, excite, mean, inner, scale)
        spread = per_channel(scale[..., None, None].to(features.dtype), x)
        return as_maps(torch.addcmul(rows(x), spread, rows(features)), x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        features, squeeze, excite, *small = ctx.saved_tensors
        # Short formats under autocast, which does not reach a backward pass.
        mean, inner, scale = (each.to(squeeze.dtype) for each in small)
        grads = rows(grad)
        by_scale = pixel_sums(as_maps(grads * rows(features), features), dtype=scale.dtype)
        by_mean, *by_matrices = attention_gradient(by_scale, squeeze, excite, mean, inner, scale)
        by_mean = by_mean / features[0, 0].numel()
        offset, factor = (
            per_channel(each[..., None, None].to(features.dtype), features) for each in (by_mean, scale)
        )
        by_features = as_maps(torch.addcmul(offset, grads, factor), features)
        return grad, by_features, *by_matrices
