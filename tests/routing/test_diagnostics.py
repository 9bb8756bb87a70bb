"""Router diagnostics at their limits."""

import math

import pytest
import torch

from morelib.routing.diagnostics import (
    effective_experts,
    expert_load,
    gate_information,
    label_agreement,
    usage_by_label,
)


def test_effective_experts_from_collapse_to_balance() -> None:
    assert effective_experts(torch.tensor([1.0, 0.0, 0.0])) == pytest.approx(1)
    assert effective_experts(torch.full((4,), 0.25)) == pytest.approx(4)


def test_information_is_zero_when_all_samples_agree_and_log_n_when_each_is_sure_of_another() -> None:
    same = torch.tensor([[0.7, 0.2, 0.1]] * 5)
    assert gate_information(same)[2] == pytest.approx(0, abs=1e-9)
    sample, mean, information = gate_information(torch.eye(4))
    assert (sample, mean) == (pytest.approx(0), pytest.approx(math.log(4)))
    assert information == pytest.approx(math.log(4))


def test_load_and_usage() -> None:
    selected = torch.tensor([[0, 1], [0, 1], [2, 1], [2, 3]])
    assert expert_load(selected, 4).tolist() == pytest.approx([2 / 8, 3 / 8, 2 / 8, 1 / 8])
    usage = usage_by_label(selected, ["brain", "brain", "knee", "knee"], 4)
    assert usage == {"brain": [0.5, 0.5, 0, 0], "knee": [0, 0.25, 0.5, 0.25]}


def test_agreement_ignores_the_order_of_the_chosen_and_is_zero_for_a_collapsed_router() -> None:
    labels = ["a", "a", "b", "b"]
    assert label_agreement(torch.tensor([[0, 1], [1, 0], [2, 3], [3, 2]]), labels) == pytest.approx(1)
    assert label_agreement(torch.zeros(4, 2, dtype=torch.long), labels) == pytest.approx(0)
