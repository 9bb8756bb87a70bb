"""Golden values and limits of the three terms of Eq. 7, and the annealing."""

import math

import pytest
import torch

from morelib.routing.losses import anneal, router_losses


def test_golden_values() -> None:
    gates = torch.tensor([[0.7, 0.3], [0.4, 0.6]])
    logits = gates.log()  # softmax of the log of probabilities is the probabilities; log-sum-exp is zero
    losses = router_losses(logits + 2.0, gates, torch.tensor([[0], [0]]))
    assert losses.aux.item() == pytest.approx(0.55)  # p = (1, 0), mean g = (.55, .45)
    entropy = -sum(p * math.log(p) for p in (0.7, 0.3, 0.4, 0.6)) / 2
    assert losses.sparse.item() == pytest.approx(entropy)
    assert losses.z.item() == pytest.approx(4.0)
    assert losses.weighted(1.0, 10.0, 100.0).item() == pytest.approx(0.55 + 10 * entropy + 400)


@pytest.mark.parametrize("n", [2, 4, 8])
def test_uniform_routing_reads_one_over_n_and_collapse_reads_one(n: int) -> None:
    uniform = torch.full((n, n), 1 / n)
    spread = router_losses(uniform.log(), uniform, torch.arange(n)[:, None])
    assert spread.aux.item() == pytest.approx(1 / n)
    assert spread.sparse.item() == pytest.approx(math.log(n))
    logits = torch.zeros(n, n)
    logits[:, 0] = 100.0
    collapsed = router_losses(logits, logits.softmax(-1), torch.zeros(n, 1, dtype=torch.long))
    assert collapsed.aux.item() == pytest.approx(1.0)
    assert collapsed.sparse.item() == pytest.approx(0.0, abs=1e-6)


def test_descending_on_each_term_does_what_its_name_says() -> None:
    logits = torch.tensor([[2.0, 0.5, 0.0]] * 8, requires_grad=True)
    selected = torch.zeros(8, 1, dtype=torch.long)
    losses = router_losses(logits, logits.softmax(-1), selected)
    aux, sparse, z = (torch.autograd.grad(term, logits, retain_graph=True)[0] for term in losses)
    assert (aux[:, 0] > 0).all() and (aux[:, 1:] < 0).all()  # descent lowers the popular expert
    assert (sparse[:, 0] < 0).all()  # descent raises the leader: sharper
    assert (z > 0).all()  # descent lowers every logit: bounded


def test_the_share_of_selections_carries_no_gradient() -> None:
    gates = torch.rand(4, 3).softmax(-1).requires_grad_()
    losses = router_losses(gates.log(), gates, torch.tensor([[0], [0], [1], [2]]))
    (gradient,) = torch.autograd.grad(losses.aux, gates)
    torch.testing.assert_close(gradient, torch.tensor([[0.5, 0.25, 0.25]] * 4) / 4)


def test_gradients_stay_finite_when_a_gate_underflows() -> None:
    logits = torch.tensor([[200.0, 0.0, -50.0]], requires_grad=True)
    losses = router_losses(logits, logits.softmax(-1), torch.tensor([[0]]))
    (gradient,) = torch.autograd.grad(losses.weighted(1, 1, 1), logits)
    assert torch.isfinite(gradient).all()


def test_all_cascades_at_once_are_the_mean_over_cascades() -> None:
    logits = torch.randn(3, 5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    gates, selected = logits.softmax(-1), logits.topk(2).indices
    one_by_one = [torch.stack(router_losses(*each)) for each in zip(logits, gates, selected, strict=True)]
    together = torch.stack(router_losses(logits, gates, selected))
    torch.testing.assert_close(together, torch.stack(one_by_one).mean(0))


def test_annealing_is_log_linear_between_its_ends() -> None:
    assert anneal((1.0, 0.01), 0.0) == 1.0
    assert anneal((1.0, 0.01), 0.5) == pytest.approx(0.1)
    assert anneal((1.0, 0.01), 1.0) == pytest.approx(0.01)
    assert anneal((1.0, 0.01), 2.0) == pytest.approx(0.01)
    assert anneal((1.0, 0.0), 0.25) == pytest.approx(0.75)
