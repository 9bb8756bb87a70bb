"""Top-K: noise changes the selection only, ties go to the lower index."""

import pytest
import torch

from morelib.routing.selection import expert_counts, select_top_k


def test_without_noise_the_largest_are_chosen() -> None:
    gates = torch.rand(50, 6).softmax(-1)
    assert torch.equal(select_top_k(gates, 3), gates.topk(3).indices)


def test_ties_go_to_the_lower_index() -> None:
    assert select_top_k(torch.full((2, 5), 0.2), 3).tolist() == [[0, 1, 2], [0, 1, 2]]


def test_large_noise_chooses_evenly_and_small_noise_hardly_ever_differs() -> None:
    gates = torch.tensor([0.4, 0.3, 0.2, 0.1]).expand(20_000, 4)
    generator = torch.Generator().manual_seed(0)
    noisy = expert_counts(select_top_k(gates, 1, tau=100.0, generator=generator), 4) / 20_000
    assert (noisy - 0.25).abs().max() < 0.02
    calm = expert_counts(select_top_k(gates, 1, tau=0.01, generator=generator), 4) / 20_000
    assert calm[0] > 0.999


def test_noise_is_drawn_from_the_given_generator() -> None:
    gates = torch.rand(100, 8)
    chosen = [select_top_k(gates, 2, 1.0, torch.Generator().manual_seed(5)) for _ in range(2)]
    assert torch.equal(*chosen)


@pytest.mark.parametrize("k", [0, 5])
def test_k_out_of_range_is_refused(k: int) -> None:
    with pytest.raises(ValueError, match="there are 4 experts"):
        select_top_k(torch.rand(1, 4), k)


def test_counts() -> None:
    assert expert_counts(torch.tensor([[0, 2], [2, 3]]), 5).tolist() == [1, 0, 2, 1, 0]
