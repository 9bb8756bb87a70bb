"""Convolutions by several pixels and by slabs equal PyTorch's, in value and gradient."""

from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from morelib.routing import convolution
from morelib.routing.convolution import convolve, plainly

SHAPES = [  # batch, in, out, y, x, kernel
    (1, 8, 8, 6, 8, 3),
    (2, 3, 2, 7, 16, 5),
    (1, 16, 4, 8, 12, 5),
    (3, 10, 10, 6, 10, 3),
    (1, 10, 16, 12, 7, 3),
    (1, 2, 1, 5, 64, 3),
    (1, 16, 16, 12, 5, 3),
    (1, 20, 20, 12, 5, 3),
    (2, 4, 3, 1, 1, 3),
    (1, 8, 2, 12, 8, 1),
]


@pytest.fixture(params=[1, 2, 6], ids=lambda n: f"{n} threads")
def threads(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Whatever processor the test runs on, it takes the way of a large image on one with so many threads."""
    monkeypatch.setattr(convolution, "_worthwhile", lambda x: True)
    monkeypatch.setattr(torch, "get_num_threads", lambda: request.param)
    return int(request.param)


def _maps(*shape: int) -> Tensor:
    maps = torch.randn(shape, dtype=torch.float64).contiguous(memory_format=torch.channels_last)
    return maps.requires_grad_()


@pytest.mark.parametrize("shape", SHAPES)
def test_it_is_a_convolution_in_value_and_gradient(shape: tuple[int, ...], threads: int) -> None:
    torch.manual_seed(0)
    batch, in_channels, out_channels, y, x, kernel = shape
    maps, weight = _maps(batch, in_channels, y, x), _maps(out_channels, in_channels, kernel, kernel)
    results = []
    for output in (convolve(maps, weight), F.conv2d(maps, weight, padding=kernel // 2)):
        results.append([output, *torch.autograd.grad(output.square().sum(), [maps, weight])])
    for fast, plain in zip(*results, strict=True):
        torch.testing.assert_close(fast, plain, rtol=1e-11, atol=1e-11)


def test_pixels_and_slabs_divide_the_image(threads: int) -> None:
    for channels, pixels in ((1, 16), (2, 8), (3, 4), (8, 2), (9, 1), (40, 1)):
        assert convolution._pixels(channels, torch.empty(1, channels, 4, 32)) == pixels
    assert convolution._pixels(2, torch.empty(1, 2, 4, 12)) == 4
    assert convolution._slabs(torch.empty(1, 8, 12, 4), (8, 8, 3, 3)) == threads
    assert convolution._slabs(torch.empty(1, 8, 11, 4), (8, 8, 3, 3)) == 1
    assert convolution._slabs(torch.empty(6, 8, 12, 4), (8, 8, 3, 3)) == 1


def test_its_output_may_be_overwritten(threads: int) -> None:
    """As an activation in place does; a view that a function made may not be."""
    maps, weight = _maps(1, 4, 6, 8), _maps(8, 4, 3, 3)
    by_weight = torch.autograd.grad(F.leaky_relu_(convolve(maps, weight), 0.2).sum(), weight)[0]
    plain = F.leaky_relu(F.conv2d(maps, weight, padding=1), 0.2).sum()
    torch.testing.assert_close(by_weight, torch.autograd.grad(plain, weight)[0])


def test_plainly_every_operation_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convolution, "MANY", 0)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    maps, weight = _maps(1, 8, 6, 4), _maps(2, 8, 3, 3)
    counted = []
    for manner in (nullcontext(), plainly()):
        with manner, FlopCounterMode(display=False) as counter, torch.no_grad():
            convolve(maps, weight)
        counted.append(counter.get_total_flops())
    products = 2 * 8 * 6 * 4 * 9
    # Four pixels at once: of six columns in a kernel three hold zeros.
    assert counted == [2 * products * 2, 2 * products]
