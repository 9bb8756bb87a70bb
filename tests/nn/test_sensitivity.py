"""The sensitivity network: coils one after the other, at full and at ACS resolution, checkpointed or not."""

import pytest
import torch

from morelib.nn.sensitivity import SensitivityNetwork, interpolate
from morelib.physics.fourier import crop_kspace, fft2c, ifft2c
from morelib.physics.masks import acs_columns
from morelib.physics.sense import rss


def _data(height: int = 40, width: int = 36) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    kspace = torch.randn(2, 5, height, width, dtype=torch.complex128, generator=generator)
    mask = acs_columns(width, torch.tensor([6, 6]))
    return kspace * mask, mask


def _network(**options: object) -> SensitivityNetwork:
    torch.manual_seed(0)
    return SensitivityNetwork((4, 6), **options).double()  # type: ignore[arg-type]


def test_coils_in_groups_are_coils_together(monkeypatch: pytest.MonkeyPatch) -> None:
    network, (kspace, mask) = _network(), _data()
    together = network(kspace, mask)
    monkeypatch.setattr("morelib.physics.hybrid.CACHED_PIXELS", 3 * 40 * 36)
    torch.testing.assert_close(network(kspace, mask), together, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("resolution", ["full", "acs"])
@pytest.mark.parametrize("norm", ["none", "instance"])
def test_checkpointing_changes_no_gradient(resolution: str, norm: str) -> None:
    kspace, mask = _data()
    gradients = []
    for checkpointing in (False, True):
        network = _network(resolution=resolution, norm=norm, checkpointing=checkpointing)
        network(kspace, mask).real.square().sum().backward()
        gradients.append([parameter.grad for parameter in network.parameters()])
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("size", [(40, 36), (131, 90), (33, 300)])
def test_maps_at_acs_resolution_have_the_size_of_the_image_and_unit_norm(size: tuple[int, int]) -> None:
    kspace, mask = _data(*size)
    maps = _network(resolution="acs")(kspace, mask)
    assert maps.shape == kspace.shape
    torch.testing.assert_close(rss(maps), torch.ones(2, *size, dtype=torch.float64))


@pytest.mark.parametrize("size", [(40, 41), (132, 133), (133, 134), (134, 132), (136, 372)])
def test_maps_at_acs_resolution_have_no_phase_that_the_coils_have_not(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a U-Net that changes nothing. A quarter of these sizes is even or odd, as the sizes are."""
    network, coils = _network(resolution="acs"), torch.tensor([1, 1j, -2, 0.5])[:, None, None]
    monkeypatch.setattr(network, "_maps", lambda images: images)
    mask = acs_columns(size[1], torch.tensor([8]))
    maps = network(fft2c(coils.to(torch.complex128).expand(1, 4, *size)) * mask, mask)
    torch.testing.assert_close(maps, (coils / coils.abs().square().sum().sqrt()).to(maps).expand_as(maps))


def test_a_dead_coil_has_no_map_at_either_resolution() -> None:
    kspace, mask = _data(64, 150)
    kspace[:, 2] = 0
    for resolution in ("full", "acs"):
        maps = _network(resolution=resolution)(kspace, mask)
        assert maps[:, 2].abs().max() == 0 and torch.isfinite(torch.view_as_real(maps)).all()


@pytest.mark.parametrize(("small", "large"), [((8, 8), (32, 32)), ((9, 8), (36, 33)), ((33, 17), (40, 64))])
def test_interpolation_is_exact_for_planes_and_keeps_the_centre(
    small: tuple[int, int], large: tuple[int, int]
) -> None:
    def plane(size: tuple[int, int]) -> torch.Tensor:
        """A plane over the field of view, whose pixel n // 2 is its centre."""
        y, x = ((torch.arange(n, dtype=torch.float64) - n // 2) / n for n in size)
        return torch.complex(y[:, None] + 0 * x, 2 * x + 0 * y[:, None])

    result = interpolate(plane(small)[None], large)[0]
    inner = tuple(
        slice(n // 4, -(n // 4)) for n in large
    )  # outside of the small grid nothing is extrapolated
    torch.testing.assert_close(result[inner], plane(large)[inner])


def test_smooth_maps_survive_the_low_resolution() -> None:
    """Up to what a straight line misses; at the rim the cropped k-space makes the image periodic."""
    size = (96, 128)
    y, x = torch.meshgrid(*(torch.linspace(-1, 1, n, dtype=torch.float64) for n in size), indexing="ij")
    image = torch.exp(-3 * (y**2 + x**2)).to(torch.complex128)[None]
    cropped = crop_kspace(fft2c(image), (32, 32))
    scale = (32 * 32 / (96 * 128)) ** 0.5  # orthonormal transforms of different lengths
    error = interpolate(scale * ifft2c(cropped), size) - image
    assert error[:, 6:-6, 6:-6].abs().max() < 0.01
