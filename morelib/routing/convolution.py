"""A convolution that is as fast with few channels as with many, on a processor. Same weights, same result.

A processor computes `AT_ONCE` numbers at a time: that many output channels of one pixel. Of eight channels it throws
half away, of two nearly all. But neighbouring pixels whose channels come last lie side by side in memory, so that two
pixels of eight channels are one pixel of sixteen, and nothing has to be moved:

* The convolution computes n pixels at a time, as the outputs of n copies of its kernel, each shifted by a pixel. The
  zeros around the copies cost less than the empty places did: with a 5x5 kernel and two channels a third of the time.
* The gradient of its weights is that of a convolution between such wider pixels, which holds every product twice as
  often as needed, in pieces to be added. With 9 to 15 channels, which do not suit the library, it takes half the time.
  Where inputs have more channels than outputs they change places, and the kernel comes out turned by half a circle.
* The library shares the gradient of weights among threads by samples and blocks of channels. One sample of few channels
  it leaves to one thread. Slabs of lines make as many samples as there are threads.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from morelib.routing.rows import AT_ONCE

MANY = 2**15  # pixels: with fewer it takes longer to arrange than to convolve

plain: ContextVar[bool] = ContextVar("plain", default=False)


@contextmanager
def plainly() -> Iterator[None]:
    """Convolutions as they are written down, for a while: so that operations are counted alike for every network."""
    token = plain.set(True)
    try:
        yield
    finally:
        plain.reset(token)


class Convolution(nn.Conv2d):
    """(batch, in_channels, y, x) to (batch, out_channels, y, x) by an odd square kernel, padded by zeros, no bias."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int) -> None:
        super().__init__(in_channels, out_channels, kernel, padding=kernel // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return convolve(x, self.weight)


def convolve(x: Tensor, weight: Tensor) -> Tensor:
    """`Convolution` with a given weight (out_channels, in_channels, k, k)."""
    out_channels, in_channels, *_ = weight.shape
    if not _worthwhile(x) or (
        _pixels(out_channels, x) == 1 and not _awkward(in_channels) and _slabs(x, weight.shape) == 1
    ):
        return F.conv2d(x, weight, padding=weight.shape[-1] // 2)
    out: Tensor = _Convolution.apply(x, weight)
    return out


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        out = correlate(x, weight)
        # The same memory, no longer as a view of it, in which an activation could not be computed in place.
        return x.new_empty(0).set_(out.untyped_storage(), 0, out.shape, out.stride())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        (x, weight), (by_x, by_weight) = ctx.saved_tensors, ctx.needs_input_grad
        grad = grad.contiguous(memory_format=torch.channels_last)
        return (
            input_gradient(grad, weight) if by_x else None,
            weight_gradient(x, grad, weight.shape) if by_weight else None,
        )


def correlate(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """The value of `convolve`, and a bias (out_channels,): by n pixels at a time."""
    n, padding = _pixels(len(weight), x), weight.shape[-1] // 2
    if n == 1:
        return F.conv2d(x, weight, bias, padding=padding)
    copies = [F.pad(weight, (shift, n - 1 - shift)) for shift in range(n)]
    biases = None if bias is None else bias.repeat(n)
    return _apart(F.conv2d(x, torch.cat(copies), biases, stride=(1, n), padding=padding), n)


def input_gradient(grad: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """The gradient of `convolve` for its input (batch, in_channels, y, x), from that of its output; plus a bias.

    What a pixel gave to its neighbours comes back from them: the kernel, turned by half a circle.
    """
    return correlate(grad, weight.transpose(0, 1).flip(2, 3), bias)


def weight_gradient(x: Tensor, grad: Tensor, shape: Sequence[int]) -> Tensor:
    """The gradient of `convolve` for a weight of this shape, from its input and its output's gradient."""
    out_channels, in_channels, kernel, _ = shape
    reach = kernel // 2
    n = _pixels(out_channels, grad)
    if n > 1 and in_channels > out_channels:
        turned = weight_gradient(grad, x, (in_channels, out_channels, kernel, kernel))
        return turned.transpose(0, 1).flip(2, 3)
    if n == 1 and _awkward(in_channels) and _worthwhile(grad):
        n = math.gcd(2, x.shape[-1])
    if n == 1:
        return _by_slabs(x, grad, shape, (reach, reach))
    # Neighbours at a distance of `reach` are in wide pixels at a distance of at most:
    wide_reach = -(-reach // n)
    wide_shape = (n * out_channels, n * in_channels, kernel, 2 * wide_reach + 1)
    wide = _by_slabs(_joined(x, n), _joined(grad, n), wide_shape, (reach, wide_reach))
    pieces = wide.unflatten(0, (n, -1)).unflatten(2, (n, -1))  # (n, out, n, in, y, x)
    columns = []
    for distance in range(-reach, reach + 1):
        # The output is pixel `shift` of its wide pixel; where its neighbour is.
        places = [(shift, *divmod(shift + distance, n)) for shift in range(n)]
        columns.append(sum(pieces[shift, :, pixel, ..., wide_reach + step] for shift, step, pixel in places))
    return torch.stack(columns, -1)


def _by_slabs(x: Tensor, grad: Tensor, shape: Sequence[int], padding: tuple[int, int]) -> Tensor:
    """A weight's gradient, computed by all threads: each takes a slab of lines."""
    n, reach = _slabs(x, shape), padding[0]
    if n == 1:
        return _of_weight(x, grad, shape, padding)
    lines = x.shape[2] // n

    def slabs(maps: Tensor) -> Tensor:
        return maps.unflatten(2, (n, lines)).transpose(1, 2).flatten(0, 1)

    def seams(maps: Tensor) -> Tensor:
        """The lines within reach of two slabs."""
        between = maps[:, :, lines - reach : -reach].unflatten(2, (n - 1, lines))[:, :, :, : 2 * reach]
        return between.transpose(1, 2).flatten(0, 1)

    def sides(maps: Tensor) -> Tensor:
        return maps.unflatten(2, (2, reach)).transpose(1, 2).flatten(0, 1)

    # A slab does not see its neighbour; what it misses is what the lines along a seam see, but for each side alone.
    x_seams, grad_seams = seams(x), seams(grad)
    return (
        _of_weight(slabs(x), slabs(grad), shape, padding)
        + _of_weight(x_seams, grad_seams, shape, padding)
        - _of_weight(sides(x_seams), sides(grad_seams), shape, padding)
    )


def _slabs(x: Tensor, shape: Sequence[int]) -> int:
    """How many slabs: as many as there are threads for each block of channels of a sample, which the library shares."""
    blocks = len(x) * math.prod(-(-channels // AT_ONCE) for channels in shape[:2])
    n = math.gcd(torch.get_num_threads() // blocks, x.shape[2])
    seam = shape[2] - 1  # lines; none for a 1x1 kernel
    return n if n > 1 and x.shape[2] // n >= seam > 0 and _worthwhile(x) else 1


def _of_weight(x: Tensor, grad: Tensor, shape: Sequence[int], padding: tuple[int, int]) -> Tensor:
    """PyTorch's, which looks at the shape and the layout of the weight only."""
    weight = torch.empty(shape, dtype=x.dtype, memory_format=torch.channels_last)
    one, none = (1, 1), (0, 0)
    by_weight: Tensor = torch.ops.aten.convolution_backward(
        grad, x, weight, None, one, padding, one, False, none, 1, (False, True, False)
    )[1]
    return by_weight


def _pixels(out_channels: int, x: Tensor) -> int:
    """How many pixels of so many channels fill what is computed at once; a power of two that divides a row of x."""
    fill = max(AT_ONCE // out_channels, 1)
    return math.gcd(2 ** (fill.bit_length() - 1), x.shape[-1]) if _worthwhile(x) else 1


def _awkward(in_channels: int) -> bool:
    return AT_ONCE // 2 < in_channels < AT_ONCE


def _worthwhile(x: Tensor) -> bool:
    """Whether pixels are many and lie as they must, on a processor with the kernels that this was measured with."""
    return (
        by_hand(x)  # first: of what follows a compiler can make no graph
        and not plain.get()
        and x.shape[-2] * x.shape[-1] >= MANY
        and torch.backends.cpu.get_cpu_capability() == "AVX512"
    )


def by_hand(x: Tensor) -> bool:
    """Whether gradients written by hand for a processor are meant for x: channels last, eager, no autocast."""
    return (
        x.device.type == "cpu"
        and x.is_contiguous(memory_format=torch.channels_last)
        and not torch.compiler.is_compiling()
        and not torch.is_autocast_enabled("cpu")
    )


def _joined(maps: Tensor, n: int) -> Tensor:
    """n pixels of a row as one: (batch, channels, y, x) to (batch, n * channels, y, x / n), a view."""
    return maps.movedim(1, -1).unflatten(2, (-1, n)).flatten(3).movedim(-1, 1)


def _apart(maps: Tensor, n: int) -> Tensor:
    """The inverse of `_joined`."""
    return maps.movedim(1, -1).unflatten(3, (n, -1)).flatten(2, 3).movedim(-1, 1)
