"""Instance norm and leaky ReLU as two Triton kernels each way, for channels-last tensors on a GPU.

Made of PyTorch's operations they are ten passes over memory forward and more backward. Here a first kernel reads the
tensor for its sums, and a second one reads it again and writes the result: three passes forward, five backward.
"""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

import torch
import triton  # comes with PyTorch for CUDA on Linux, and with no other
import triton.language as tl
from torch import Tensor

NUMBERS = 4096  # of a tile: pixels times channels, both powers of two
MOST_PARTS = 256  # programs that share an image; the second kernel adds up what each of them found


def usable(x: Tensor) -> bool:
    """Whether the kernels can run on x (batch, channels, y, x): on a GPU, channels last, all of them or the first."""
    rows_follow = x.stride(2) == x.stride(3) * x.shape[3]
    return x.is_cuda and x.dtype != torch.float64 and x.stride(1) == 1 and rows_follow


def normalise(x: Tensor, out: Tensor, slope: float, eps: float) -> Tensor:
    """leaky_relu((x - mean) / sqrt(var + eps)) in `out`, which may be x; gives 1 / sqrt(var + eps).

    x, out: (batch, channels, y, x), `usable`. Result: float32 (batch, channels, 1, 1).
    """
    partial, sizes, grid = _share(x)
    rstd = x.new_empty((*x.shape[:2], 1, 1), dtype=torch.float32)
    _moments[grid](x, partial, x.stride(0), x.stride(3), **sizes)
    strides = (x.stride(0), x.stride(3), out.stride(0), out.stride(3))
    _normalise[grid](x, partial, out, rstd, *strides, slope, eps, **sizes)
    return rstd


def gradient(out: Tensor, grad: Tensor, rstd: Tensor, slope: float) -> Tensor:
    """Of the input of `normalise`, given its output, the gradient of that, and its result."""
    grad = grad if usable(grad) else grad.contiguous(memory_format=torch.channels_last)
    partial, sizes, grid = _share(out)
    result = torch.empty(out.shape, dtype=grad.dtype, device=grad.device, memory_format=torch.channels_last)
    strides = (out.stride(0), out.stride(3), grad.stride(0), grad.stride(3))
    _slopes[grid](out, grad, partial, *strides, slope, **sizes)
    _gradient[grid](out, grad, partial, result, rstd, *strides, slope, **sizes)
    return result


