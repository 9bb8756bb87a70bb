"""The channel-attention block: its ways are one in value and gradient."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from morelib.routing import cab, cab_gradient
from morelib.routing.cab import ChannelAttentionBlock
from morelib.routing.cab_gradient import OneSample


def _block(channels: int) -> ChannelAttentionBlock:
    torch.manual_seed(0)
    return ChannelAttentionBlock(channels).double()


def _maps(*shape: int) -> Tensor:
    maps = torch.randn(shape, dtype=torch.float64).contiguous(memory_format=torch.channels_last)
    return maps.requires_grad_()


def _plain(block: ChannelAttentionBlock, x: Tensor) -> Tensor:
    first, activation, second = block.body
    features = second(F.prelu(first(x), activation.weight))
    return x + block.attention(features) * features


def _assert_same(block: ChannelAttentionBlock, x: Tensor) -> None:
    results = []
    for output in (block(x), _plain(block, x)):
        results.append([output, *torch.autograd.grad(output.square().sum(), [x, *block.parameters()])])
    for fast, plain in zip(*results, strict=True):
        torch.testing.assert_close(fast, plain, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("channels", [6, 20])
def test_the_block_is_made_of_pytorchs_operations_in_value_and_gradient(channels: int) -> None:
    """With few channels it works on rows, see `morelib.routing.rows`."""
    for batch in (1, 3):
        maps = _maps(batch, channels, 5, 4)
        for x in (maps, maps.detach().contiguous().requires_grad_()):
            _assert_same(_block(channels), x)


@pytest.mark.parametrize("slope", [0.25, 1.5, 0.0, -0.5])
@pytest.mark.parametrize("size", [(5, 4), (2, 7), (1, 3), (1, 1)])
def test_so_is_one_sample(size: tuple[int, int], slope: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cab, "MANY", 0)
    monkeypatch.setattr(cab_gradient, "IN_CACHE", 32)
    block, x = _block(6), _maps(1, 6, *size)
    with torch.no_grad():
        block.body[1].weight.fill_(slope)  # type: ignore[union-attr, operator]
    # By a slope that is not positive the PReLU cannot be undone.
    by_hand = "OneSample" in type(block(x).grad_fn).__name__
    assert by_hand == (slope > 0 and min(size) > 1)
    _assert_same(block, x)


def test_a_gradient_may_be_asked_for_again_and_without_memory_in_its_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cab, "MANY", 0)
    block, x = _block(6), _maps(1, 6, 5, 4)
    output = block(x)
    grad = torch.randn(1, 6, 5, 4, dtype=torch.float64)  # not channels-last
    twice = [torch.autograd.grad(output, x, grad, retain_graph=True)[0] for _ in range(2)]
    torch.testing.assert_close(*twice, rtol=0, atol=0)
    torch.testing.assert_close(twice[0], torch.autograd.grad(_plain(block, x), x, grad)[0])


def test_one_sample_keeps_two_maps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cab, "MANY", 0)
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda t: t):
        x = _maps(1, 6, 16, 16)
        output = _block(6)(x)
    assert sum(tensor.numel() >= x.numel() for tensor in kept) == 2
    assert all(tensor.data_ptr() != output.data_ptr() for tensor in kept)


def test_without_gradients_it_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    block, x = _block(6), _maps(1, 6, 5, 4)
    used = []
    apply = OneSample.apply
    monkeypatch.setattr(OneSample, "apply", lambda *inputs: used.append(1) or apply(*inputs))
    with torch.inference_mode():
        torch.testing.assert_close(block(x), _plain(block, x))
    assert used == [1]


@pytest.mark.parametrize("size", [(9, 7), (1, 5), (2, 1)])
def test_the_pooled_block_is_the_mean_of_the_block_in_value_and_gradient(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    block = ChannelAttentionBlock(6).double()
    x = torch.randn(3, 6, *size, dtype=torch.float64, requires_grad=True)
    results = []
    for pooled in (block.pooled(x), block(x).mean((-2, -1))):
        results.append([pooled, *torch.autograd.grad(pooled.square().sum(), [x, *block.parameters()])])
    for fast, plain in zip(*results, strict=True):
        torch.testing.assert_close(fast, plain, rtol=1e-10, atol=1e-14)
