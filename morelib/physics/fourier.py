"""Centred, orthonormal Fourier transforms of complex tensors, and centred cropping and padding.

Convention: index n // 2 is the centre of an axis of length n, in the image and in k-space, odd n included. This is
`fastmri.fft2c` without its trailing real/imaginary axis.
"""

import torch
from torch import Tensor


def ifft1c(x: Tensor, dim: int) -> Tensor:
    """Centred orthonormal inverse FFT of `x` along `dim`; same shape, complex."""
    return torch.fft.fftshift(torch.fft.ifft(torch.fft.ifftshift(x, dim), dim=dim, norm="ortho"), dim)


def fft2c(image: Tensor) -> Tensor:
    """Image (..., y, x) to k-space (..., y, x), centred and orthonormal."""
    dims = (-2, -1)
    return torch.fft.fftshift(torch.fft.fft2(torch.fft.ifftshift(image, dims), norm="ortho"), dims)


def ifft2c(kspace: Tensor) -> Tensor:
    """K-space (..., y, x) to image (..., y, x); inverse and adjoint of `fft2c`."""
    dims = (-2, -1)
    return torch.fft.fftshift(torch.fft.ifft2(torch.fft.ifftshift(kspace, dims), norm="ortho"), dims)


def centre_crop(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Crop the last two axes of `x` about their centre to at most `size`; a smaller axis is left as it is.

    The offset is (n - m) // 2, as in `fastmri.data.transforms.center_crop`.
    """
    height, width = min(size[0], x.shape[-2]), min(size[1], x.shape[-1])
    top, left = (x.shape[-2] - height) // 2, (x.shape[-1] - width) // 2
    return x[..., top : top + height, left : left + width]


def crop_kspace(kspace: Tensor, size: tuple[int, int]) -> Tensor:
    """As `centre_crop`, but frequency zero stays frequency zero: index n // 2 becomes index m // 2.

    The offset of images is one less where n is even and m is odd, which would be a phase ramp across the image.
    """
    height, width = min(size[0], kspace.shape[-2]), min(size[1], kspace.shape[-1])
    top, left = kspace.shape[-2] // 2 - height // 2, kspace.shape[-1] // 2 - width // 2
    return kspace[..., top : top + height, left : left + width]
