"""The parts of HiFi-MambaV2: frequency split, consensus, layers, experts per pixel."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from morelib.nn.hifi_mamba.consensus import Consensus
from morelib.nn.hifi_mamba.experts import ExpertBank, SharedRoutedExperts, expert
from morelib.nn.hifi_mamba.layers import ChannelAttention, DropPath, GlobalContext, InvertedBottleneck
from morelib.nn.hifi_mamba.pyramid import LaplacianPyramid
from morelib.nn.hifi_mamba.state_space import LONGEST, SHORTEST, GuidedStateSpace
from morelib.routing.pixel import PixelRouting, balance_loss, dispatch, dispatch_densely, stack_routings

sizes = pytest.mark.parametrize("size", [(16, 12), (17, 13), (3, 4), (6, 5)])


@sizes
def test_low_and_high_add_up_to_the_features(size: tuple[int, int]) -> None:
    features = torch.randn(2, 3, *size, dtype=torch.float64)
    low, high = LaplacianPyramid()(features)
    assert low.shape == high.shape == features.shape
    torch.testing.assert_close(low + high, features, rtol=0, atol=1e-15)


@sizes
def test_a_constant_has_no_high_frequencies_not_even_at_the_rim(size: tuple[int, int]) -> None:
    low, high = LaplacianPyramid()(torch.full((1, 2, *size), 3.0))
    assert high.abs().max() == 0 and torch.equal(low, torch.full_like(low, 3.0))


def test_the_pyramid_is_linear_and_keeps_channels_and_samples_apart() -> None:
    pyramid, a, b = LaplacianPyramid().double(), *torch.randn(2, 2, 3, 12, 11, dtype=torch.float64)
    torch.testing.assert_close(pyramid(2 * a - b)[0], 2 * pyramid(a)[0] - pyramid(b)[0])
    torch.testing.assert_close(pyramid(a)[0][1:, 2:], pyramid(a[1:, 2:])[0])


def test_frequencies_that_halving_would_fold_are_taken_out_first() -> None:
    """The energy of waves beyond half of the band, after halving: by plain subsampling all of it stays."""
    positions = torch.arange(64.0)
    for cycles in range(22, 33):
        wave = torch.cos(2 * math.pi * cycles / 64 * positions).expand(1, 1, 64, 64)
        blurred = LaplacianPyramid().reduce(wave)[..., 2:-2, 2:-2].square().mean()
        plain = wave[..., ::2, ::2].square().mean()
        assert blurred < 0.07 * plain
    alternating = torch.tensor([1.0, -1.0]).repeat(32).expand(1, 1, 64, 64)
    assert LaplacianPyramid()(alternating)[0].abs().max() == 0


def test_low_frequencies_stay_in_the_low_part() -> None:
    wave = torch.sin(2 * math.pi * torch.arange(64.0) / 64).expand(1, 1, 64, 64)
    low, high = LaplacianPyramid()(wave)
    assert high.square().mean() < 0.005 * low.square().mean()


def test_consensus_believes_agreement_and_doubts_contradiction() -> None:
    consensus, high = Consensus(), torch.randn(2, 4, 5, 3)
    assert torch.allclose(consensus.weight(high, 7 * high), torch.sigmoid(torch.tensor(2.0)), atol=1e-4)
    assert torch.allclose(consensus.weight(high, -high), torch.sigmoid(torch.tensor(-2.0)), atol=1e-4)
    residual = torch.randn_like(high)
    mixed = consensus(high, residual)
    assert (mixed <= torch.maximum(high, residual) + 1e-6).all()
    assert (mixed >= torch.minimum(high, residual) - 1e-6).all()
    assert consensus.weight(high, residual).shape == (2, 1, 5, 3)


def test_consensus_of_silence_has_a_gradient() -> None:
    high, residual = torch.zeros(2, 1, 4, 2, 2, requires_grad=True)
    leaves = [high.detach().requires_grad_(), residual.detach().requires_grad_()]
    gradients = torch.autograd.grad(Consensus()(*leaves).sum(), leaves)
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


@pytest.mark.parametrize("layer", [GlobalContext(16), ChannelAttention(16)])
def test_gates_only_make_smaller(layer: nn.Module) -> None:
    x = F.layer_norm(torch.randn(3, 5, 7, 16), (16,))
    y = layer(x)
    assert y.shape == x.shape and (y.abs() <= x.abs() + 1e-5).all()
    torch.testing.assert_close(layer(x[1:2]), y[1:2])


def test_the_inverted_bottleneck_is_a_residual_layer() -> None:
    layer, x = InvertedBottleneck(4), torch.randn(2, 4, 6, 5)
    nn.init.zeros_(layer.body[-2].weight)
    assert torch.equal(layer(x), x)


def test_drop_path_keeps_the_mean_and_drops_whole_samples() -> None:
    torch.manual_seed(0)
    layer, x = DropPath(0.25), torch.ones(4000, 2, 3)
    y = layer(x)
    assert (y == y[:, :1, :1]).all() and set(y.unique().tolist()) == {0.0, y.max().item()}
    assert abs(y.mean() - 1) < 0.05
    assert layer.eval()(x) is x


def test_the_state_space_layer_starts_with_mambas_step_sizes_and_an_equal_guide() -> None:
    layer = GuidedStateSpace(16, state=4)
    steps = F.softplus(layer.step.bias)
    assert steps.min() >= 0.99 * SHORTEST and steps.max() <= 1.01 * LONGEST
    torch.testing.assert_close(layer.log_rate.exp()[0], torch.arange(1.0, 5.0))
    assert torch.equal(layer.select_by_guide.weight, layer.select.weight[1:])


def test_the_guide_steers_and_the_scan_looks_back_only_beyond_its_smoothing() -> None:
    torch.manual_seed(0)
    layer = GuidedStateSpace(8, state=4).eval()
    x, guide = torch.randn(2, 1, 9, 10, 8)
    y = layer(x, guide)
    assert not torch.allclose(layer(x, guide.flip(1)), y)
    later = x.clone()
    later[:, 5:] = 0
    # The 3x3 convolution sees one row further, the smoothing ten pixels: one row more.
    torch.testing.assert_close(layer(later, guide)[:, :3], y[:, :3])
    assert not torch.allclose(layer(later, guide)[:, 6:], y[:, 6:])


def _tokens(n: int, channels: int = 6) -> Tensor:
    generator = torch.Generator().manual_seed(n)
    return torch.randn(n, channels, dtype=torch.float64, generator=generator).requires_grad_()


@pytest.mark.parametrize(
    "selected", [[2, 0, 2, 1, 3, 0, 0], [1, 1, 1], [3], [0, 3, 0, 3]], ids=["all", "one", "single", "two"]
)
def test_sparse_dispatch_equals_every_expert_on_every_token(selected: list[int]) -> None:
    experts = nn.ModuleList(expert(6).double() for _ in range(4))
    tokens, chosen = _tokens(len(selected)), torch.tensor(selected)
    weight = torch.rand(len(selected), dtype=torch.float64).requires_grad_()
    leaves = [tokens, weight, *experts.parameters()]
    results = []
    for run in (dispatch, dispatch_densely):
        output = run(experts, tokens, chosen, weight)
        gradients = torch.autograd.grad(output.square().sum(), leaves, allow_unused=True)
        results.append(
            [
                output,
                *(torch.zeros_like(x) if g is None else g for x, g in zip(leaves, gradients, strict=True)),
            ]
        )
    for sparse, dense in zip(*results, strict=True):
        torch.testing.assert_close(sparse, dense, rtol=0, atol=1e-10)


def test_each_token_costs_one_expert_and_an_idle_expert_gets_no_gradient() -> None:
    experts, seen = nn.ModuleList(expert(6).double() for _ in range(4)), []
    for module in experts:
        module.register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))
    dispatch(experts, _tokens(50), torch.arange(50) % 3, torch.ones(50).double()).sum().backward()
    assert seen == [17, 17, 16]
    assert experts[2][0].weight.grad is not None and experts[3][0].weight.grad is None


def test_finite_differences_through_router_and_experts() -> None:
    torch.manual_seed(0)
    layer = SharedRoutedExperts(4, ExpertBank(4, 3)).double()
    x = _tokens(6, 4).detach().view(1, 3, 2, 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: (layer(x)[0], stack_routings([layer(x)[1]]).balance), (x,))


def test_shared_plus_gate_times_the_most_probable_expert() -> None:
    torch.manual_seed(0)
    layer = SharedRoutedExperts(6, ExpertBank(6, 4)).double()
    x = _tokens(12).detach().view(2, 3, 2, 6)
    output, routing = layer(x)
    assert torch.equal(routing.selected, routing.gates.argmax(-1))
    pixel = x[1, 2, 0]
    chosen = int(routing.selected[1, 2, 0])
    expected = layer.bank.shared(pixel) + routing.gates[1, 2, 0, chosen] * layer.bank.routed[chosen](pixel)
    torch.testing.assert_close(output[1, 2, 0], expected)


def test_the_balance_loss_is_one_at_uniform_use_and_n_at_collapse() -> None:
    uniform, even = torch.full((20, 4), 0.25), torch.arange(20) % 4
    torch.testing.assert_close(balance_loss(uniform, even), torch.tensor(1.0))
    collapsed = F.one_hot(torch.zeros(20, dtype=torch.int64), 4).float()
    torch.testing.assert_close(balance_loss(collapsed, collapsed.argmax(-1)), torch.tensor(4.0))
    of_both = torch.stack([uniform, collapsed]), torch.stack([even, collapsed.argmax(-1)])
    torch.testing.assert_close(balance_loss(*of_both), torch.tensor(2.5))


def test_descending_the_balance_loss_spreads_the_load() -> None:
    torch.manual_seed(0)
    layer, x = SharedRoutedExperts(8, ExpertBank(8, 4)), torch.randn(1, 16, 16, 8)
    with torch.no_grad():
        layer.router.bias[0] = 3.0
    optimizer = torch.optim.Adam(layer.router.parameters(), lr=0.05)
    before = stack_routings([layer(x)[1]])
    for _ in range(60):
        optimizer.zero_grad()
        stack_routings([layer(x)[1]]).balance.backward()
        optimizer.step()
    after = stack_routings([layer(x)[1]])
    assert _largest_load(before) > 0.9 and before.balance > 2
    assert _largest_load(after) < 0.5 and after.balance < 1.3


def _largest_load(record: PixelRouting) -> float:
    return float(record.selected.flatten().bincount().max() / record.selected.numel())


def test_the_record_of_a_cascade_has_a_row_per_block() -> None:
    layer = SharedRoutedExperts(6, ExpertBank(6, 3))
    record = stack_routings([layer(torch.randn(2, 4, 5, 6))[1] for _ in range(2)])
    assert record.gates.shape == (2, 2, 4, 5, 3) and record.selected.shape == (2, 2, 4, 5)
    assert record.balance.ndim == 0 and record.balance.requires_grad
