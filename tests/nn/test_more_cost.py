"""MoRE's step: the same with gathered experts and with checkpointing, and nothing in it waits for a value."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from morelib.evaluation.cost import peak_memory
from morelib.nn import Unrolled, build_model
from morelib.nn import more as network
from morelib.nn.more import drop_idle_gradients, expert_parameters, routings
from morelib.physics.masks import acs_columns
from morelib.routing import losses_of
from morelib.routing.dispatch import mix_experts
from morelib.routing.selection import expert_counts

SMALL = {"cascades": 2, "widths": (4, 6, 8), "sens_widths": (4, 6), "n_experts": 8, "top_k": 1}


def _model(**options: Any) -> Unrolled:
    torch.manual_seed(0)
    model = build_model("more", **{**SMALL, "zero_init": False, **options})
    for name, parameter in model.named_parameters():
        if name.endswith("gate.weight"):
            nn.init.normal_(parameter)
    for routing in routings(model):
        routing.tau = 1.0
    return model


def _data(batch: int = 1, dtype: torch.dtype = torch.complex64) -> tuple[Tensor, Tensor]:
    mask = acs_columns(22, torch.tensor([10])).expand(batch, -1, -1, -1)
    return torch.randn(batch, 3, 30, 22, dtype=dtype) * mask, mask


def _step(model: Unrolled, kspace: Tensor, mask: Tensor) -> Any:
    """Forward and backward pass, as in training."""
    output = model(kspace, mask)
    router = losses_of(output.routing)
    (output.image.square().mean() + router.weighted(0.1, 0.005, 0.001)).backward()
    return output


def _gather(monkeypatch: pytest.MonkeyPatch, gather: bool) -> None:
    monkeypatch.setattr(network, "mix_experts", partial(mix_experts, gather=gather))


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("preset", ["paper", "robust"])
def test_no_value_reaches_the_host_in_a_step(
    preset: str, checkpointing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fake tensors have no values: what would copy one to the host, or shape a tensor by one, raises."""
    with FakeTensorMode():
        model = _model(preset=preset, checkpointing=checkpointing)
        _gather(monkeypatch, True)
        for _ in range(2):  # the second time with cached inputs
            _step(model, *_data(batch=2))
        _gather(monkeypatch, False)
        with pytest.raises(RuntimeError, match="_local_scalar_dense"):
            _step(model, *_data(batch=2))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="a profiler's trace of copies needs a GPU")
def test_a_gpu_copies_nothing_to_its_host_in_a_step() -> None:
    model, data = _model().cuda(), [x.cuda() for x in _data()]
    _step(model, *data)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
        _step(model, *data)
    names = [event.name for event in profiler.events()]
    assert names and not [name for name in names if "DtoH" in name]
    torch.cuda.set_sync_debug_mode("error")  # beyond copies: nothing that waits
    try:
        _step(model, *data)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("norm", ["none", "instance"])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("top_k", [1, 2, 8])
def test_gathered_experts_train_like_chosen_modules(
    top_k: int, batch: int, norm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In float64; once the zeros of idle experts are dropped, the same gradients are None too."""
    results = []
    for gather in (False, True):
        _gather(monkeypatch, gather)
        model = _model(top_k=top_k, norm=norm).double()
        output = _step(model, *_data(batch, torch.complex128))
        if gather:
            counts = [expert_counts(record.selected, 8).tolist() for record in output.routing]
            drop_idle_gradients(expert_parameters(model), counts)
        gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        results.append((output.image, gradients))
    (image, gradients), (expected_image, expected) = results
    torch.testing.assert_close(image, expected_image, rtol=1e-10, atol=1e-14)
    assert gradients.keys() == expected.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-9, atol=1e-10 * gradient.abs().max())


@pytest.mark.parametrize("gather", [False, True])
@pytest.mark.parametrize(
    "options", [{}, {"top_k": 2}, {"preset": "robust"}, {"shared_router": True, "router_width": 4}], ids=str
)
def test_checkpointing_replays_the_routing(
    options: dict[str, Any], gather: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Same noise, same choice, same cache, same running statistics, hence the same step: in float64, three times."""
    _gather(monkeypatch, gather)
    results = []
    for checkpointing in (False, True):
        model = _model(checkpointing=checkpointing, **options).double()
        images, selected = [], []
        for _ in range(3):
            model.zero_grad()
            output = _step(model, *_data(2, torch.complex128))
            images.append(output.image)
            selected += [record.selected for record in output.routing]
        named = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        named |= dict(model.named_buffers())
        for i, routing in enumerate(routings(model)):
            named |= {f"cache.{i}.{j}": entry for j, entry in enumerate(routing.cache.state())}
        results.append((torch.stack(images), torch.stack(selected), named, torch.get_rng_state()))
    (images, selected, named, state), (expected, choice, kept, expected_state) = results
    torch.testing.assert_close(images, expected, rtol=1e-10, atol=1e-14)
    assert torch.equal(selected, choice) and torch.equal(state, expected_state)
    assert named.keys() == kept.keys()
    for name, value in named.items():
        torch.testing.assert_close(value, kept[name], rtol=1e-9, atol=1e-10 * float(value.abs().max()))


def test_checkpointing_saves_memory() -> None:
    def peak(checkpointing: bool) -> int:
        model = _model(cascades=6, checkpointing=checkpointing)
        return peak_memory(lambda: _step(model, *_data()))

    assert peak(True) < 0.6 * peak(False)


def test_mixed_precision_leaves_the_choice_alone() -> None:
    model = _model().eval()
    data = _data()
    plain = model(*data).routing[0]
    with torch.autocast("cpu", torch.bfloat16):
        mixed = model(*data).routing[0]
    assert mixed.logits.dtype == mixed.gates.dtype == torch.float32
    assert torch.equal(mixed.selected, plain.selected)