def _share(x: Tensor) -> tuple[Tensor, dict[str, int], tuple[int, int]]:
    """Room for two sums of every part of every image, the sizes that kernels are told, and the grid of programs."""
    batch, channels, height, width = x.shape
    block = triton.next_power_of_2(channels)
    tile = max(NUMBERS // block, 1)
    parts = min(triton.cdiv(height * width, tile), MOST_PARTS)
    partial = x.new_empty((2, batch, parts, channels), dtype=torch.float32)
    sizes = {"pixels": height * width, "channels": channels, "parts": parts}
    blocks = {"CHANNELS": block, "PARTS": triton.next_power_of_2(parts), "TILE": tile}
    return partial, sizes | blocks, (parts, batch)


@triton.jit
def _part(pixels, parts, TILE: tl.constexpr):
    """First pixel of this program's part, and the one behind its last."""
    share = tl.cdiv(tl.cdiv(pixels, TILE), parts) * TILE
    first = tl.program_id(0) * share
    return first, tl.minimum(first + share, pixels)


@triton.jit
def _tile(start, last, channels, batch_stride, pixel_stride, CHANNELS: tl.constexpr, TILE: tl.constexpr):
    """Where the pixels of a tile lie, (TILE, CHANNELS), and which are there."""
    pixel, channel = start + tl.arange(0, TILE), tl.arange(0, CHANNELS)
    at = tl.program_id(1).to(tl.int64) * batch_stride + pixel[:, None] * pixel_stride + channel[None]
    return at, (pixel < last)[:, None] & (channel < channels)[None]


@triton.jit
def _keep(partial, first, second, channels, parts, CHANNELS: tl.constexpr):
    """Two sums of this part, (CHANNELS,) each."""
    channel = tl.arange(0, CHANNELS)
    at = partial + (tl.program_id(1) * parts + tl.program_id(0)) * channels + channel
    tl.store(at, first, channel < channels)
    tl.store(at + tl.num_programs(1) * parts * channels, second, channel < channels)


@triton.jit
def _kept(partial, channels, parts, CHANNELS: tl.constexpr, PARTS: tl.constexpr):
    """The two sums of every part, (PARTS, CHANNELS) each."""
    channel, part = tl.arange(0, CHANNELS), tl.arange(0, PARTS)
    there = (part < parts)[:, None] & (channel < channels)[None]
    at = partial + (tl.program_id(1) * parts + part[:, None]) * channels + channel[None]
    return tl.load(at, there, 0.0), tl.load(at + tl.num_programs(1) * parts * channels, there, 0.0)


@triton.jit
def _moments(
    x, partial, batch_stride, pixel_stride, pixels, channels, parts,
    CHANNELS: tl.constexpr, PARTS: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """Mean of a part of an image, and the sum of squares about that mean: sums of squares alone would lose digits."""
    first, last = _part(pixels, parts, TILE)
    total = tl.zeros((TILE, CHANNELS), tl.float32)
    for start in range(first, last, TILE):
        at, inside = _tile(start, last, channels, batch_stride, pixel_stride, CHANNELS, TILE)
        total += tl.load(x + at, inside, 0.0).to(tl.float32)
    mean = tl.sum(total, 0) / tl.maximum(last - first, 1)
    total = tl.zeros((TILE, CHANNELS), tl.float32)
    for start in range(first, last, TILE):
        at, inside = _tile(start, last, channels, batch_stride, pixel_stride, CHANNELS, TILE)
        apart = tl.where(inside, tl.load(x + at, inside, 0.0).to(tl.float32) - mean[None], 0.0)
        total += apart * apart
    _keep(partial, mean, tl.sum(total, 0), channels, parts, CHANNELS)


@triton.jit
def _normalise(
    x, partial, out, rstd, x_batch, x_pixel, out_batch, out_pixel, slope, eps, pixels, channels, parts,
    CHANNELS: tl.constexpr, PARTS: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """Moments of the parts to those of the whole (Chan 1979), then the output."""
    means, squares = _kept(partial, channels, parts, CHANNELS, PARTS)
    share, part = tl.cdiv(tl.cdiv(pixels, TILE), parts) * TILE, tl.arange(0, PARTS)
    count = tl.maximum(tl.minimum((part + 1) * share, pixels) - part * share, 0).to(tl.float32)[:, None]
    mean = tl.sum(means * count, 0) / pixels
    apart = means - mean[None]
    variance = tl.sum(squares + count * apart * apart, 0) / pixels
    scale = 1 / tl.sqrt(variance + eps)
    channel = tl.arange(0, CHANNELS)
    if tl.program_id(0) == 0:
        tl.store(rstd + tl.program_id(1) * channels + channel, scale, channel < channels)
    first, last = _part(pixels, parts, TILE)
    for start in range(first, last, TILE):
        at, inside = _tile(start, last, channels, x_batch, x_pixel, CHANNELS, TILE)
        value = (tl.load(x + at, inside, 0.0).to(tl.float32) - mean[None]) * scale[None]
        at, inside = _tile(start, last, channels, out_batch, out_pixel, CHANNELS, TILE)
        tl.store(out + at, tl.where(value > 0, value, value * slope), inside)


@triton.jit
def _slopes(
    out, grad, partial, out_batch, out_pixel, grad_batch, grad_pixel, slope, pixels, channels, parts,
    CHANNELS: tl.constexpr, PARTS: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """Of a part of an image: the sums of g and g n; g the gradient behind the leaky ReLU, n the normalised input."""
    first, last = _part(pixels, parts, TILE)
    plain, weighted = tl.zeros((TILE, CHANNELS), tl.float32), tl.zeros((TILE, CHANNELS), tl.float32)
    for start in range(first, last, TILE):
        at, inside = _tile(start, last, channels, out_batch, out_pixel, CHANNELS, TILE)
        y = tl.load(out + at, inside, 0.0).to(tl.float32)
        at, inside = _tile(start, last, channels, grad_batch, grad_pixel, CHANNELS, TILE)
        g = tl.load(grad + at, inside, 0.0).to(tl.float32)
        plain += tl.where(y > 0, g, g * slope)
        weighted += g * y  # leaky ReLU scales the gradient by what it scales n by
    _keep(partial, tl.sum(plain, 0), tl.sum(weighted, 0), channels, parts, CHANNELS)


@triton.jit
def _gradient(
    out, grad, partial, result, rstd, out_batch, out_pixel, grad_batch, grad_pixel, slope, pixels, channels, parts,
    CHANNELS: tl.constexpr, PARTS: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """d/dx: rstd (g - mean(g) - n mean(g n))"""
    plain, weighted = _kept(partial, channels, parts, CHANNELS, PARTS)
    mean_g, mean_gn = tl.sum(plain, 0) / pixels, tl.sum(weighted, 0) / pixels
    channel = tl.arange(0, CHANNELS)
    scale = tl.load(rstd + tl.program_id(1) * channels + channel, channel < channels, 0.0)
    first, last = _part(pixels, parts, TILE)
    for start in range(first, last, TILE):
        at, inside = _tile(start, last, channels, out_batch, out_pixel, CHANNELS, TILE)
        y = tl.load(out + at, inside, 0.0).to(tl.float32)
        at, inside = _tile(start, last, channels, grad_batch, grad_pixel, CHANNELS, TILE)
        g = tl.load(grad + at, inside, 0.0).to(tl.float32)
        g, n = tl.where(y > 0, g, g * slope), tl.where(y > 0, y, y / slope)
        at, inside = _tile(start, last, channels, pixels * channels, channels, CHANNELS, TILE)
        tl.store(result + at, scale[None] * (g - mean_g[None] - n * mean_gn[None]), inside)
