"""Figures of the router and of load balancing: what they draw is what the library computes."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from morelib import build_model
from morelib.companion.figures import balancing, routing
from morelib.companion.router_only import RouterRun, RouterState
from morelib.nn.more import MoreDenoiser
from morelib.training import TrainConfig

SMALL = {"cascades": 2, "widths": (4, 6), "sens_widths": (4, 6), "n_experts": 3, "top_k": 1}


def _denoiser() -> MoreDenoiser:
    denoiser = build_model("more", **SMALL).cascades[0].denoiser
    assert isinstance(denoiser, MoreDenoiser)
    return denoiser


def test_frames_cover_what_each_level_keeps_under_a_centre_crop() -> None:
    features = [torch.rand(1, 2, 32, 24), torch.rand(1, 2, 16, 12), torch.rand(1, 2, 8, 6)]
    figure = routing.crop_figure(torch.rand(32, 24), features)
    frames = figure.axes[0].patches
    assert [(frame.get_width(), frame.get_height()) for frame in frames] == [(6, 8), (12, 16), (24, 32)]  # type: ignore[attr-defined]
    assert "1/4 × 1/4" in figure.axes[1].get_title()


def test_gates_are_drawn_with_a_box_around_each_selected_expert() -> None:
    gates = torch.tensor([[0.7, 0.2, 0.1], [0.2, 0.3, 0.5]])
    figure = routing.gates_figure(gates, torch.tensor([[0, 1], [2, 1]]), ["AXT2", "CORPD_FBK"])
    np.testing.assert_allclose(figure.data[0].z, gates)
    assert [round(box.x0 + 0.47) for box in figure.layout.shapes] == [0, 1, 2, 1]
    assert list(figure.data[0].y) == ["AXT2", "knee-nofs"]


def test_flip_rate_goes_from_none_to_chance_and_falls_with_the_margin() -> None:
    assert routing.flip_rate(0.1, [0.0], 4) == [0]
    assert routing.flip_rate(0.1, [100.0], 4)[0] == pytest.approx(0.75, abs=0.03)
    # Two experts, margin m: the difference of two noises has standard deviation tau * sqrt(2).
    exact = 0.5 * math.erfc(0.1 / (0.1 * math.sqrt(2)) / math.sqrt(2))
    assert routing.flip_rate(0.1, [0.1], 2)[0] == pytest.approx(exact, abs=0.03)
    curves = routing.flip_curves((0.01, 0.3), 4).data
    assert np.all(np.asarray(curves[0].y) >= np.asarray(curves[1].y))


def test_parameter_bars_add_up_to_the_denoiser() -> None:
    denoiser = _denoiser()
    total = sum(parameter.numel() for parameter in denoiser.parameters())
    sums = np.sum([bar.x for bar in routing.parameter_bars(denoiser).data], axis=0)
    assert sums.tolist() == [total] * 3


def test_drawing_gates_wakes_every_router_and_gradients_are_told_apart() -> None:
    model = routing.draw_gates(build_model("more", **SMALL))
    weights = [p for name, p in model.named_parameters() if name.endswith("gate.weight")]
    assert len(weights) == 2 and all(weight.abs().max() > 0 for weight in weights)
    nn.utils.parameters_to_vector(weights).square().sum().backward()
    norms = routing.gradient_norms(model)
    assert norms["router"] > 0 and norms["everything else"] == 0


def test_two_expert_losses_are_symmetric_with_their_extremes_where_they_belong() -> None:
    gates, losses = balancing.two_expert_losses(points=11)
    aux, sparse, z = (np.array([float(getattr(loss, f)) for loss in losses]) for f in ("aux", "sparse", "z"))
    for term in (aux, sparse, z):
        np.testing.assert_allclose(term, term[::-1], rtol=1e-9)
    assert gates[aux.argmin()] == gates[sparse.argmax()] == gates[z.argmin()] == pytest.approx(0.5)
    np.testing.assert_allclose(aux, np.maximum(gates, 1 - np.asarray(gates)))
    assert len(balancing.loss_curves(TrainConfig()).data) == 6


def test_annealing_curves_end_where_the_paper_says() -> None:
    tau, alpha = (line.y for line in balancing.annealing_curves(TrainConfig()).data[:2])
    assert (tau[0], tau[-1], alpha[0], alpha[-1]) == pytest.approx((1, 0.01, 0.1, 0.001))


def _run(load: list[float], effective: float) -> RouterRun:
    state = RouterState(load, effective, entropy=0.5, information=0.1, agreement=-0.001)
    return RouterRun([0, 10], [state, state])


def test_runs_are_drawn_and_tabled_one_by_one() -> None:
    runs = {"a": [_run([0.25, 0.75], 1.75), _run([1.0, 0.0], 1.0)], "b": [_run([0.5, 0.5], 2.0)]}
    bars = balancing.load_bars(runs).data
    assert list(bars[0].x) == [0.75, 1.0, 0.5] and list(bars[0].y) == ["a, seed 0", "a, seed 1", "b, seed 0"]
    assert len(balancing.collapse_curves(runs, 2).data) == 3
    assert [list(points.x) for points in balancing.decision_plane(runs, 2).data] == [[1.75, 1.0], [2.0]]
    states = {name: [run.final for run in seeds] for name, seeds in runs.items()}
    rows = balancing.outcome_table(states, "caption").rows
    assert rows[0] == ("a", "1.38\n(1.00 to 1.75)", "0.50", "0.100", "0.00")


def test_scales_are_tabled_by_seed_and_cascade() -> None:
    rows = routing.scales_table(
        {0: torch.tensor([[0.25, 0.75], [1.0, 1.0]]), 3: torch.zeros(2, 1)}, "Gates."
    ).rows
    assert [row[0] for row in rows] == [
        f"seed {seed}, cascade {number}" for seed in (0, 3) for number in (1, 2)
    ]
    assert rows[0][1:] == ("0.250", "0.500", "0.750")
