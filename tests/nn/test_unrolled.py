"""Properties that every network of the registry has."""

from typing import Any

import pytest
import torch
from torch import Tensor

from morelib.errors import UserError
from morelib.nn import Unrolled, build_model
from morelib.nn.registry import NETWORKS
from morelib.nn.unrolled import Context
from morelib.physics.consistency import kspace_step
from morelib.physics.fourier import ifft2c
from morelib.physics.masks import acs_columns
from morelib.physics.sense import SenseOperator, rss
from tests.nn.small import PROMPTMR_PLUS

UNET = {"cascades": 2, "widths": (4, 6, 8), "sens_widths": (4, 6), "zero_init": False}
MAMBA = {
    "cascades": 2, "blocks": 1, "width": 8, "state": 2, "n_experts": 2, "sens_widths": (4, 6), "drop_path": 0.0,
    "dropout": 0.0, "zero_init": False,
}  # fmt: skip
# Every network at a size for tests, and the forms of consistency it has beside its usual one.
SYSTEMS: dict[str, tuple[str, dict[str, Any]]] = {
    "e2e_varnet": ("e2e_varnet", UNET),
    "e2e_varnet, image": ("e2e_varnet", UNET | {"consistency": "image"}),
    "more": ("more", UNET),
    "more, image": ("more", UNET | {"consistency": "image"}),
    "promptmr_plus": ("promptmr_plus", PROMPTMR_PLUS | {"cascades": 2, "zero_init": False}),
    "hifi_mamba_v2": ("hifi_mamba_v2", MAMBA),
    "gated_dense": ("gated_dense", UNET),
    "image_unet": ("image_unet", {"widths": (4, 6, 8), "zero_init": False}),
}


def _model(system: str, **options: Any) -> Any:
    torch.manual_seed(0)
    name, small = SYSTEMS[system]
    return build_model(name, **{**small, **options}).eval()


def _data(batch: int = 1, coils: int = 3, height: int = 30, width: int = 22) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    mask = torch.rand(1, 1, 1, width, generator=generator) < 0.4
    mask = (mask | acs_columns(width, torch.tensor([6]))).expand(batch, -1, -1, -1)
    kspace = torch.randn(batch, coils, height, width, dtype=torch.complex64, generator=generator)
    return 1e-4 * kspace * mask, mask


systems = pytest.mark.parametrize("system", SYSTEMS)
with_maps = pytest.mark.parametrize("system", [system for system in SYSTEMS if system != "image_unet"])


def test_every_network_is_tried() -> None:
    assert {name for name, _ in SYSTEMS.values()} == set(NETWORKS)


@systems
@pytest.mark.parametrize("size", [(30, 22), (31, 23), (16, 17), (9, 40)])
@pytest.mark.parametrize("coils", [1, 28])
def test_image_has_the_size_of_kspace(system: str, size: tuple[int, int], coils: int) -> None:
    kspace, mask = _data(2, coils, *size)
    image = _model(system)(kspace, mask).image
    assert image.shape == (2, *size)
    assert image.dtype == torch.float32
    assert torch.isfinite(image).all() and (image >= 0).all()


@systems
@torch.no_grad()
def test_equivariant_to_the_scale_of_kspace(system: str) -> None:
    model, (kspace, mask) = _model(system), _data()
    image, scaled = model(kspace, mask).image, model(1e4 * kspace, mask).image
    assert (1e4 * image - scaled).norm() / scaled.norm() < 1e-4


@systems
@torch.no_grad()
def test_a_sample_does_not_depend_on_its_neighbours_in_the_batch(system: str) -> None:
    model, (kspace, mask) = _model(system), _data(batch=3)
    together = model(kspace, mask).image
    alone = torch.cat([model(kspace[i : i + 1], mask[:1]).image for i in range(3)])
    torch.testing.assert_close(together, alone, rtol=1e-3, atol=1e-3 * together.max().item())


