"""The router-only experiment: deterministic, leaves the caller's random numbers alone, and its controls behave."""

import pytest
import torch

from morelib import build_model
from morelib.companion.router_only import (
    ARMS,
    FrozenInputs,
    common_share,
    encoder_features,
    frozen_inputs,
    random_choice,
    stacks,
    train_router,
    untrained_router,
)
from morelib.data import SliceDataset, collate, find_volumes
from morelib.routing import Router
from morelib.routing.diagnostics import effective_experts
from morelib.routing.router import route


@pytest.fixture(scope="module")
def dataset(fastmri_files) -> SliceDataset:  # type: ignore[no-untyped-def]
    return SliceDataset(find_volumes(fastmri_files), acceleration=4, center_fraction=0.1)


@pytest.fixture(scope="module")
def data(dataset: SliceDataset) -> FrozenInputs:
    torch.manual_seed(0)
    model = build_model("more", cascades=1, widths=(4, 6), sens_widths=(4, 6), n_experts=3, top_k=1)
    return frozen_inputs(model.eval(), dataset)


def test_features_cover_the_field_of_view_of_the_target(dataset: SliceDataset) -> None:
    model = build_model("more", cascades=1, widths=(4, 6), sens_widths=(4, 6), n_experts=2, top_k=1)
    first, second = encoder_features(model, collate([dataset[0]]))
    assert first.shape == (1, 4, 32, 32)  # 24 x 24, padded to a multiple of 16
    assert second.shape == (1, 6, 16, 16)


def test_inputs_are_those_of_all_slices_in_both_crops_and_a_limit_spreads_them(
    dataset: SliceDataset, data: FrozenInputs
) -> None:
    assert len(data.labels) == len(dataset) == len(data.by_crop["centre"]) == len(data.by_crop["pool"])
    assert {x.shape for x in data.by_crop["centre"]} == {(1, 10, 16, 16)}
    assert not any(x.requires_grad for x in data.by_crop["centre"])
    torch.manual_seed(0)
    model = build_model("more", cascades=1, widths=(4, 6), sens_widths=(4, 6), n_experts=3, top_k=1)
    fewer = frozen_inputs(model.eval(), dataset, limit=7)
    assert sorted(fewer.labels) == sorted(
        set(data.labels)
    )  # 28 slices, two volumes of two slices per category


def test_routing_keeps_the_order_of_inputs_of_several_sizes() -> None:
    router = Router(3, 2).eval()
    inputs = [torch.randn(1, 3, size, 4) for size in (4, 4, 5, 4)]
    together = route(router, stacks(inputs)).embedding
    torch.testing.assert_close(together, torch.cat([router(x).embedding for x in inputs]))


@pytest.mark.parametrize("name", ARMS)
def test_every_arm_trains_reproducibly_and_leaves_the_random_state_alone(
    name: str, data: FrozenInputs
) -> None:
    before = torch.get_rng_state()
    first, second = (
        train_router(data, ARMS[name], steps=6, seed=1, n_experts=3, measurements=2) for _ in range(2)
    )
    assert first == second
    assert torch.equal(torch.get_rng_state(), before)
    assert first.steps == [0, 3, 6]
    assert sum(first.final.load) == pytest.approx(1)
    assert first.final.effective == pytest.approx(effective_experts(torch.tensor(first.final.load)))


def test_equal_gates_send_all_slices_to_the_first_expert(data: FrozenInputs) -> None:
    start = train_router(data, ARMS["as printed"], steps=1, seed=0, n_experts=3).history[0]
    assert start.load == [1, 0, 0]
    assert start.effective == pytest.approx(1)
    assert start.information == pytest.approx(0, abs=1e-9)


def test_without_losses_that_tell_experts_apart_nothing_moves(data: FrozenInputs) -> None:
    # From equal gates the entropy and the z-loss have no direction: only the auxiliary loss can break the tie.
    final = train_router(data, ARMS["no auxiliary loss"], steps=6, seed=0, n_experts=3).final
    assert final.load == [1, 0, 0]


def test_controls(data: FrozenInputs) -> None:
    assert random_choice(data, seed=0, n_experts=3).effective > 2
    drawn = [untrained_router(data, seed=seed, n_experts=3, width=4) for seed in (0, 1, 2, 3, 0)]
    assert drawn[0] == drawn[-1]
    # Drawn gates have favourites, and another draw another one.
    assert len({tuple(state.load) for state in drawn}) > 1
    assert random_choice(data, seed=0) == random_choice(data, seed=0)


def test_standardising_removes_what_all_embeddings_share(data: FrozenInputs) -> None:
    assert common_share(data, crop="centre", standardise=True) < 1e-6
    assert 0.5 < common_share(data, crop="centre", standardise=False) <= 1
