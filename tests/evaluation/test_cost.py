"""Operations and bytes are counted, times are there; none depends on the weights."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from morelib.data import SliceDataset, collate, find_volumes
from morelib.evaluation import ZeroFilled
from morelib.evaluation.cost import (
    measure,
    memory_of_passes,
    operations,
    peak_memory,
    seconds_per_pass,
)
from morelib.nn import build_model
from morelib.nn.checkpointing import run
from morelib.nn.count import count_parameters
from morelib.nn.more import routings

SIZE = {"cascades": 2, "widths": (4, 6), "sens_widths": (4, 6)}


def test_operations_grow_with_cascades_and_experts_that_run(fastmri_files: Path) -> None:
    batch = collate([SliceDataset(find_volumes(fastmri_files), acceleration=3, center_fraction=0.15)[0]])
    assert operations(ZeroFilled(), batch) == 0
    one, two, three = (
        operations(build_model("e2e_varnet", **SIZE | {"cascades": n}), batch) for n in (1, 2, 3)
    )
    assert two - one == three - two > 0
    gated = [operations(build_model("more", **SIZE, n_experts=3, top_k=k).eval(), batch) for k in (1, 2, 3)]
    assert gated[1] - gated[0] == gated[2] - gated[1] > 0


def test_times_are_medians_by_name(fastmri_files: Path) -> None:
    batch = collate([SliceDataset(find_volumes(fastmri_files), acceleration=3, center_fraction=0.15)[0]])
    torch.manual_seed(0)
    times = seconds_per_pass(
        {"zero": ZeroFilled(), "net": build_model("e2e_varnet", **SIZE)}, batch, repeats=3
    )
    assert list(times) == ["zero", "net"]
    assert all(value > 0 for value in times.values())


def _bytes(n: int) -> Tensor:
    return torch.empty(n, dtype=torch.uint8)


def test_peak_memory_is_what_was_held_at_once() -> None:
    assert peak_memory(lambda: None) == 0
    assert peak_memory(lambda: _bytes(1000)) == 1000
    assert peak_memory(lambda: (_bytes(1000), _bytes(500))) == 1500
    assert peak_memory(lambda: [len(_bytes(n)) for n in (500, 1000, 700)]) == 1000


def test_views_what_is_overwritten_and_what_was_there_cost_nothing() -> None:
    before = _bytes(4000)
    assert peak_memory(lambda: before.view(2, 2000)[1].add_(1)) == 0
    assert peak_memory(lambda: _bytes(1000).view(10, 100).zero_().t()) == 1000
    held = [before.clone()]
    assert peak_memory(lambda: (held.clear(), _bytes(1000))) == 1000


def test_what_the_backward_pass_needs_is_held_and_checkpointing_lowers_it() -> None:
    x = torch.ones(1000, requires_grad=True)

    def layers(checkpointing: bool) -> None:
        y = x
        for _ in range(4):
            y = run(checkpointing, lambda z: z.sin().sin().sin(), y)
        y.sum().backward()

    kept, checkpointed = peak_memory(lambda: layers(False)), peak_memory(lambda: layers(True))
    # Each sine keeps what it was given, which is all that is there when the backward pass begins.
    assert kept >= 4000 * 12
    assert checkpointed < 0.75 * kept
    with torch.no_grad():
        assert peak_memory(lambda: x.sin().sin().sin().sin()) == 2 * 4000


def test_inference_mode_hides_nothing() -> None:
    model, image = torch.nn.GroupNorm(2, 4), torch.ones(1, 4, 8, 8)
    with torch.no_grad():
        plain = peak_memory(lambda: model(image).std())
    with torch.inference_mode():
        assert peak_memory(lambda: model(image).std()) == plain > 0


@pytest.mark.parametrize("name", ["e2e_varnet", "more"])
def test_training_holds_more_than_a_forward_pass(fastmri_files: Path, name: str) -> None:
    batch = collate([SliceDataset(find_volumes(fastmri_files), acceleration=3, center_fraction=0.15)[0]])
    deep, deeper = (build_model(name, **SIZE | {"cascades": n}) for n in (2, 4))
    forward, training = memory_of_passes(deep, batch)
    more_forward, more_training = memory_of_passes(deeper, batch)
    assert training > 2 * forward
    # A forward pass forgets each cascade; a training step keeps all.
    assert more_forward == forward
    assert more_training > 1.3 * training
    assert all(p.grad is None for p in deep.parameters())


@pytest.mark.parametrize("training", [False, True])
def test_measuring_leaves_the_network_as_it_was(fastmri_files: Path, training: bool) -> None:
    """Running statistics and cached inputs too, which a pass in training changes."""
    first, second, *_ = SliceDataset(find_volumes(fastmri_files), acceleration=3, center_fraction=0.15)
    model = build_model("more", **SIZE, preset="robust", cached_inputs=2)
    seen = collate([first])
    model(seen.kspace, seen.mask)
    model.train(training)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    cached = [[entry.clone() for entry in routing.cache.state()] for routing in routings(model)]
    memory_of_passes(model, collate([second]))
    assert model.training == training
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    for routing, before in zip(routings(model), cached, strict=True):
        assert len(before) == 1
        torch.testing.assert_close(routing.cache.state(), before, rtol=0, atol=0)


def test_all_costs_of_a_network_at_once(fastmri_files: Path) -> None:
    batch = collate([SliceDataset(find_volumes(fastmri_files), acceleration=3, center_fraction=0.15)[0]])
    models = {
        "dense": build_model("e2e_varnet", **SIZE),
        "more": build_model("more", **SIZE, cached_inputs=2),
    }
    costs = measure(models, batch)
    assert list(costs) == list(models)
    assert (costs["more"].parameters, costs["more"].active) == count_parameters(models["more"])
    assert costs["dense"].operations == operations(models["dense"], batch)
    assert (costs["dense"].memory, costs["dense"].training_memory) == memory_of_passes(models["dense"], batch)
    assert costs["dense"].seconds > 0
