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


@pytest.mark.parametrize("name", ["e2e_varnet", "gated_dense", "image_unet"])
def test_a_network_without_experts_runs_whole(name: str) -> None:
    size = SMALL if name != "image_unet" else {"widths": (4, 6, 8)}
    model = build_model(name, **size)
    assert count_parameters(model) == (sum(p.numel() for p in model.parameters()),) * 2


def test_a_gated_dense_network_is_a_more_with_one_expert() -> None:
    gated, one = (
        build_model(n, **SMALL, **o) for n, o in (("gated_dense", {}), ("more", {"n_experts": 1, "top_k": 1}))
    )
    assert count_parameters(gated) == count_parameters(one)
