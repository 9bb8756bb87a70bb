"""The fused instance norm and leaky ReLU is PyTorch's pair of layers, in less memory."""

import pytest
import torch
import torch.nn.functional as F

from morelib.nn.activation import EPS, SLOPE, Activation, Norm
from morelib.nn.unet import UNet


def _input(channels_last: bool = True, channels: int = 3) -> torch.Tensor:
    x = 3 + 2 * torch.randn(
        2, channels, 7, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    return x.to(memory_format=torch.channels_last) if channels_last else x


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("channels", [3, 18])
def test_equal_to_pytorchs_two_layers_in_value_and_gradient(channels_last: bool, channels: int) -> None:
    """With few channels it works on rows, see `morelib.routing.rows`."""
    x = _input(channels_last, channels).requires_grad_()
    weight = torch.randn(x.shape, dtype=x.dtype)
    ours = Activation("instance")(1.0 * x)
    theirs = F.leaky_relu(F.instance_norm(x, eps=EPS), SLOPE)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    a, b = (torch.autograd.grad((y * weight).sum(), x)[0] for y in (ours, theirs))
    torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("norm", ["none", "instance"])
@pytest.mark.parametrize("channels", [3, 18])
def test_a_skip_is_joined_as_it_is_in_value_and_gradient(norm: Norm, channels: int) -> None:
    x, skip = _input(channels=channels).requires_grad_(), (_input() + 1)[:, :2].requires_grad_()
    weight = torch.randn(2, channels + 2, 7, 9, dtype=x.dtype)
    ours = Activation(norm)(1.0 * x, skip)
    theirs = F.leaky_relu(F.instance_norm(x, eps=EPS) if norm == "instance" else x, SLOPE)
    theirs = torch.cat([theirs, skip], 1)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    for a, b in zip(
        *(torch.autograd.grad((y * weight).sum(), (x, skip)) for y in (ours, theirs)), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_gradient_by_finite_differences() -> None:
    x = _input().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: Activation("instance")(1.0 * x), x)


def test_a_constant_channel_becomes_zero() -> None:
    x = torch.full((1, 2, 4, 4), 5.0, requires_grad=True)
    out = Activation("instance")(1.0 * x)
    out.sum().backward()
    assert out.abs().max() == 0
    assert torch.isfinite(x.grad).all()


def test_mean_and_variance_of_large_offsets_survive_float32() -> None:
    x = 1000 + torch.randn(1, 2, 64, 64, generator=torch.Generator().manual_seed(0))
    expected = F.leaky_relu(F.instance_norm(x.double(), eps=EPS), SLOPE)
    assert (Activation("instance")(x.clone()) - expected).abs().max() < 1e-3


@pytest.mark.parametrize("norm", ["none", "instance"])
def test_a_unet_keeps_one_tensor_for_each_convolution(norm: str) -> None:
    """Saved for the gradient: inputs of convolutions, which are outputs of activations; nothing between the two."""
    unet = UNet(2, 2, (4, 6), norm)  # type: ignore[arg-type]
    kept: dict[int, torch.Size] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.ndim == 4 and tensor.shape[-1] >= 16 and not isinstance(tensor, torch.nn.Parameter):
            kept[tensor.untyped_storage().data_ptr()] = tensor.shape
        return tensor

    x = torch.randn(1, 2, 32, 32).to(memory_format=torch.channels_last)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        out = unet(x)
    # Input; 2 activations on each side of each of the two levels that have convolutions; what pooling and joining make.
    level_0, pooled, level_1, joined, decoder = 2, 1, 2, 1, 2
    assert out.shape == x.shape
    assert len(kept) == 1 + level_0 + pooled + level_1 + joined + decoder
