"""What chapter 8 draws and counts of PromptMR+ is what the network does."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from morelib import build_model
from morelib.companion.figures import promptmr as figures
from morelib.data import SliceDataset, collate, find_volumes
from morelib.data.batches import Batch
from morelib.evaluation.cost import LiveStorages
from morelib.nn import Unrolled
from tests.nn.small import PROMPTMR_PLUS

TINY: dict[str, Any] = PROMPTMR_PLUS | {"cascades": 2, "n_prompts": 3}


def _model(seed: int = 0, **options: Any) -> Unrolled:
    torch.manual_seed(seed)
    return build_model("promptmr_plus", **{**TINY, "zero_init": False, **options}).eval()


@pytest.fixture(scope="module")
def slices(fastmri_files: Path) -> SliceDataset:
    """Two slices each of two AXT2 and two AXT1 volumes."""
    volumes = [v for v in find_volumes(fastmri_files) if v.acquisition in ("AXT2", "AXT1")]
    return SliceDataset(volumes, "equispaced", 4, 0.1)


@pytest.fixture
def batch(slices: SliceDataset) -> Batch:
    return collate([slices[0]])


def test_every_published_count_is_met() -> None:
    table = figures.published_table()
    assert len(table.rows) == len(figures.PUBLISHED)
    assert {row[-1] for row in table.rows} == {"equal"}


def test_parts_add_up_and_ideas_cost_what_leaving_them_out_saves() -> None:
    dense = {"cascades": 2, "widths": (4, 6), "sens_widths": (4, 6)}
    table = {
        name: [int(cell.replace(",", "")) for cell in cells]
        for name, *cells in figures.size_table(dense, TINY).rows
    }
    for column in range(3):
        assert table["cascades"][column] + table["sensitivity network"][column] == table["network"][column]
    model = _model()
    assert table["network"] == [
        figures.count(build_model("e2e_varnet", **dense)),
        figures.count(model, True),
        figures.count(model, False),
    ]
    assert table["of which history"][1] == figures.count(model) - figures.count(_model(history=0))
    assert table["of which prompts"][2] == table["cascades"][2] == 2 * 3 * (2 * 6 * 6 + 4 * 4 * 4)


def test_operations_are_counted_without_computing_and_grow_with_the_image() -> None:
    dense = figures.on_meta("e2e_varnet", cascades=1, widths=(4, 6), sens_widths=(4, 6))
    assert 2 * figures.cascade_operations(dense, (32, 16)) == figures.cascade_operations(dense, (32, 32))
    assert figures.cascade_operations(figures.on_meta("promptmr_plus", **TINY), (32, 16)) > 0


@pytest.mark.parametrize("adjacent", [1, 3])
def test_what_is_seen_inside_is_what_the_cascade_computes_with(slices: SliceDataset, adjacent: int) -> None:
    model = _model(adjacent=adjacent)
    seen = SliceDataset(slices.volumes, "equispaced", 4, 0.1, adjacent=adjacent)
    batch = collate([seen[0]])
    looks = figures.look_inside(model, batch)
    assert [look.inputs.shape for look in looks] == [(5, 48, 32)] * 2
    for look, eta in zip(looks, (cascade.eta.detach() for cascade in model.cascades), strict=True):
        x, normal, _, start, difference = look.inputs
        torch.testing.assert_close(difference, normal - start)
        after = x - eta * difference - look.correction
    with torch.no_grad():
        image = model(batch.kspace, batch.mask, batch.n_acs).image[0]
    torch.testing.assert_close(after.abs(), image)
    torch.testing.assert_close(looks[0].inputs[0], looks[0].inputs[2])  # the latent image starts as x does
    assert len(figures.buffer_grid(looks, (24, 24)).axes) == 2 * 6


def test_a_networks_own_layers_as_control_give_its_own_weights(slices: SliceDataset) -> None:
    model = _model()
    own, control = figures.collect_prompts(model, model, slices)
    assert own.weights.shape == (2, 2, len(slices), 3)
    torch.testing.assert_close(own.weights, control.weights)
    torch.testing.assert_close(own.weights.sum(-1), torch.ones(2, 2, len(slices)))
    assert own.volume[:2] == (slices.volumes[0].name,) * 2
    other = figures.collect_prompts(model, _model(seed=1), slices)[1]
    assert not torch.allclose(other.weights, own.weights, atol=1e-3)


def _image(model: nn.Module, batch: Batch) -> Tensor:
    with torch.no_grad():
        image: Tensor = model(batch.kspace, batch.mask, batch.n_acs).image
    return image


def test_prompts_are_fixed_or_silenced_inside_and_free_again_afterwards(
    slices: SliceDataset, batch: Batch
) -> None:
    model = _model()
    before = _image(model, batch)
    own = figures.collect_prompts(model, model, slices)[0].weights[:, :, 0]
    with figures.with_prompts(model, own):
        torch.testing.assert_close(_image(model, batch), before, rtol=1e-3, atol=1e-3 * float(before.max()))
    with figures.with_prompts(model, torch.eye(3)[:2].expand(2, 2, 3)):  # a weight may be zero
        fixed = _image(model, batch)
    with figures.with_prompts(model, None):
        silent = _image(model, batch)
    assert fixed.isfinite().all() and not torch.equal(fixed, before) and not torch.equal(silent, before)
    assert torch.equal(_image(model, batch), before)


def _weights(*, tells_apart: bool) -> figures.PromptWeights:
    names, strong = ("AXT1",) * 8 + ("AXT2",) * 8, torch.tensor([0] * 8 + [int(tells_apart)] * 8)
    weights = 0.2 + 0.6 * nn.functional.one_hot(strong, 2)
    return figures.PromptWeights(weights[None, None], names, tuple("abcdefghijklmnop"))


def test_heat_map_shows_means_per_category_and_numbers_tell_a_choice_from_none() -> None:
    collected = {"same": _weights(tells_apart=False), "apart": _weights(tells_apart=True)}
    maps = figures.prompt_heatmap(collected, 0).data
    rows = dict(zip(maps[1].y, maps[1].z, strict=True))
    assert rows["AXT1"] == pytest.approx([0.8, 0.2]) and rows["AXT2"] == pytest.approx([0.2, 0.8])
    table = {row[0]: row[1:] for row in figures.prompt_table(collected).rows}
    assert table["apart, level 1"][0] == "2.00" and table["apart, level 1"][2:] == ("+1.00", "1.000")
    assert table["same, level 1"][1:3] == ("0.0000", "+0.00")


def test_checkpointing_keeps_less_and_gives_the_same_gradients(batch: Batch) -> None:
    plain, kept = figures.training_step(_model(), batch)
    again, kept_again = figures.training_step(_model(checkpointing=True), batch)
    assert kept_again < kept / 3
    for name, gradient in plain.items():
        atol = 1e-2 * float(gradient.abs().max())
        torch.testing.assert_close(again[name], gradient, rtol=1e-2, atol=atol)


def test_memory_counts_what_is_alive_and_nothing_else() -> None:
    x = torch.ones(8, 8, requires_grad=True)
    with LiveStorages() as storages:
        y = (x.view(64) + 1).square().sum()
    assert storages.live == 64 * 4 + 4  # what `square` was given, and the sum; not x, not the squares
    del y
    assert storages.live == 0
