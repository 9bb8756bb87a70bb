"""What makes MoRE MoRE: one expert is the dense network, router losses never reach the backbone."""

import pytest
import torch
from torch import Tensor, nn

from morelib.nn import Unrolled, build_model
from morelib.nn.more import dense_state, routings
from morelib.physics.masks import acs_columns
from morelib.routing import losses_of

SMALL = {"cascades": 2, "widths": (4, 6, 8), "sens_widths": (4, 6), "zero_init": False}


def _data(batch: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    mask = acs_columns(22, torch.tensor([10])).expand(batch, -1, -1, -1)
    return torch.randn(batch, 3, 30, 22, dtype=torch.complex64, generator=generator) * mask, mask


def _more(**options: object) -> Unrolled:
    torch.manual_seed(0)
    return build_model("more", **{**SMALL, **options})


def _wake(model: nn.Module) -> None:
    """Give the gates weights: they start at zero, where every gate is 1/N."""
    for name, parameter in model.named_parameters():
        if name.endswith("gate.weight"):
            nn.init.normal_(parameter)


def test_one_expert_is_the_dense_network_in_value_and_gradient() -> None:
    dense, more = build_model("e2e_varnet", **SMALL).double(), _more(n_experts=1, top_k=1).double()
    dense.load_state_dict(dense_state(more.state_dict()))
    kspace, mask = _data(2)
    kspace = kspace.to(torch.complex128)
    images = []
    for model in (dense, more):
        images.append(model(kspace, mask).image)
        images[-1].square().mean().backward()
    torch.testing.assert_close(*images, rtol=0, atol=1e-12)
    expected = {name: parameter.grad for name, parameter in dense.named_parameters()}
    gradients = dense_state({name: parameter.grad for name, parameter in more.named_parameters()})
    assert gradients.keys() == expected.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-9, atol=1e-12)


def test_router_losses_leave_the_backbone_gradients_at_exactly_zero() -> None:
    model = _more()
    _wake(model)
    model(*_data())  # fills the caches, so that cached inputs take part
    output = model(*_data())
    losses_of(output.routing).weighted(0.1, 0.005, 0.001).backward()
    reached = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}
    assert reached and all(".router." in name for name in reached)


def test_the_reconstruction_loss_trains_the_router_through_the_gates_alone() -> None:
    for gate_gradient in (True, False):
        model = _more(gate_gradient=gate_gradient)
        _wake(model)
        model(*_data()).image.square().mean().backward()
        reached = [
            p.grad is not None and bool(p.grad.abs().max() > 0)
            for n, p in model.named_parameters()
            if ".router." in n
        ]
        assert any(reached) == gate_gradient


def test_noise_changes_which_experts_run() -> None:
    model = _more(n_experts=4, top_k=1)
    chosen = set()
    for tau in (0.0, *8 * (5.0,)):
        for routing in routings(model):
            routing.tau = tau
        chosen.add(tuple(int(record.selected) for record in model(*_data()).routing))
    assert len(chosen) > 1


def test_noise_never_changes_the_image_of_a_given_choice() -> None:
    model = _more(n_experts=4, top_k=4)  # all are chosen, so noise can only reorder them
    _wake(model)
    calm = model(*_data()).image
    for routing in routings(model):
        routing.tau = 5.0
    torch.testing.assert_close(model(*_data()).image, calm)


def test_evaluation_is_deterministic_at_any_noise_level() -> None:
    model = _more().eval()
    for routing in routings(model):
        routing.tau = 5.0
    assert torch.equal(model(*_data()).image, model(*_data()).image)


@pytest.mark.parametrize("top_k", [1, 2])
def test_unchosen_experts_get_no_gradient(top_k: int) -> None:
    model = _more(n_experts=4, top_k=top_k)
    output = model(*_data())
    output.image.sum().backward()
    for cascade, record in zip(model.cascades, output.routing, strict=True):
        touched = [expert.last.weight.grad is not None for expert in cascade.denoiser.experts]
        assert [i for i, yes in enumerate(touched) if yes] == sorted(record.selected[0].tolist())


def test_records_have_the_documented_shapes() -> None:
    output = _more(n_experts=5, top_k=3, embedding=7)(*_data(2))
    assert len(output.routing) == 2
    for record in output.routing:
        assert record.logits.shape == record.gates.shape == (2, 5)
        assert record.selected.shape == (2, 3) and record.selected.dtype == torch.int64
        assert record.embedding.shape == (2, 7)


def test_shared_router_and_expert_copies() -> None:
    def count(model: nn.Module) -> int:
        return sum(parameter.numel() for parameter in model.parameters())

    shared = _more(shared_router=True)
    assert shared.cascades[0].denoiser.router is shared.cascades[1].denoiser.router
    assert count(shared) < count(_more())
    experts = _more(expert_init="copies").cascades[0].denoiser.experts
    weights = [expert.last.weight for expert in experts]
    assert all(torch.equal(weights[0], weight) for weight in weights)
    assert weights[0] is not weights[1]
    independent = _more().cascades[0].denoiser.experts
    assert not torch.equal(independent[0].last.weight, independent[1].last.weight)


@pytest.mark.parametrize("preset", ["paper", "robust"])
def test_both_recipes_route(preset: str) -> None:
    model = build_model("more", preset=preset, **SMALL)
    for _ in range(3):
        output = model(*_data())
    assert torch.isfinite(torch.stack(losses_of(output.routing))).all()
