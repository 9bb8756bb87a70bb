"""Figures of chapters 5 to 7: they show the numbers they were given."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from morelib.companion.figures.embeddings import category_table, tsne_figure, usage_figure
from morelib.companion.figures.images import Panel, image_grid, montage
from morelib.companion.figures.results import gain_by_volume, reconstruction_figure
from morelib.companion.figures.style import SYSTEM_COLOURS, SYSTEM_NAMES, system_name
from morelib.companion.figures.training import (
    loss_curves,
    read_log,
    router_curves,
    summary,
    trained_for,
    training_table,
    usage_curves,
)
from morelib.companion.profile import load_profile, profile_names
from morelib.data import SliceDataset, find_volumes
from morelib.evaluation import VolumeScore, ZeroFilled
from morelib.evaluation.routing import CollectedRouting


def _line(epoch: int, loss: float) -> dict[str, Any]:
    return {
        "epoch": epoch, "step": 10 * (epoch + 1), "train_ssim_loss": loss + 0.1, "val_ssim_loss": loss,
        "aux": 0.5, "sparse": 1.0, "z": 2.0, "tau": 0.1, "alpha_aux": 0.01, "seconds": 3.0,
        "load": [[0.5, 0.5], [1.0, 0.0]], "effective_experts": [2.0, 1.0], "effective_by_gate": [1.9, 1.0],
    }  # fmt: skip


LOG = [_line(0, 0.5), _line(1, 0.3), _line(2, 0.4)]


def test_a_log_is_read_back(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in LOG))
    assert read_log(tmp_path) == LOG


def test_summary_tells_the_best_epoch_and_the_last_usage() -> None:
    assert summary(LOG) == {
        "epochs": 3, "steps": 30, "best_epoch": 2, "val_ssim_loss": 0.3, "seconds": 9.0,
        "effective_by_gate": [1.9, 1.0],
    }  # fmt: skip


def test_runs_of_several_seeds_are_told_one_by_one_and_together() -> None:
    runs = [summary(LOG), summary(LOG[:2])]
    assert trained_for(runs) == "2 to 3 epochs,\n20 to 30 steps"
    assert trained_for(runs[:1]) == "3 epochs,\n30 steps"
    rows = training_table({"more": runs}, {"more": (0, 7)}, zero_filled=0.6).rows
    assert [row[0] for row in rows] == ["MoRE, seed 0", "MoRE, seed 7"]
    assert rows[1][1:] == ("2", "20", "2", "70.00 %", "6 s")


def test_every_arm_of_the_profiles_has_a_name_and_a_colour() -> None:
    for name in profile_names():
        arms = set(load_profile(name).models)
        assert arms <= set(SYSTEM_NAMES)
        assert arms <= set(SYSTEM_COLOURS)
    assert len(set(SYSTEM_COLOURS.values())) == len(SYSTEM_COLOURS)
    assert system_name("mine") == "mine"


def test_curves_hold_the_log() -> None:
    losses = loss_curves({"e2e_varnet": [LOG], "more": [LOG, LOG]}, zero_filled=0.6)
    assert len(losses.data) == 2 * 3
    assert list(losses.data[1].y) == [0.5, 0.3, 0.4]
    assert losses.layout.shapes[0].y0 == 0.6
    alone = loss_curves({"e2e_varnet": [LOG], "mine": [LOG]}, zero_filled=0.6, training=False)
    assert [tuple(trace.y) for trace in alone.data] == [(0.5, 0.3, 0.4)] * 2
    assert [trace.name for trace in alone.data] == ["E2EVarNet", "mine"]
    assert len(router_curves(LOG).data) == 3 + 2
    usage = usage_curves(LOG)
    assert [tuple(trace.y) for trace in usage.data] == [(2.0,) * 3, (1.0,) * 3, (1.9,) * 3, (1.0,) * 3]


def test_gains_are_paired_by_volume() -> None:
    def score(volume: str, psnr: float) -> VolumeScore:
        return VolumeScore(volume, "AXT2", volume, 2, 4.0, psnr, 0.9, 0.1, "synthetic")

    a, b = [score("x", 30.0), score("y", 31.0)], [score("y", 30.5), score("x", 31.0)]
    shown = [trace for trace in gain_by_volume(a, b, ("a", "b")).data if trace.y]
    assert list(shown[0].y) == [-1.0, 0.5]


def test_reconstructions_stand_above_their_errors(fastmri_files: Path) -> None:
    dataset = SliceDataset(find_volumes(fastmri_files), acceleration=3, center_fraction=0.2)
    figure = reconstruction_figure({"zero_filled": ZeroFilled()}, dataset, ["AXT2", "CORPD_FBK"])
    axes = np.array(figure.axes).reshape(4, 2)
    assert [axis.get_title() for axis in axes[0]] == ["target", "Zero-filled"]
    assert not axes[1, 0].images
    assert "dB" in axes[1, 1].get_title()
    target, prediction, error = (axis.images[0].get_array() for axis in (*axes[0], axes[1, 1]))
    np.testing.assert_allclose(error, np.abs(prediction - target), atol=1e-9)


def test_acquisitions_that_the_data_lack_are_left_out(fastmri_files: Path) -> None:
    brains = [v for v in find_volumes(fastmri_files) if v.anatomy == "brain"]
    dataset = SliceDataset(brains, acceleration=3, center_fraction=0.2)
    models = {"zero_filled": ZeroFilled()}
    assert len(reconstruction_figure(models, dataset, ["CORPD_FBK", "AXT2"]).axes) == 4
    (text,) = reconstruction_figure(models, dataset, ["CORPD_FBK"]).texts
    assert text.get_text() == "These data have no knee-nofs."
    no_knees = _routing().of_anatomy("knee")
    assert not no_knees.volume
    assert not tsne_figure({"trained": no_knees}, cascade=1).data


def test_grid_scales_to_the_panel_or_its_percentile() -> None:
    image = np.arange(200.0).reshape(10, 20)
    figure = image_grid([[Panel(image), Panel(image, vmax=50.0), None]])
    scales = [axis.images[0].get_clim()[1] for axis in figure.axes[:2]]
    assert scales == [pytest.approx(np.percentile(image, 99.5)), 50.0]


@pytest.mark.parametrize(("panels", "places"), [(0, 0), (1, 4), (4, 4), (7, 8)])
def test_a_montage_takes_any_number_of_panels(panels: int, places: int) -> None:
    figure = montage([Panel(np.ones((4, 5)))] * panels)
    assert len(figure.axes) == places
    assert sum(len(axis.images) for axis in figure.axes) == panels


def _routing() -> CollectedRouting:
    generator = torch.Generator().manual_seed(0)
    names = ("AXT2",) * 6 + ("AXT1",) * 6
    selected = torch.tensor([[0]] * 6 + [[1]] * 6).expand(2, 12, 1)
    return CollectedRouting(
        torch.rand(2, 12, 3, generator=generator), selected, torch.randn(2, 12, 5, generator=generator),
        names, tuple(f"{name}-{i}" for i, name in enumerate(names)),
    )  # fmt: skip


def test_categories_are_held_against_embeddings_and_choices() -> None:
    table = category_table({"trained": _routing()}, cascade=1, caption="")
    # No knees, no row. The choices of `_routing` follow its two categories, its embeddings are noise.
    ((name, slices, near, chance, agreement),) = table.rows
    assert (name, slices, chance, agreement) == ("trained, brain", "12", "0.50", "+1.00, +1.00")
    assert 0 <= float(near) < 1


def test_usage_shows_who_went_where() -> None:
    figure = usage_figure(_routing())
    assert len(figure.data) == 2
    assert dict(zip(figure.data[0].y, map(tuple, figure.data[0].z), strict=True)) == {
        "AXT2": (1.0, 0.0, 0.0),
        "AXT1": (0.0, 1.0, 0.0),
    }


def test_tsne_draws_every_slice_once_per_router() -> None:
    figure = tsne_figure({"trained": _routing(), "untrained": _routing()}, cascade=1)
    assert sum(len(trace.x) for trace in figure.data) == 2 * 12
    assert {trace.name for trace in figure.data} == {"AXT1", "AXT2"}
