"""The Triton kernels against the plain form in float64: value, gradient, slices of a tensor, short formats."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from morelib.nn.activation import EPS, SLOPE, Activation

kernel = pytest.importorskip("morelib.nn.norm_kernel", reason="no Triton here", exc_type=ImportError)
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="the kernels need a GPU")
# The last two: one pixel row, and more pixels than programs have tiles.
SHAPES = [(2, 6, 19, 13), (1, 33, 64, 48), (15, 8, 20, 12), (1, 5, 1, 7), (1, 3, 301, 211)]


def _last(*shape: int) -> Tensor:
    return torch.randn(*shape, device="cuda").contiguous(memory_format=torch.channels_last)


def _plain(x: Tensor) -> Tensor:
    return F.leaky_relu(F.instance_norm(x, eps=EPS), SLOPE)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_kernels_are_the_plain_form_also_far_from_zero(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    x, grad = 3 * _last(*shape) + 100, _last(*shape)
    exact = x.double().requires_grad_()
    expected = _plain(exact)
    (slope,) = torch.autograd.grad(expected, exact, grad.double())
    assert kernel.usable(x)
    rstd = kernel.normalise(x, x, SLOPE, EPS)
    torch.testing.assert_close(x.double(), expected, rtol=1e-4, atol=1e-4)
    # The gradient jumps where the output changes its sign; as here, rounding may decide.
    sure = expected.abs() > 1e-3
    found = kernel.gradient(x, grad, rstd, SLOPE)
    torch.testing.assert_close(found.double()[sure], slope[sure], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_activation_with_a_skip_trains_as_the_plain_form(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x, skip = _last(2, 6, 24, 18).to(dtype), _last(2, 5, 24, 18).to(dtype)
    grad, results = _last(2, 11, 24, 18).to(dtype), []
    for plain in (True, False):
        leaves = [each.clone(memory_format=torch.channels_last).requires_grad_() for each in (x, skip)]
        inside = leaves[0] * 1  # the activation overwrites its input
        joined = (
            torch.cat([_plain(inside), leaves[1]], 1) if plain else Activation("instance")(inside, leaves[1])
        )
        results.append((joined, *torch.autograd.grad(joined, leaves, grad)))
    tolerance = {"rtol": 1e-3, "atol": 1e-4} if dtype == torch.float32 else {"rtol": 5e-2, "atol": 5e-2}
    for plain_result, fast in zip(*results, strict=True):
        torch.testing.assert_close(fast, plain_result, **tolerance)


def test_other_tensors_take_the_plain_way() -> None:
    x = torch.randn(1, 4, 8, 6)
    assert not kernel.usable(x)
    assert not kernel.usable(x.cuda())
    assert not kernel.usable(_last(1, 4, 8, 6).double())
    assert kernel.usable(_last(1, 8, 8, 6)[:, :4])
