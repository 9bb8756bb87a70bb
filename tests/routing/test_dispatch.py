"""All ways of running the chosen experts give what running every expert gives, in value and gradient."""

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from morelib.routing.dispatch import mix_all_experts, mix_experts
from morelib.routing.selection import select_top_k

ways = pytest.mark.parametrize("gather", [False, True], ids=["modules", "gathered"])


class Toy(nn.Module):
    """An expert of two inputs that counts how many samples it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.GELU(), nn.Conv2d(4, 2, 1, bias=False))
        self.samples = 0

    def forward(self, inputs: list[Tensor]) -> Tensor:
        self.samples += len(inputs[0])
        return self.body(inputs[0]) * inputs[1]


def _case(n: int, batch: int) -> tuple[nn.ModuleList, list[Tensor], Tensor]:
    torch.manual_seed(0)
    experts = nn.ModuleList(Toy() for _ in range(n)).double()
    inputs = [torch.randn(batch, channels, 6, 5, dtype=torch.float64) for channels in (3, 1)]
    return experts, inputs, torch.randn(batch, n, dtype=torch.float64).softmax(-1)


@ways
@pytest.mark.parametrize("batch", [1, 2, 5])
@pytest.mark.parametrize(("n", "k"), [(1, 1), (4, 1), (4, 2), (4, 4), (8, 1), (8, 3)])
def test_running_the_chosen_equals_running_all(n: int, k: int, batch: int, gather: bool) -> None:
    experts, inputs, weights = _case(n, batch)
    leaves = [x.requires_grad_() for x in (*inputs, weights)] + list(experts.parameters())
    selected = select_top_k(weights, k)
    results = []
    for output in (
        mix_experts(experts, inputs, weights, selected, gather),
        mix_all_experts(experts, inputs, weights, selected),
    ):
        results.append(
            [
                output,
                *torch.autograd.grad(
                    output.square().sum(), leaves, allow_unused=True, materialize_grads=True
                ),
            ]
        )
    for sparse, dense in zip(*results, strict=True):
        torch.testing.assert_close(sparse, dense, rtol=0, atol=1e-12)


@ways
def test_only_the_chosen_run_and_the_others_get_no_gradient_or_zeros(gather: bool) -> None:
    experts, inputs, weights = _case(4, 3)
    selected = torch.tensor([[2], [0], [2]])
    mix_experts(experts, inputs, weights, selected, gather).sum().backward()
    counts = [expert.samples for expert in experts]
    assert counts == ([3, 0, 0, 0] if gather else [1, 0, 2, 0])  # gathered weights run in the first module
    gradients = [expert.body[0].weight.grad for expert in experts]
    assert all(gradients[i].abs().max() > 0 for i in (0, 2))
    for i in (1, 3):
        assert gradients[i].abs().max() == 0 if gather else gradients[i] is None


def test_gathering_never_looks_at_a_value() -> None:
    """Fake tensors have none: what would copy one to the host raises."""
    experts, inputs, weights = _case(4, 3)
    with FakeTensorMode(allow_non_fake_inputs=True):
        selected = select_top_k(weights, 2, tau=1.0)
        mix_experts(experts, inputs, weights, selected, gather=True).sum().backward()
        with pytest.raises(RuntimeError, match="_local_scalar_dense"):
            mix_experts(experts, inputs, weights, selected, gather=False)
