"""PromptMR+: the published sizes, and what every network must survive."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from morelib.errors import UserError
from morelib.nn.promptmr_plus import CORRECTION, LATENT, PRESETS, promptmr_plus
from morelib.nn.unrolled import Unrolled
from morelib.physics.fourier import fft2c
from morelib.physics.masks import acs_columns
from morelib.physics.sense import expand, normalise_maps, rss
from morelib.routing.cab import ChannelAttentionBlock
from tests.nn.small import PROMPTMR_PLUS

TINY: dict[str, Any] = PROMPTMR_PLUS | {"cascades": 3}
VARIANTS: dict[str, dict[str, Any]] = {
    "promptmr_plus": {},
    "promptmr_plus, 3 slices": {"adjacent": 3},
    "promptmr, 3 slices": {"adjacent": 3, "adaptive_input": False, "history": 0, "sens_adjacent": False},
}
variants = pytest.mark.parametrize("variant", VARIANTS)


def _model(variant: str = "promptmr_plus", **options: Any) -> Unrolled:
    torch.manual_seed(0)
    return promptmr_plus(**{**TINY, "zero_init": False, **VARIANTS[variant], **options})


def _data(
    model: Unrolled, batch: int = 1, coils: int = 3, size: tuple[int, int] = (18, 14)
) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    mask = torch.rand(1, 1, 1, size[1], generator=generator) < 0.4
    mask = (mask | acs_columns(size[1], torch.tensor([6]))).expand(batch, -1, -1, -1)
    slices = (model.adjacent,) if model.adjacent > 1 else ()
    kspace = torch.randn(batch, *slices, coils, *size, dtype=torch.complex64, generator=generator)
    return 1e-4 * kspace * mask[0], mask


def _trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def _own_prelus(model: nn.Module, published: int) -> int:
    """How many parameters more our PReLUs have: one each, where all of the published network shares a few."""
    return sum(isinstance(module, nn.PReLU) for module in model.modules()) - published


PLAIN = {"adaptive_input": False, "history": 0, "sens_adjacent": False}


@pytest.mark.parametrize(
    ("preset", "options", "total", "trainable", "sensitivity"),
    [
        ("official", {}, 92_859_005, 82_491_005, 1_871_537),
        ("promptmr", {}, 81_528_317, 71_160_317, 1_865_009),
        ("paper", {}, 8_181_409, 5_109_409, 213_109),
        ("paper", {"adjacent": 5}, 8_444_705, 5_372_705, 215_285),
        ("paper", PLAIN, 7_485_025, 4_413_025, 213_109),
    ],
)
def test_parameters_are_the_published_ones_and_our_own_prelus(
    preset: str, options: dict[str, Any], total: int, trainable: int, sensitivity: int
) -> None:
    with torch.device("meta"):
        model = promptmr_plus(**{**PRESETS[preset], **options})
    # Published: one PReLU for each of the 12 + 1 U-Nets' first block, and one for all other blocks together.
    extra = _own_prelus(model, published=12 + 1 + 1)
    # 24 blocks in a prompt U-Net of 3 levels, and 3 more where it reads history.
    assert extra == 13 * 24 + (12 * 3 if options is not PLAIN and preset != "promptmr" else 0) - 14
    assert sum(p.numel() for p in model.parameters()) - extra == total
    assert sum(p.numel() for p in _trainable(model).values()) - extra == trainable
    extra = _own_prelus(model.sensitivity, published=2)
    assert sum(p.numel() for p in model.sensitivity.parameters()) - extra == sensitivity


def test_nothing_is_shared_between_modules_or_models() -> None:
    first, second = _model(), _model()
    prelus = [m for model in (first, second) for m in model.modules() if isinstance(m, nn.PReLU)]
    assert len({id(m.weight) for m in prelus}) == len(prelus)
    assert not {id(p) for p in first.parameters()} & {id(p) for p in second.parameters()}


@variants
@pytest.mark.parametrize(("size", "coils"), [((18, 14), 1), ((17, 13), 4), ((9, 22), 1), ((8, 8), 3)])
def test_image_has_the_size_of_kspace(variant: str, size: tuple[int, int], coils: int) -> None:
    model = _model(variant)
    image = model(*_data(model, 2, coils, size)).image
    assert image.shape == (2, *size) and image.dtype == torch.float32
    assert torch.isfinite(image).all() and image.max() > 0
    image.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in _trainable(model).values())


def test_28_coils() -> None:
    model = _model()
    assert torch.isfinite(model(*_data(model, coils=28)).image).all()


@variants
@torch.no_grad()
def test_equivariant_to_the_scale_of_kspace(variant: str) -> None:
    model = _model(variant)
    kspace, mask = _data(model)
    image, scaled = model(kspace, mask).image, model(1e4 * kspace, mask).image
    assert (1e4 * image - scaled).norm() / scaled.norm() < 1e-4


@variants
@torch.no_grad()
def test_a_sample_does_not_depend_on_its_neighbours_in_the_batch(variant: str) -> None:
    model = _model(variant)
    kspace, mask = _data(model, batch=3)
    together = model(kspace, mask).image
    alone = torch.cat([model(kspace[i : i + 1], mask[:1]).image for i in range(3)])
    torch.testing.assert_close(together, alone, rtol=1e-3, atol=1e-3 * together.max().item())


@variants
@pytest.mark.parametrize("damage", ["dead coil", "coil dead in one slice", "empty slice", "nothing"])
@pytest.mark.parametrize("published_start", [True, False])
def test_missing_signal_gives_no_nan(variant: str, damage: str, published_start: bool) -> None:
    model = _model(variant, zero_init=not published_start, restore_mean=published_start)
    kspace, mask = _data(model)
    slices = (
        kspace if kspace.ndim == 5 else kspace.unsqueeze(1)
    )  # a view: what is zeroed here is zero in kspace
    what = {"dead coil": (0, slice(None), 1), "coil dead in one slice": (0, 0, 1), "empty slice": (0, 0)}
    slices[what.get(damage, 0)] = 0
    image = model(kspace, mask).image
    assert torch.isfinite(image).all()
    image.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in _trainable(model).values())
    if damage == "dead coil":
        assert model.sensitivity(kspace, mask)[..., 1, :, :].abs().max() == 0
    if damage == "nothing":
        assert image.abs().max() == 0


@variants
def test_maps_have_a_root_sum_of_squares_of_one_in_every_slice(variant: str) -> None:
    model = _model(variant)
    kspace, mask = _data(model, 2)
    maps = model.sensitivity(kspace, mask, torch.tensor([6, 4]))
    assert maps.shape == kspace.shape
    torch.testing.assert_close(maps[1:], model.sensitivity(kspace[1:], mask[1:], 4), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(rss(maps, dim=-3), torch.ones(maps.shape[:-3] + maps.shape[-2:]))


@pytest.mark.parametrize("together", [True, False])
@torch.no_grad()
def test_maps_of_a_slice_look_at_its_neighbours_only_when_asked(together: bool) -> None:
    model = _model(adjacent=3, sens_adjacent=together)
    kspace, mask = _data(model)
    changed = kspace.clone()
    changed[:, 0] = changed[:, 0].roll(1, -2)
    before, after = model.sensitivity(kspace, mask)[:, 1], model.sensitivity(changed, mask)[:, 1]
    assert torch.allclose(before, after) != together


@torch.no_grad()
def test_given_maps_replace_the_network() -> None:
    model = _model()
    kspace, mask = _data(model)
    maps = model.sensitivity(kspace, mask, 6)
    torch.testing.assert_close(model(kspace, mask, sens_maps=maps).image, model(kspace, mask, n_acs=6).image)


@torch.no_grad()
def test_from_a_zero_start_fully_sampled_data_come_back() -> None:
    """The denoiser corrects nothing and consistency finds nothing to correct."""
    model = _model(zero_init=True)
    image, maps = torch.randn(1, 17, 14, dtype=torch.complex64), torch.randn(1, 3, 17, 14) + 0j
    maps = normalise_maps(maps)
    mask = torch.ones(1, 1, 1, 14, dtype=torch.bool)
    result = model(fft2c(expand(image, maps)), mask, sens_maps=maps).image
    torch.testing.assert_close(result, image.abs(), rtol=1e-5, atol=1e-6)


@variants
def test_gradients_reach_every_trainable_parameter_and_no_frozen_one(variant: str) -> None:
    model, missed = _model(variant), {"all"}
    trainable = _trainable(model)
    for _ in range(10):
        model.zero_grad()
        model(*_data(model)).image.square().sum().backward()
        missed = {name for name, p in trainable.items() if p.grad is None or p.grad.abs().max() == 0}
        # Where the attention's ReLU is off by chance, it is on from the other side: asked is whether there is a way.
        for module in model.modules():
            if isinstance(module, ChannelAttentionBlock) and not module.attention[1].weight.grad.any():
                module.attention[1].weight.data.neg_()
    assert missed == set()
    frozen = set(dict(model.named_parameters())) - set(trainable)
    assert frozen and all(name.endswith("prompt.images") for name in frozen)
    assert frozen <= set(model.state_dict())
    assert set(_trainable(_model(variant, learnable_prompts=True))) == set(trainable) | frozen


def test_of_the_outputs_only_correction_and_latent_are_read() -> None:
    model = _model(adjacent=3)
    model(*_data(model)).image.square().sum().backward()
    rows = model.cascades[0].denoiser.unet.unet.last.weight.grad.abs().sum((1, 2, 3))
    per_output = rows.reshape(2, 5, 3).sum((0, 2))  # real and imaginary, outputs, slices
    assert per_output.nonzero().flatten().tolist() == [CORRECTION, LATENT]


@variants
def test_trains(variant: str) -> None:
    """From the start that the presets use, on one batch that it may learn by heart."""
    model = _model(variant, cascades=2, zero_init=True)
    kspace, mask = _data(model, 2)
    target = torch.rand(2, 18, 14, generator=torch.Generator().manual_seed(2)) * 2e-4
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    losses = []
    for _ in range(20):
        loss = (model(kspace, mask).image - target).abs().mean() / target.mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]


def test_short_number_formats() -> None:
    model = _model()
    kspace, mask = _data(model)
    expected = model(kspace, mask).image
    with torch.autocast("cpu", torch.bfloat16):
        image = model(kspace, mask).image
    image.sum().backward()
    assert image.dtype == torch.float32
    assert (image - expected).norm() / expected.norm() < 0.1
    assert all(torch.isfinite(p.grad).all() for p in _trainable(model).values())


def test_options_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UserError, match="prompt_sizes has 3 entries for 3 widths; give one per level, 2"):
        _model(prompt_sizes=(8, 4, 2))
    with pytest.raises(UserError, match="adjacent = 4 has no middle slice; give an odd number"):
        _model(adjacent=4)
