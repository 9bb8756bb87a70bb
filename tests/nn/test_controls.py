"""The controls differ from what they are compared to in what they control for, and in nothing else."""

from typing import Any

import pytest
import torch
from torch import Tensor

from morelib.nn import build_model
from morelib.nn.controls import GatedDenoiser
from morelib.nn.hooks import hooked
from morelib.physics.fourier import ifft2c
from morelib.physics.masks import acs_columns
from morelib.physics.sense import rss
from morelib.routing.router import RouterOutput

SMALL = {"cascades": 2, "widths": (4, 6, 8), "sens_widths": (4, 6), "zero_init": False}


def _data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    mask = (torch.rand(1, 1, 1, 20, generator=generator) < 0.4) | acs_columns(20, torch.tensor([6]))
    kspace = torch.randn(2, 3, 24, 20, dtype=torch.complex64, generator=generator)
    return kspace * mask, mask.expand(2, -1, -1, -1)


def _gated(**options: Any) -> Any:
    torch.manual_seed(0)
    model = build_model("gated_dense", **SMALL, **options)
    for cascade in model.cascades:  # the router's last layer starts at zero, where all gates are one half
        torch.nn.init.normal_(cascade.denoiser.router.gate.weight)
    return model


def _routers(model: Any) -> list[torch.nn.Module]:
    return [module.router for module in model.modules() if isinstance(module, GatedDenoiser)]


def _dense(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in state.items() if ".router." not in name}


@pytest.mark.parametrize("checkpointing", [False, True])
def test_with_its_gate_at_one_it_is_the_dense_network_in_value_and_gradient(checkpointing: bool) -> None:
    kspace, mask = _data()
    gated = _gated(checkpointing=checkpointing)
    dense = build_model("e2e_varnet", **SMALL)
    dense.load_state_dict(_dense(gated.state_dict()))

    def wide_open(_: torch.nn.Module, __: tuple[Tensor, ...], output: RouterOutput) -> RouterOutput:
        return output._replace(logits=torch.full_like(output.logits, torch.inf))

    with hooked((router, wide_open) for router in _routers(gated)):
        image = gated(kspace, mask).image
        image.square().mean().backward()
    torch.testing.assert_close(image, dense(kspace, mask).image)
    dense(kspace, mask).image.square().mean().backward()
    gradients = {name: p.grad for name, p in gated.named_parameters() if p.grad is not None}
    for name, parameter in dense.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-3, atol=1e-6)


def test_the_gate_lies_between_zero_and_one_and_starts_at_one_half() -> None:
    kspace, mask = _data()
    gates: list[Tensor] = []

    def listen(_: torch.nn.Module, __: tuple[Tensor, ...], output: RouterOutput) -> None:
        gates.append(output.logits.sigmoid())

    for model in (_gated(), build_model("gated_dense", **SMALL)):
        with hooked((router, listen) for router in _routers(model)):
            assert model(kspace, mask).routing is None  # no distribution over experts, so no router losses
    trained, fresh = torch.stack(gates[:2]), torch.stack(gates[2:])
    assert trained.shape == (2, 2, 1)
    assert ((trained > 0) & (trained < 1)).all() and trained.unique().numel() == 4
    assert (fresh == 0.5).all()


def test_the_gate_scales_the_correction() -> None:
    torch.manual_seed(0)
    denoiser = _gated().cascades[0].denoiser
    image = torch.randn(1, 24, 20, dtype=torch.complex64)

    def closed(_: torch.nn.Module, __: tuple[Tensor, ...], output: RouterOutput) -> RouterOutput:
        return output._replace(logits=torch.full_like(output.logits, -torch.inf))

    assert denoiser(image, None).image.abs().max() > 0
    with hooked([(denoiser.router, closed)]):
        assert denoiser(image, None).image.abs().max() == 0


def test_the_routers_input_is_detached_and_its_gate_learns() -> None:
    kspace, mask = _data()
    model = _gated()
    inputs: list[Tensor] = []

    def listen(_: torch.nn.Module, given: tuple[Tensor, ...], __: RouterOutput) -> None:
        inputs.extend(given)

    with hooked((router, listen) for router in _routers(model)):
        model(kspace, mask).image.square().mean().backward()
    assert len(inputs) == 2
    assert not any(x.requires_grad for x in inputs)
    assert all(p.grad is not None and p.grad.any() for p in _routers(model)[0].parameters())


@torch.no_grad()
def test_the_image_unet_sees_the_zero_filled_magnitude_only() -> None:
    kspace, mask = _data()
    torch.manual_seed(0)
    model = build_model("image_unet", widths=(4, 6, 8), zero_init=False).eval()
    phase = torch.polar(torch.ones(3), torch.rand(3))[:, None, None]
    image = model(kspace, mask).image
    torch.testing.assert_close(
        model(kspace * phase, mask).image, image
    )  # coils turned in phase: nothing changes
    torch.testing.assert_close(model(kspace, torch.ones_like(mask)).image, image)


@torch.no_grad()
def test_the_image_unet_starts_as_the_zero_filled_image() -> None:
    kspace, mask = _data()
    torch.testing.assert_close(
        build_model("image_unet", widths=(4, 6))(kspace, mask).image, rss(ifft2c(kspace))
    )
