"""ESPIRiT finds the maps that data were simulated with, and survives what real data bring."""

import numpy as np
import pytest
import torch
from torch import Tensor

from morelib.physics.coils import loop_coil_maps
from morelib.physics.espirit import _filters, _first_eigenvector, espirit_maps
from morelib.physics.fourier import fft2c
from morelib.physics.sense import normalise_maps, rss


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def _simulated(coils: int, shape: tuple[int, int], noise: float = 1e-3) -> tuple[Tensor, Tensor, Tensor]:
    """K-space (1, coil, y, x) of a textured disc, the true maps scaled to one, and where the disc is."""
    rng = np.random.default_rng(3)
    maps = torch.from_numpy(loop_coil_maps(coils, shape, rng))[None]
    y, x = np.mgrid[-1 : 1 : shape[0] * 1j, -1 : 1 : shape[1] * 1j]
    disc = y**2 + x**2 < 0.6
    image = disc * (1 + 0.4 * np.sin(8 * x) * np.cos(11 * y)) * np.exp(1j * x)
    kspace = fft2c(maps * torch.from_numpy(image))
    kspace = kspace + noise * torch.randn(kspace.shape, dtype=torch.complex64)
    return kspace.to(torch.complex64), normalise_maps(maps), torch.from_numpy(disc)


def _keep(kspace: Tensor, n_acs: int) -> Tensor:
    first = (kspace.shape[-1] - n_acs + 1) // 2
    kept = torch.zeros_like(kspace)
    kept[..., first : first + n_acs] = kspace[..., first : first + n_acs]
    return kept


@pytest.mark.parametrize("shape", [(64, 48), (61, 47)])
@pytest.mark.parametrize(("n_acs", "least"), [(24, 0.999), (13, 0.995), (6, 0.97)])
def test_maps_are_those_of_the_simulation(shape: tuple[int, int], n_acs: int, least: float) -> None:
    kspace, truth, disc = _simulated(4, shape)
    maps = espirit_maps(_keep(kspace, n_acs), n_acs)
    # Up to phase, which is free at every pixel: the modulus of the inner product of two unit vectors.
    agreement = (truth.conj() * maps).sum(1)[0].abs()[disc]
    assert agreement.mean() > least
    assert agreement.quantile(0.05) > least - 0.06


def test_maps_are_unit_vectors_or_zero_and_cropped_outside() -> None:
    kspace, _, disc = _simulated(4, (64, 48))
    norm = rss(espirit_maps(kspace, 24))[0]
    torch.testing.assert_close(norm[norm > 0], torch.ones_like(norm[norm > 0]))
    assert (norm[disc] > 0).float().mean() > 0.99
    assert (norm[~disc] > 0).float().mean() < 0.6
    uncropped = rss(espirit_maps(kspace, 24, crop=0))
    torch.testing.assert_close(uncropped, torch.ones_like(uncropped))


def test_phase_is_smooth_and_that_of_the_virtual_coil() -> None:
    kspace, _, disc = _simulated(4, (64, 48))
    maps = espirit_maps(kspace, 24)[0]
    region = kspace[0, :, 20:44, 12:36].flatten(1)
    component = torch.linalg.svd(region)[0][:, 0]
    virtual = torch.einsum("c,cyx->yx", component.conj(), maps)[disc]
    angle = (virtual * virtual.sum().conj()).angle()  # the component's own phase is free
    assert angle.abs().max() < 1e-3


def test_patches_shrink_with_the_calibration_region() -> None:
    region = torch.randn(3, 24, 6, dtype=torch.complex64)
    assert _filters(region, 6, 1e-3).shape == (11, 5, 3, 3)


@pytest.mark.parametrize("coils", [1, 4, 15])
def test_first_eigenvector_is_that_of_the_full_decomposition(coils: int) -> None:
    basis, _ = torch.linalg.qr(torch.randn(5, coils, coils, dtype=torch.complex128))
    values = torch.linspace(0.5, 1, coils, dtype=torch.float64) ** 2 if coils > 1 else torch.ones(1).double()
    values[:-1] *= 0.5
    matrices = (basis * values) @ basis.mH
    vector, value = _first_eigenvector(matrices)
    torch.testing.assert_close(value[..., 0], torch.ones(5).double())
    torch.testing.assert_close((vector.conj() * basis[..., -1]).sum(-1).abs(), torch.ones(5).double())


def test_one_coil_dead_coil_and_empty_slice() -> None:
    kspace, _, disc = _simulated(4, (40, 36))
    one = espirit_maps(kspace[:, :1], 12)
    assert (one[0, 0][disc].abs() - 1).abs().lt(1e-5).float().mean() > 0.98
    dead = kspace.clone()
    dead[:, 2] = 0
    maps = espirit_maps(dead, 12)
    assert (maps[:, 2] == 0).all()
    torch.testing.assert_close(maps[:, [0, 1, 3]], espirit_maps(dead[:, [0, 1, 3]], 12), rtol=0, atol=1e-3)
    assert (espirit_maps(torch.zeros_like(kspace), 12) == 0).all()
    assert (espirit_maps(torch.zeros_like(kspace), 12, crop=0) == 0).all()


@pytest.mark.parametrize("n_acs", [1, 2, 3, 36, 100])
def test_any_calibration_region_gives_finite_maps(n_acs: int) -> None:
    kspace, _, _ = _simulated(28 if n_acs == 3 else 3, (41, 36))
    maps = espirit_maps(_keep(kspace, min(n_acs, 36)), n_acs)
    assert maps.shape == kspace.shape and bool(torch.isfinite(maps.abs()).all())
    assert maps.any()


@pytest.mark.parametrize("scale", [1e-18, 1e6])
def test_maps_do_not_depend_on_the_scale_of_kspace(scale: float) -> None:
    kspace, _, _ = _simulated(3, (40, 36))
    torch.testing.assert_close(
        espirit_maps(scale * kspace, 16, crop=0), espirit_maps(kspace, 16, crop=0), rtol=0, atol=1e-2
    )


def test_every_sample_of_a_batch_has_its_own_maps_and_acs() -> None:
    kspace, _, _ = _simulated(3, (40, 36))
    other = kspace.flip(-1).roll(1, -1)
    both = espirit_maps(torch.cat([kspace, other]), torch.tensor([16, 12]))
    assert torch.equal(both[:1], espirit_maps(kspace, 16))
    assert torch.equal(both[1:], espirit_maps(other, 12))
