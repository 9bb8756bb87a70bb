"""Figures of the HiFi-MambaV2 chapter: what they draw and table is what the network does."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from morelib.companion.figures import hifi_mamba as figures
from morelib.data import SliceDataset, collate, find_volumes
from morelib.evaluation import VolumeScore, ZeroFilled, evaluate
from morelib.nn import Unrolled, build_model
from morelib.nn.hifi_mamba.scan import selective_scan
from morelib.physics.fourier import fft2c

SMALL: dict[str, Any] = {
    "cascades": 2, "blocks": 1, "width": 16, "state": 2, "n_experts": 3, "sens_widths": (4, 6),
    "drop_path": 0.0, "dropout": 0.0, "zero_init": False,
}  # fmt: skip


def _model(seed: int = 0) -> Unrolled:
    torch.manual_seed(seed)
    return build_model("hifi_mamba_v2", **SMALL).eval()


@pytest.fixture
def dataset(fastmri_files: Path) -> SliceDataset:
    return SliceDataset([v for v in find_volumes(fastmri_files) if v.has_target][:2], "random", 4, 0.1)


def test_the_printed_recurrence_is_the_scan() -> None:
    u, dt = torch.randn(2, 70, 3).double(), torch.rand(2, 70, 3).double()
    A, B, C = -torch.rand(3, 2).double(), torch.randn(2, 70, 2).double(), torch.randn(2, 70, 2).double()
    D = torch.randn(3).double()
    torch.testing.assert_close(figures.recurrence(u, dt, A, B, C, D), selective_scan(u, dt, A, B, C, D))


def test_sizes_are_counted_without_the_coil_maps() -> None:
    official, paper, ours = figures.size_table(SMALL).rows
    assert official[2] == "6,913,996" and official[5] == "7.141 M" and paper[2] == "3,288,396"
    cascades = (p for name, p in _model().named_parameters() if name.startswith("cascades"))
    assert int(ours[2].replace(",", "")) == sum(p.numel() for p in cascades)


def test_a_look_inside_has_the_routing_of_the_output_and_leaves_no_hook(dataset: SliceDataset) -> None:
    model, batch = _model(), collate([dataset[0]])
    before = model(batch.kspace, batch.mask, batch.n_acs)
    looks = figures.look_inside(model, batch)
    other = figures.look_inside(model, batch, _model(seed=1))
    assert before.routing is not None
    for look, control, record in zip(looks, other, before.routing, strict=True):
        assert look.weight.shape == look.selected.shape == look.gate.shape == batch.target.shape[1:]
        assert set(look.selected.unique().tolist()) <= set(record.selected.unique().tolist())
        torch.testing.assert_close(control.weight, look.weight)  # the image and its features are not touched
    assert any(not torch.equal(a.selected, b.selected) for a, b in zip(looks, other, strict=True))
    after = model(batch.kspace, batch.mask, batch.n_acs)
    assert torch.equal(before.image, after.image)
    assert not any(module._forward_hooks for module in model.modules())


def test_interventions_move_every_pixel_on_by_one_or_silence_the_routed_experts(
    dataset: SliceDataset,
) -> None:
    model, batch = _model(), collate([dataset[0]])
    chosen = figures.look_inside(model, batch)[0].selected
    with figures.next_expert(model):
        assert torch.equal(figures.look_inside(model, batch)[0].selected, (chosen + 1) % 3)
    with figures.shared_expert_only(model):
        silent = model(batch.kspace, batch.mask, batch.n_acs).image
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".routed." in name:
                parameter.zero_()
    torch.testing.assert_close(silent, model(batch.kspace, batch.mask, batch.n_acs).image)


def test_pixels_are_collected_and_tabled(dataset: SliceDataset) -> None:
    routes = figures.collect_routes(_model(), dataset, "cpu")
    pixels = sum(v.recon[0] * v.recon[1] for v in dataset.volumes)
    assert routes.selected.shape == routes.gate.shape == (2, pixels)
    assert len(routes.bright) == len(routes.edge) == len(routes.category) == pixels
    assert not (routes.edge & ~routes.bright).any()
    # An expert that tells bright from dark agrees with it wholly.
    ideal = routes._replace(selected=routes.bright.long().expand(2, -1))
    table = figures.routes_table({"a": routes, "ideal": ideal})
    assert [row[0] for row in table.rows] == ["a, block 1", "a, block 2", "ideal, block 1", "ideal, block 2"]
    assert table.rows[2][3] == "+1.000" and table.rows[2][4] == "+0.000"
    assert len(figures.middle_psnr(_model(), dataset, "cpu")) == 2


def test_a_simulated_coil_has_the_target_as_its_image(dataset: SliceDataset) -> None:
    single = figures.SimulatedSingleCoil(dataset)
    item, measured = single[0], dataset[0]
    assert torch.equal(item.target, measured.target) and item.kspace.shape == (1, *item.target.shape)
    expected = torch.where(item.mask, fft2c(item.target.to(torch.complex64))[None], 0)
    torch.testing.assert_close(item.kspace, expected)
    assert {score.origin for score in evaluate(ZeroFilled(), single)} <= {"simulated", "synthetic"}


def test_grids_and_tables_are_drawn() -> None:
    look = figures.BlockLook(torch.rand(6, 4), torch.randint(3, (6, 4)), torch.rand(6, 4))
    assert len(figures.consensus_grid(torch.rand(6, 4), [look] * 5).axes) == 8
    grid = figures.routing_grid({"brain": (torch.rand(6, 4), {"first": look.selected})}, 3)
    drawn = np.asarray(grid.axes[1].images[0].get_array())
    assert len(np.unique(drawn.reshape(-1, 3), axis=0)) == len(look.selected.unique())
    score = VolumeScore("v", "AXT2", "p", 2, 3.9, 30.0, 0.9, 0.01, "synthetic")
    (row,) = figures.quality_table({"4×": {"tv_sense": [score]}}, "").rows
    assert row == ("4×\nnet 3.9×, 1 volumes", "TV-SENSE", "30.00", "90.00", "0.0100", "not available")
    line = {"train_ssim_loss": 0.4, "val_ssim_loss": 0.3, "balance": 1.1, "load": [[0.2, 0.8], [0.5, 0.5]]}
    lines = [{**line, "epoch": epoch} for epoch in range(2)]
    assert len(figures.training_figure(lines, 0.5).data) == 3 + 2 * 2
