"""Figures of chapters 1 and 2: made from tiny inputs, with one trace, step or row for each thing they show."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from morelib import build_model
from morelib.companion.figures import physics, unroll
from morelib.companion.figures.images import Panel
from morelib.companion.figures.slider import image_slider
from morelib.companion.source import show_source
from morelib.data import Batch, SliceDataset, collate, find_volumes
from morelib.nn import Unrolled
from morelib.physics.consistency import kspace_step
from morelib.physics.masks import MASKS, make_mask

TINY = {"cascades": 3, "widths": (2, 4), "sens_widths": (2, 4)}


@pytest.fixture(scope="module")
def batch(fastmri_files: Path) -> Batch:
    dataset = SliceDataset(find_volumes(fastmri_files), acceleration=3, center_fraction=0.15)
    return collate([dataset[0]])


@pytest.fixture
def model() -> Iterator[Unrolled]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield build_model("e2e_varnet", **TINY, zero_init=False).eval()


def test_slider_shows_one_step_at_a_time_and_its_captions() -> None:
    steps = {
        label: [Panel(np.eye(4), "a", note=label), Panel(np.ones((4, 4)), "b")]
        for label in ("2×", "4×", "8×")
    }
    figure = image_slider(steps, active=1)
    assert len(figure.data) == 6
    assert [trace.visible for trace in figure.data] == [False, False, True, True, False, False]
    moves = figure.layout.sliders[0].steps
    assert [move.label for move in moves] == list(steps)
    for number, move in enumerate(moves):
        visible, captions = move.args
        assert [at // 2 for at, shown in enumerate(visible["visible"]) if shown] == [number, number]
        assert move.label in captions["annotations[0].text"]
    assert figure.layout.annotations[0].text == moves[1].args[1]["annotations[0].text"]


def test_mask_strips_have_a_row_per_mask_and_mark_its_columns() -> None:
    masks = [make_mask(kind, 40, 4, 0.1) for kind in MASKS]
    figure = physics.mask_strips(masks)
    for axis, mask in zip(figure.axes, masks, strict=True):
        code = np.asarray(axis.images[0].get_array())[0]
        assert ((code > 0) == mask.mask.numpy()).all()
        assert (code == 2).sum() == mask.n_acs


def test_acceleration_bar_is_the_ratio_of_columns_not_the_mean_of_ratios() -> None:
    figure = physics.acceleration_bars({"one": {"random": [2.0, 6.0]}}, [4])
    assert figure.data[0].y == pytest.approx([3.0])  # 12 columns: 6 and 2 sampled, 4 on average
    assert figure.data[0].error_y.array == pytest.approx([3.0])


def test_a_full_mask_spreads_nothing() -> None:
    full = make_mask("random", 20, 1, 0.1)
    spread = np.asarray(physics.point_spread([full]).data[0].y)
    assert spread[10] == 1
    assert np.delete(spread, 10) == pytest.approx(0, abs=1e-6)


def test_log_magnitude_is_one_at_the_peak_and_zero_below_its_decades() -> None:
    kspace = torch.tensor([[1.0, 0.1, 1e-9]], dtype=torch.complex64)
    assert physics.log_magnitude(kspace, decades=2)[0] == pytest.approx([1, 0.5, 0])


def test_montage_has_a_picture_per_contrast_of_any_size() -> None:
    figure = physics.contrast_montage({"AXT1": np.eye(4), "CORPD_FBK": np.ones((5, 6))})
    assert sum(len(axis.images) for axis in figure.axes) == 2


def test_convergence_marks_the_smallest_error() -> None:
    assert physics.convergence([3.0, 2.0, 1.0], [3.0, 1.0, 2.0]).data[2].x == (1,)


@pytest.mark.parametrize("name", ["e2e_varnet", "more"])
def test_follow_sees_every_cascade_and_leaves_the_model_as_it_was(name: str, batch: Batch) -> None:
    model = build_model(name, **TINY).eval()
    journey = unroll.follow(model, batch)
    with torch.no_grad():
        image = model(batch.kspace, batch.mask, batch.n_acs).image
    assert (len(journey.images), len(journey.corrections)) == (4, 3)
    assert torch.equal(journey.images[-1], image)
    assert not any(module._forward_hooks for module in model.modules())


def test_unroll_figures_show_what_they_are_given(batch: Batch, model: Unrolled) -> None:
    journey = unroll.follow(model, batch)
    grid = unroll.cascade_grid({"a": journey.images, "b": journey.images}, batch.target, shown=3)
    assert len(grid.axes) == 2 * (3 + 1)
    curves = unroll.cascade_curves({"a": journey}, batch.target)
    assert [len(trace.y) for trace in curves.data] == [4, 3, 3]
    assert len(unroll.feature_grid([torch.rand(1, 2, 8, 4), torch.rand(1, 3, 4, 2)]).axes) == 2
    assert len(unroll.step_size_curves({"p": {0.5: [1, 0.5]}, "q": {0.5: [1, 0.8]}}).data) == 2


def test_parameter_table_adds_up(model: Unrolled) -> None:
    (row,) = unroll.parameter_table({"tiny": model}).rows
    cascades, each, sensitivity, total = (int(cell.replace(",", "")) for cell in row[1:])
    assert cascades * each + sensitivity == total == sum(p.numel() for p in model.parameters())


def test_show_source_is_the_code_that_runs() -> None:
    assert "torch.where(mask, kspace - measured, 0.0)" in show_source(kspace_step).data
