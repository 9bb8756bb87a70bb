"""The channel-attention block on one sample and a processor, with its gradient written by hand.

A processor waits for memory: maps of a full-size slice do not fit into its cache, and PyTorch passes over them thirty
times for one block. Here it is half as often, and two maps are kept for the gradient instead of four.

* The PReLU overwrites its input. By a positive slope it can be undone.
* f, the output of the second convolution, is overwritten by the block's. The gradient needs f in one place only, the
  sum over the pixels of g f, g the gradient of the block's output. But f is the kernel times pixels, so that this sum
  is the kernel times what its gradient would be if f were the block's output.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from morelib.routing.convolution import convolve, input_gradient, weight_gradient
from morelib.routing.rows import as_maps, line_sums, per_channel, pixel_sums, rows

LARGE = 2**17  # pixels: maps of fewer stay in the cache, where PyTorch's way is as fast


class OneSample(torch.autograd.Function):
    """x + s f with f = conv(prelu(conv(x))), s = sigmoid(E relu(S mean(f))), the mean over (y, x).

    x: (1, channels, y, x), channels-last. slope: of the PReLU, positive, (1,). S: squeeze, (bottleneck, channels).
    E: excite, (channels, bottleneck).
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, first: Tensor, slope: Tensor, second: Tensor, squeeze: Tensor, excite: Tensor
    ) -> Tensor:
        inner = F.leaky_relu_(convolve(x, first), slope.item())
        features = convolve(inner, second)
        mean = pixel_sums(features) / x[0, 0].numel()
        bottleneck, scale = attention(mean, squeeze, excite)
        ctx.save_for_backward(x, inner, first, slope, second, squeeze, excite, mean, bottleneck, scale)
        values = rows(features)
        torch.addcmul(rows(x), _spread(scale, x), values, out=values)
        return as_maps(values, x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        x, inner, first, slope, second, squeeze, excite, *small = ctx.saved_tensors
        grad, scale = grad.contiguous(memory_format=torch.channels_last), small[-1]
        alone = weight_gradient(inner, grad, second.shape)
        by_scale = (alone * second).sum((1, 2, 3)).unsqueeze(0)
        by_mean, *by_matrices = attention_gradient(by_scale, squeeze, excite, *small)
        by_mean = by_mean / x[0, 0].numel()
        by_features = as_maps(torch.addcmul(_spread(by_mean, x), _spread(scale, x), rows(grad)), x)
        by_second = _each(scale) * alone + _each(by_mean) * window_sums(inner)
        by_inner = input_gradient(by_features, second)
        by_slope = _through_prelu(by_inner, inner, slope)
        by_first = weight_gradient(x, by_inner, first.shape)
        return input_gradient(by_inner, first).add_(grad), by_first, by_slope, by_second, *by_matrices


def attention(mean: Tensor, squeeze: Tensor, excite: Tensor) -> tuple[Tensor, Tensor]:
    """The bottleneck of channel means (batch, channels), and the scale of each channel in (0, 1)."""
    bottleneck = F.linear(mean, squeeze).relu()
    return bottleneck, F.linear(bottleneck, excite).sigmoid()


def attention_gradient(
    by_scale: Tensor, squeeze: Tensor, excite: Tensor, mean: Tensor, bottleneck: Tensor, scale: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """From the gradient of the scale those of the mean and of both matrices."""
    by_excited = by_scale * scale * (1 - scale)
    by_squeezed = (by_excited @ excite) * (bottleneck > 0)
    return by_squeezed @ squeeze, by_squeezed.T @ mean, by_excited.T @ bottleneck


def window_sums(maps: Tensor) -> Tensor:
    """The sum of the pixels that each tap of a 3x3 kernel sees of maps padded by zeros: (batch, channels, 3, 3).

    The tap in the middle sees all of them, one at the rim all but a row or a column at the other end.
    """
    lines, every = maps.movedim(1, -1), line_sums(maps)
    columns = torch.stack([every - lines[:, -1], every, every - lines[:, 0]], 1)  # (batch, 3, x, channels)
    every = columns.sum(2)
    return torch.stack([every - columns[:, :, -1], every, every - columns[:, :, 0]], -1).transpose(1, 2)


def _through_prelu(grad: Tensor, out: Tensor, slope: Tensor) -> Tensor:
    """Turns the gradient of a PReLU's output into that of its input, in place. Returns that of the slope."""
    factor = slope.item()
    pixels, values = (maps.movedim(1, -1).flatten() for maps in (grad, out))
    by_slope = torch.dot(pixels, values.clamp(max=0)).view_as(slope) / factor
    torch.ops.aten.leaky_relu_backward(pixels, values, factor, True, grad_input=pixels)
    return by_slope


def _spread(numbers: Tensor, maps: Tensor) -> Tensor:
    return per_channel(numbers[..., None, None], maps)


def _each(numbers: Tensor) -> Tensor:
    """Numbers (1, channels), one for the kernel of each output channel."""
    return numbers.view(-1, 1, 1, 1)
