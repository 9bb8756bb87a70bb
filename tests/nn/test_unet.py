"""The U-Net's parts that exist twice give the same."""

import pytest
import torch
from torch import nn

from morelib.nn.activation import Norm
from morelib.nn.complex_io import standardise
from morelib.nn.registry import build_model
from morelib.nn.unet import UNet, enlarge_by_matrix


@pytest.mark.parametrize("shape", [(2, 5, 4, 3), (1, 3, 1, 7)])
def test_the_matrix_product_is_the_transposed_convolution(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    layer = nn.ConvTranspose2d(shape[1], 4, 2, stride=2, bias=False).double()
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    results = []
    for output in (layer(x), enlarge_by_matrix(x, layer.weight)):
        results.append((output, *torch.autograd.grad(output.square().sum(), (x, layer.weight))))
    for plain, fast in zip(*results, strict=True):
        torch.testing.assert_close(fast, plain, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("norm", ["none", "instance"])
@pytest.mark.parametrize("size", [(16, 12), (13, 10)])
def test_without_gradients_where_no_channels_are_joined_the_output_is_the_same(
    norm: Norm, size: tuple[int, int]
) -> None:
    torch.manual_seed(0)
    unet = UNet(2, 2, (4, 6, 8), norm).double()
    x = torch.randn(2, 2, *size, dtype=torch.float64).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        output = unet(x)
    torch.testing.assert_close(output, unet(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("axes", [(-2, -1), (1, 2, 3)])
def test_standardising_is_std_mean_in_value_and_gradient(axes: tuple[int, ...]) -> None:
    x = 5 + torch.randn(2, 3, 6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x.requires_grad_()
    std, mean = torch.std_mean(x, axes, keepdim=True)
    for fast, plain in zip(standardise(x, axes), ((x - mean) / std, mean, std), strict=True):
        torch.testing.assert_close(fast, plain, rtol=1e-12, atol=1e-12)
        slopes = [torch.autograd.grad(y.pow(3).sum(), x, retain_graph=True)[0] for y in (fast, plain)]
        torch.testing.assert_close(*slopes, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("value", [0.0, 0.1, 1234.567])
def test_a_constant_has_no_standard_deviation(value: float) -> None:
    x = torch.full((1, 2, 37, 41), value, requires_grad=True)
    standard, mean, std = standardise(x, (-2, -1))
    assert not std.any() and standard.abs().max() <= 1e-6 * value
    torch.testing.assert_close(mean, torch.full_like(mean, value))
    (standard.sum() + std.sum()).backward()
    assert torch.isfinite(x.grad).all()


def test_kernels_lie_as_features_do() -> None:
    model = build_model("more", cascades=1, widths=(4, 6), sens_widths=(4, 6), n_experts=2, top_k=1)
    kernels = [parameter for parameter in model.parameters() if parameter.ndim == 4]
    assert kernels and all(kernel.is_contiguous(memory_format=torch.channels_last) for kernel in kernels)