@systems
def test_a_dead_coil_and_an_empty_slice_give_no_nan(system: str) -> None:
    model, (kspace, mask) = _model(system).train(), _data()
    dead = kspace.clone()
    dead[:, 1] = 0
    for data in (dead, torch.zeros_like(kspace)):
        model.zero_grad()
        image = model(data, mask).image
        assert torch.isfinite(image).all()
        image.sum().backward()
        assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    if isinstance(model, Unrolled):
        assert model.sensitivity(dead, mask)[:, 1].abs().max() == 0


@systems
def test_gradients_are_finite(system: str) -> None:
    model, (kspace, mask) = _model(system).train(), _data()
    model(kspace, mask).image.square().mean().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


@with_maps
@torch.no_grad()
def test_given_maps_replace_the_network(system: str) -> None:
    model, (kspace, mask) = _model(system), _data()
    maps = model.sensitivity(kspace, mask, 6)
    torch.testing.assert_close(model(kspace, mask, sens_maps=maps).image, model(kspace, mask, n_acs=6).image)
    assert not torch.equal(model(kspace, mask, sens_maps=maps.roll(1, 1)).image, model(kspace, mask, 6).image)


def _plainly(model: Unrolled, kspace: Tensor, mask: Tensor) -> Tensor:
    """E2EVarNet as Sriram 2020 writes it: k-space of all coils from cascade to cascade, by 2-D transforms."""
    maps, memory = model.sensitivity(kspace, mask, None), None
    sense = SenseOperator(maps, torch.ones_like(mask))
    current = kspace
    for cascade in model.cascades:
        denoised, _, memory = cascade.denoiser(sense.H(current), Context(memory=memory))
        current = kspace_step(current, kspace, mask, cascade.eta) - sense(denoised)
    return rss(ifft2c(current))


@pytest.mark.parametrize("system", ["e2e_varnet", "more"])
@pytest.mark.parametrize("cascades", [1, 2, 4])
def test_kspace_form_is_the_plain_one_in_value_and_gradient(system: str, cascades: int) -> None:
    model = _model(system, cascades=cascades).double()
    kspace, mask = _data(height=17, width=20)
    kspace = 1e4 * kspace.to(torch.complex128)
    with torch.no_grad():
        for number, cascade in enumerate(model.cascades):
            cascade.eta.fill_(0.5 + 0.3 * number)
    results = []
    for image in (model(kspace, mask).image, _plainly(model, kspace, mask)):
        model.zero_grad()
        image.square().sum().backward()
        results.append((image, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}))
    (ours, our_gradients), (theirs, their_gradients) = results
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
    assert our_gradients.keys() == their_gradients.keys()
    for name, gradient in our_gradients.items():
        torch.testing.assert_close(gradient, their_gradients[name], rtol=1e-8, atol=1e-9, msg=name)


@pytest.mark.parametrize("system", ["e2e_varnet", "more"])
@torch.no_grad()
def test_fully_sampled_data_come_back_when_the_denoiser_is_silent(system: str) -> None:
    """From a zero start the denoiser corrects nothing, and consistency is all that is left."""
    model = _model(system, zero_init=True)
    kspace, _ = _data()
    kspace = torch.randn_like(kspace)
    mask = torch.ones(1, 1, 1, kspace.shape[-1], dtype=torch.bool)
    torch.testing.assert_close(model(kspace, mask).image, rss(ifft2c(kspace)))


@systems
def test_shapes_that_do_not_fit_are_refused(system: str) -> None:
    model, (kspace, mask) = _model(system), _data()
    with pytest.raises(ValueError, match="kspace must be complex"):
        model(kspace.abs(), mask)
    with pytest.raises(ValueError, match="mask must be bool"):
        model(kspace, mask.float())
    with pytest.raises(ValueError, match="mask must be bool"):
        model(kspace, mask[..., 1:])


def test_unknown_names_are_answered_with_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"unknown model 'unet'; known models are e2e_varnet, more"):
        build_model("unet")
    with pytest.raises(
        UserError, match=r"unknown preset 'big' of model e2e_varnet; known presets are fastmri, paper"
    ):
        build_model("e2e_varnet", preset="big")
    with pytest.raises(UserError, match="has no option depth; its options are cascades"):
        build_model("more", depth=3)
