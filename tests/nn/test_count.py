"""Parameter counts: total and what runs for one slice."""

import pytest

from morelib.nn import build_model
from morelib.nn.count import count_parameters

SMALL = {"cascades": 2, "widths": (4, 6, 8), "sens_widths": (4, 6)}


@pytest.mark.parametrize("top_k", [1, 3])
def test_active_parameters_grow_by_one_decoder_per_chosen_expert(top_k: int) -> None:
    model = build_model("more", n_experts=5, top_k=top_k, **SMALL)
    decoder = sum(p.numel() for p in model.cascades[0].denoiser.experts[0].parameters())
    total, active = count_parameters(model)
    assert total == sum(p.numel() for p in model.parameters())
    assert total - active == 2 * decoder * (5 - top_k)


def test_a_dense_network_runs_whole() -> None:
    total, active = count_parameters(build_model("e2e_varnet", **SMALL))
    assert total == active
