"""The channel-attention block on one sample and a processor, with its gradient written by hand.

A processor waits for memory: maps of a full-size slice do not fit into its cache. So passes over them are joined with
passes that a convolution makes anyway, and two maps are kept for the gradient instead of four.

* The PReLU overwrites its input. By a positive slope it can be undone.
* The attention needs the means of f, the output of the second convolution, and these are linear in sums of its input
  (`window_sums`). So the scale s is known before f, and s f is one convolution with the scaled kernel.
* The gradient reaches the attention through the sums alone. What it adds to the convolution's input is one number per
  channel, but for the rim: a bias.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from morelib.routing.convolution import correlate, input_gradient, weight_gradient
from morelib.routing.rows import line_sums

IN_CACHE = 2**19  # numbers to work on at a time


class OneSample(torch.autograd.Function):
    """x + s f with f = conv(prelu(conv(x))), s = sigmoid(E relu(S mean(f))), the mean over (y, x).

    x: (1, channels, y, x), channels-last, y and x at least two. slope: of the PReLU, positive, (1,).
    S: squeeze, (bottleneck, channels). E: excite, (channels, bottleneck).
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, first: Tensor, slope: Tensor, second: Tensor, squeeze: Tensor, excite: Tensor
    ) -> Tensor:
        inner = F.leaky_relu_(correlate(x, first), slope.item())
        sums = window_sums(inner)
        mean = mean_of_convolution(sums, second, inner)
        bottleneck, scale = attention(mean, squeeze, excite)
        ctx.save_for_backward(x, inner, first, slope, second, sums, squeeze, excite, mean, bottleneck, scale)
        return correlate(inner, _each(scale) * second).add_(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        x, inner, first, slope, second, sums, squeeze, excite, *small = ctx.saved_tensors
        grad, scale = grad.contiguous(memory_format=torch.channels_last), small[-1]
        by_scaled = weight_gradient(inner, grad, second.shape)
        by_scale = (by_scaled * second).sum((1, 2, 3)).unsqueeze(0)
        by_mean, *by_matrices = attention_gradient(by_scale, squeeze, excite, *small)
        by_mean = by_mean / x[0, 0].numel()
        by_second = _each(scale) * by_scaled + _each(by_mean) * sums
        by_sums = (by_mean @ second.flatten(1)).view_as(sums)
        by_inner = input_gradient(grad, _each(scale) * second, bias=by_sums.sum((0, 2, 3)))
        _leave_rim(by_inner, by_sums)
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


def mean_of_convolution(sums: Tensor, kernel: Tensor, maps: Tensor) -> Tensor:
    """The mean over (y, x) of the maps' convolution with a 3x3 kernel, (batch, out_channels), from `window_sums`."""
    return F.linear(sums.flatten(1), kernel.flatten(1)) / maps[0, 0].numel()


def _leave_rim(maps: Tensor, by_sums: Tensor) -> None:
    """Make a gradient through `window_sums` of what was added to every pixel: no tap sees all of them."""
    *_, height, width = maps.shape
    # The last row of taps does not see the first line, nor the first row of taps the last line.
    unseen = by_sums[:, :, ::2, ::2].flip(2, 3)
    maps[:, :, :: height - 1] -= by_sums[:, :, ::2].sum(-1).flip(2)[..., None]
    maps[..., :: width - 1] -= by_sums[..., ::2].sum(-2).flip(2)[:, :, None]
    maps[:, :, :: height - 1, :: width - 1] += unseen  # subtracted twice


def _through_prelu(grad: Tensor, out: Tensor, slope: Tensor) -> Tensor:
    """Turns the gradient of a PReLU's output into that of its input, in place. Returns that of the slope."""
    factor, by_slope = slope.item(), torch.zeros_like(slope)
    grads, outs = (maps.movedim(1, -1).flatten().split(IN_CACHE) for maps in (grad, out))
    for pixels, values in zip(grads, outs, strict=True):
        by_slope += torch.dot(pixels, values.clamp(max=0))
        torch.ops.aten.leaky_relu_backward(pixels, values, factor, True, grad_input=pixels)
    return by_slope / factor


def _each(numbers: Tensor) -> Tensor:
    """Numbers (1, channels), one for the kernel of each output channel."""
    return numbers.view(-1, 1, 1, 1)
