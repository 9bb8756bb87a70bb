"""Routing collected over a data set, and what is said about its embeddings."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from morelib.companion.figures.routing import draw_gates
from morelib.data import SliceDataset, find_volumes
from morelib.evaluation import ZeroFilled
from morelib.evaluation.routing import (
    CollectedRouting,
    collect_control,
    collect_routing,
    collect_scales,
    neighbour_accuracy,
    tsne,
    without_common_part,
)
from morelib.nn import build_model


@pytest.fixture(scope="module")
def routing(fastmri_files: Path) -> CollectedRouting:
    torch.manual_seed(0)
    options = {"cascades": 2, "widths": (4, 6), "sens_widths": (2, 4), "n_experts": 3, "top_k": 2}
    dataset = SliceDataset(find_volumes(fastmri_files), acceleration=3, center_fraction=0.2)
    return collect_routing(build_model("more", **options).train(), dataset)


def test_every_slice_is_collected_with_its_labels(routing: CollectedRouting) -> None:
    assert routing.gates.shape == (2, 28, 3)
    assert routing.selected.shape == (2, 28, 2)
    assert routing.embedding.shape == (2, 28, 64)
    assert len(set(routing.volume)) == 14
    assert set(routing.acquisition) >= {"AXT2", "CORPD_FBK"}


def test_anatomies_part_the_slices(routing: CollectedRouting) -> None:
    brain, knee = routing.of_anatomy("brain"), routing.of_anatomy("knee")
    assert len(brain.volume) == 20 and len(knee.volume) == 8
    assert all(name.startswith("COR") for name in knee.acquisition)
    row = routing.volume.index(knee.volume[0])
    assert torch.equal(knee.embedding[1, 0], routing.embedding[1, row])


@pytest.mark.parametrize("shared_router", [False, True])
def test_the_control_sees_the_same_inputs(fastmri_files: Path, shared_router: bool) -> None:
    options = {"cascades": 2, "widths": (4, 6), "sens_widths": (2, 4), "n_experts": 3, "top_k": 2}
    torch.manual_seed(0)
    model, other = (build_model("more", **options, shared_router=shared_router) for _ in range(2))
    dataset = SliceDataset(find_volumes(fastmri_files)[:3], acceleration=3, center_fraction=0.2)
    own = collect_routing(model, dataset)
    same, control = collect_control(model, model, dataset), collect_control(model, other, dataset)
    torch.testing.assert_close(same.embedding, own.embedding)
    assert torch.equal(same.selected, own.selected)
    assert control.embedding.shape == own.embedding.shape
    assert not torch.allclose(control.embedding, own.embedding)
    assert collect_routing(model, dataset).embedding.equal(own.embedding)  # nothing stays behind
    # A fresh W is zero: equal gates, the first experts for every slice, a choice that says nothing.
    assert control.gates.std(-1).max() == 0
    assert control.selected.unique().tolist() == [0, 1]
    drawn = collect_control(model, draw_gates(other), dataset)
    torch.testing.assert_close(drawn.embedding, control.embedding)
    assert drawn.gates.std(-1).min() > 0 and drawn.gates.std(1).max() > 0
    assert not torch.equal(drawn.selected.sort(-1).values, control.selected.sort(-1).values)


def test_what_all_slices_share_decides_nothing_once_it_is_taken_out(fastmri_files: Path) -> None:
    torch.manual_seed(0)
    options = {"cascades": 2, "widths": (4, 6), "sens_widths": (2, 4), "n_experts": 3, "top_k": 1}
    drawn = draw_gates(build_model("more", **options))
    control = collect_routing(drawn, SliceDataset(find_volumes(fastmri_files)[:3]))
    drawn, control = drawn.double(), replace(control, embedding=control.embedding.double())
    shared = replace(control, embedding=control.embedding + 1e3 * control.embedding.mean(1, keepdim=True))
    without, without_shared = (without_common_part(routing, drawn) for routing in (control, shared))
    torch.testing.assert_close(without_shared.gates, without.gates, rtol=1e-9, atol=1e-9)
    assert torch.equal(without_shared.selected, without.selected)
    # Each slice lies on either side of the mean, so that they do not all choose alike.
    assert all(len(selected.unique()) > 1 for selected in without.selected)


def test_a_network_without_router_is_refused(fastmri_files: Path) -> None:
    dataset = SliceDataset(find_volumes(fastmri_files)[:1], acceleration=3, center_fraction=0.2)
    with pytest.raises(ValueError, match="no router"):
        collect_routing(ZeroFilled(), dataset)


def _clusters(per_volume: int = 4) -> tuple[torch.Tensor, tuple[str, ...], tuple[str, ...]]:
    """Two labels with three volumes each, far apart."""
    generator = torch.Generator().manual_seed(0)
    points, labels, volumes = [], [], []
    for label, centre in (("a", 0.0), ("b", 10.0)):
        for volume in range(3):
            points.append(centre + torch.randn(per_volume, 8, generator=generator))
            labels += [label] * per_volume
            volumes += [f"{label}{volume}"] * per_volume
    return torch.cat(points), tuple(labels), tuple(volumes)


def test_neighbours_tell_labels_apart_that_are_apart() -> None:
    assert neighbour_accuracy(*_clusters()) == 1.0


def test_neighbours_of_the_same_volume_do_not_count() -> None:
    """Slices of a volume cluster, labels do not: own slices would give every answer away."""
    generator = torch.Generator().manual_seed(0)
    centres = 100 * torch.randn(6, 8, generator=generator)
    points = centres.repeat_interleave(10, 0) + torch.randn(60, 8, generator=generator)
    volumes = tuple(f"v{number // 10}" for number in range(60))
    labels = tuple("ab"[number // 10 % 2] for number in range(60))
    assert neighbour_accuracy(points, labels, volumes) < 0.8


def test_tsne_is_deterministic_and_keeps_clusters_apart() -> None:
    points, labels, _ = _clusters()
    first, second = tsne(points, seed=1), tsne(points, seed=1)
    np.testing.assert_array_equal(first, second)
    names = np.array(labels)
    centres = [first[names == name].mean(0) for name in "ab"]
    spread = max(first[names == name].std() for name in "ab")
    assert np.linalg.norm(centres[0] - centres[1]) > spread


def test_the_scales_are_those_of_the_gated_control(fastmri_files: Path) -> None:
    torch.manual_seed(0)
    model = build_model("gated_dense", cascades=2, widths=(4, 6), sens_widths=(2, 4))
    for cascade, bias in zip(model.cascades, (20.0, -1.0), strict=True):
        router = cascade.denoiser.router
        router.register_forward_hook(
            lambda _, __, output, bias=bias: output._replace(logits=output.logits + bias)
        )
    dataset = SliceDataset(find_volumes(fastmri_files)[:2], acceleration=3, center_fraction=0.2)
    scales = collect_scales(model, dataset)
    assert scales.shape == (2, len(dataset))
    torch.testing.assert_close(scales[0], torch.ones(len(dataset)))
    assert (scales[1] < 0.5).all()
