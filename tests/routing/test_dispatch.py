"""Running only the chosen experts gives what running all of them gives, in value and gradient."""

import pytest
import torch
from torch import Tensor, nn

from morelib.routing.dispatch import mix_all_experts, mix_experts
from morelib.routing.selection import select_top_k


class Toy(nn.Module):
    """An expert of two inputs that counts how many samples it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 3, padding=1, dtype=torch.float64)
        self.samples = 0

    def forward(self, inputs: list[Tensor]) -> Tensor:
        self.samples += len(inputs[0])
        return self.conv(inputs[0]) * inputs[1]


@pytest.mark.parametrize("top_k", [1, 2, 4])
@pytest.mark.parametrize("batch", [1, 5])
def test_sparse_equals_dense(top_k: int, batch: int) -> None:
    torch.manual_seed(0)
    experts = nn.ModuleList(Toy() for _ in range(4))
    inputs = [torch.randn(batch, 3, 6, 5, dtype=torch.float64, requires_grad=True) for _ in range(1)]
    inputs.append(torch.randn(batch, 1, 6, 5, dtype=torch.float64, requires_grad=True))
    weights = torch.randn(batch, 4, dtype=torch.float64).softmax(-1).requires_grad_()
    selected = select_top_k(weights, top_k)
    leaves = [*inputs, weights, *experts.parameters()]
    results = []
    for mix in (mix_experts, mix_all_experts):
        output = mix(list(experts), inputs, weights, selected)  # type: ignore[arg-type]
        gradients = torch.autograd.grad(output.square().sum(), leaves, allow_unused=True)
        results.append(
            [
                output,
                *(torch.zeros_like(x) if g is None else g for x, g in zip(leaves, gradients, strict=True)),
            ]
        )
    for sparse, dense in zip(*results, strict=True):
        torch.testing.assert_close(sparse, dense, rtol=0, atol=1e-12)


def test_only_the_chosen_run_and_the_others_get_no_gradient() -> None:
    experts = nn.ModuleList(Toy() for _ in range(4))
    inputs = [torch.randn(3, 3, 4, 4, dtype=torch.float64), torch.ones(3, 1, 4, 4, dtype=torch.float64)]
    weights = torch.full((3, 4), 0.25, dtype=torch.float64)
    selected = torch.tensor([[2], [0], [2]])
    mix_experts(list(experts), inputs, weights, selected).sum().backward()  # type: ignore[arg-type]
    assert [expert.samples for expert in experts] == [1, 0, 2, 0]  # type: ignore[union-attr]
    assert [expert.conv.weight.grad is None for expert in experts] == [False, True, False, True]  # type: ignore[union-attr]
