"""With copied weights our E2EVarNet is fastMRI's VarNet, at even and odd sizes."""

import fastmri
import pytest
import torch
from fastmri.models import VarNet
from torch import Tensor

from morelib.nn import build_model, load_fastmri_state
from morelib.physics.masks import acs_columns, find_acs


def _kspace_and_mask(batch: int, coils: int, height: int, width: int, n_acs: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(height)
    y, x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    disc = (y**2 + x**2 < 0.7) * (1 + 0.3 * torch.sin(9 * x) * torch.cos(7 * y))
    angle = 2 * torch.pi * torch.arange(coils)[:, None, None] / coils
    maps = torch.exp(-((y - angle.sin()) ** 2) - (x - angle.cos()) ** 2 + 1j * (x + angle))
    noise = torch.randn(batch, coils, height, width, dtype=torch.complex64, generator=generator)
    image = 1e-4 * (maps * disc + 0.02 * noise)
    kspace = torch.view_as_complex(fastmri.fft2c(torch.view_as_real(image)))
    mask = torch.rand(batch, 1, 1, width, generator=generator) < 0.2
    mask |= acs_columns(width, torch.tensor([n_acs]))
    return kspace * mask, mask


def _pair(cascades: int, **varnet: int) -> tuple[VarNet, torch.nn.Module]:
    torch.manual_seed(0)
    theirs = VarNet(num_cascades=cascades, **varnet).eval()
    ours = build_model("e2e_varnet", preset="fastmri", cascades=cascades).eval()
    load_fastmri_state(ours, theirs.state_dict())
    return theirs, ours


@pytest.mark.parametrize("size", [(1, 4, 64, 48), (2, 3, 75, 51), (1, 5, 81, 64), (1, 2, 96, 49)])
@pytest.mark.parametrize("give_acs", [True, False])
@torch.no_grad()
def test_output_equals_fastmri(size: tuple[int, int, int, int], give_acs: bool) -> None:
    theirs, ours = _pair(cascades=2)
    kspace, mask = _kspace_and_mask(*size, n_acs=8)
    n_acs = 8 if give_acs else None
    expected = theirs(torch.view_as_real(kspace), mask[..., None], n_acs)
    image = ours(kspace, mask, n_acs).image
    assert (image - expected).norm() / expected.norm() < 1e-5


@torch.no_grad()
def test_output_equals_fastmri_to_double_precision() -> None:
    theirs, ours = _pair(cascades=3)
    kspace, mask = _kspace_and_mask(1, 4, 63, 50, n_acs=6)
    kspace = kspace.to(torch.complex128)
    expected = theirs.double()(torch.view_as_real(kspace), mask[..., None])
    assert (ours.double()(kspace, mask).image - expected).norm() / expected.norm() < 1e-12


@pytest.mark.parametrize("name", ["more", "promptmr_plus", "image_unet"])
def test_another_network_is_refused_in_one_line(name: str) -> None:
    with torch.device("meta"):
        model = build_model(name)
    with pytest.raises(TypeError, match=r"^fastMRI's VarNet has the weights of an e2e_varnet"):
        load_fastmri_state(model, {})


def test_parameter_counts_of_the_published_networks() -> None:
    def count(model: torch.nn.Module) -> int:
        return sum(parameter.numel() for parameter in model.parameters())

    assert count(build_model("e2e_varnet", preset="fastmri")) == 29_936_966
    assert count(build_model("e2e_varnet", preset="paper")) == 1_335_302
    assert count(build_model("e2e_varnet", preset="paper", sens_widths=(8, 10, 12, 14))) == 868_202
    assert count(build_model("e2e_varnet", preset="fastmri").sensitivity) == 484_898


@pytest.mark.parametrize("width", [60, 61])
@pytest.mark.parametrize("n_acs", [2, 4, 8])
def test_found_acs_is_fastmris(width: int, n_acs: int) -> None:
    theirs = VarNet(num_cascades=1).sens_net
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        mask = torch.rand(2, 1, 1, width, generator=generator) < 0.2
        mask |= acs_columns(width, torch.tensor([n_acs]))
        pad, found = theirs.get_pad_and_num_low_freqs(mask[..., None])
        assert torch.equal(find_acs(mask), found)
        columns = acs_columns(width, found)[:, 0, 0]
        assert torch.equal(columns.int().argmax(-1), pad)


def test_a_full_mask_is_all_calibration() -> None:
    """fastMRI finds one column where a whole half is sampled."""
    assert find_acs(torch.ones(2, 1, 1, 12, dtype=torch.bool)).tolist() == [12, 12]
