"""The centred FFT is unitary, is fastMRI's, and crops as fastMRI crops."""

import fastmri
import pytest
import torch
from fastmri.data.transforms import center_crop

from morelib.physics.fourier import centre_crop, crop_kspace, fft2c, ifft1c, ifft2c

SIZES = [(8, 8), (7, 10), (10, 7), (9, 5)]


@pytest.mark.parametrize("size", SIZES)
def test_equals_fastmri(size: tuple[int, int]) -> None:
    image = torch.randn(2, 3, *size, dtype=torch.complex128)
    as_real = torch.view_as_real(image)
    torch.testing.assert_close(fft2c(image), torch.view_as_complex(fastmri.fft2c(as_real)))
    torch.testing.assert_close(ifft2c(image), torch.view_as_complex(fastmri.ifft2c(as_real)))


@pytest.mark.parametrize("size", SIZES)
def test_unitary(size: tuple[int, int]) -> None:
    image, kspace = (
        torch.randn(2, *size, dtype=torch.complex128),
        torch.randn(2, *size, dtype=torch.complex128),
    )
    torch.testing.assert_close(ifft2c(fft2c(image)), image, rtol=0, atol=1e-12)
    assert (
        abs(
            torch.vdot(kspace.flatten(), fft2c(image).flatten())
            - torch.vdot(ifft2c(kspace).flatten(), image.flatten())
        )
        < 1e-10
    )


@pytest.mark.parametrize("size", SIZES)
def test_separable(size: tuple[int, int]) -> None:
    image = torch.randn(*size, dtype=torch.complex128)
    torch.testing.assert_close(ifft1c(ifft1c(image, -2), -1), ifft2c(image))


@pytest.mark.parametrize("size", SIZES)
def test_a_constant_image_is_one_point_in_the_centre(size: tuple[int, int]) -> None:
    kspace = fft2c(torch.ones(*size, dtype=torch.complex128))
    peak = kspace[size[0] // 2, size[1] // 2].clone()
    kspace[size[0] // 2, size[1] // 2] = 0
    assert peak.abs() == pytest.approx((size[0] * size[1]) ** 0.5)
    assert kspace.abs().max() < 1e-12


@pytest.mark.parametrize("size", [(4, 4), (5, 4), (7, 10)])
def test_crop_equals_fastmri(size: tuple[int, int]) -> None:
    image = torch.randn(2, 7, 10)
    torch.testing.assert_close(centre_crop(image, size), center_crop(image, size))


def test_crop_leaves_a_smaller_axis_alone() -> None:
    assert centre_crop(torch.zeros(1, 7, 10), (20, 4)).shape == (1, 7, 4)


@pytest.mark.parametrize("size", [(8, 4), (8, 3), (7, 4), (7, 3), (372, 93), (6, 6), (5, 9)])
def test_a_constant_image_stays_constant_when_its_kspace_is_cropped(size: tuple[int, int]) -> None:
    before, after = size
    kspace = fft2c(torch.ones(2, before, before, dtype=torch.complex128))
    image = ifft2c(crop_kspace(kspace, (after, after)))
    n = min(size)
    torch.testing.assert_close(image, torch.full((2, n, n), before / n, dtype=torch.complex128))
