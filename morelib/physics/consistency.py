"""The data-consistency step in image space (Eq. 2) and in k-space (E2EVarNet), and hybrid space, where it is cheap.

The mask acts along x only. So the Fourier transform along y cancels between the forward and the adjoint operator:
transform y once, and every cascade needs 1-D FFTs along x. `HybridSense` also keeps k-space uncentred along x, so that
no shifted copies of coil data are made: only the single combined image is shifted. Both are exact, not approximations.
"""

import torch
from torch import Tensor

from morelib.physics.fourier import ifft1c
from morelib.physics.sense import SenseOperator, expand, rss


def image_step(image: Tensor, kspace: Tensor, operator: SenseOperator, eta: Tensor | float) -> Tensor:
    """The consistency part of Eq. 2: x - eta A.H(A x - y).

    Args:
        image: x, complex (batch, y, x).
        kspace: y, masked, complex (batch, coil, y, x).
        operator: A.
        eta: step size.
    """
    # Eq. 2, without the denoiser
    return image - eta * operator.H(operator(image) - kspace)


def kspace_step(kspace: Tensor, measured: Tensor, mask: Tensor, eta: Tensor | float) -> Tensor:
    """The same step for an iterate kept in k-space (Sriram 2020, Eq. 9): k - eta M (k - y).

    Works in hybrid space too, where the mask still acts along the last axis.
    """
    return kspace - eta * torch.where(mask, kspace - measured, 0.0)


class HybridSense:
    """SENSE between images and hybrid space: coil data already transformed along y, uncentred along x.

    Args:
        sens_maps: complex (batch, coil, y, x), centred as usual.
        mask: bool (batch, 1, 1, x), centred as usual.

    `enter` brings measured k-space into hybrid space once; `expand`, `combine` and `rss` then need 1-D FFTs only.
    """

    def __init__(self, sens_maps: Tensor, mask: Tensor) -> None:
        self.sens_maps = torch.fft.ifftshift(sens_maps, -1)
        # Written out once: a product with a lazy conjugate would copy it each time.
        self._conjugate = self.sens_maps.conj().resolve_conj()
        self.mask = torch.fft.ifftshift(mask, -1)

    @staticmethod
    def enter(kspace: Tensor) -> Tensor:
        """Centred k-space (batch, coil, ky, kx) to hybrid space (batch, coil, y, kx uncentred)."""
        return torch.fft.ifftshift(ifft1c(kspace, -2), -1)

    def expand(self, image: Tensor) -> Tensor:
        """F S image, unmasked, in hybrid space."""
        coils = expand(torch.fft.ifftshift(image, -1), self.sens_maps)
        return torch.fft.fft(coils, dim=-1, norm="ortho")

    def combine(self, hybrid: Tensor) -> Tensor:
        """S^H F^H of hybrid data: image (batch, y, x)."""
        coils = torch.fft.ifft(hybrid, dim=-1, norm="ortho")
        return torch.fft.fftshift((self._conjugate * coils).sum(1), -1)

    def coverage(self) -> Tensor:
        """S^H S, real (batch, y, x): one where coils see something, zero elsewhere, for maps scaled as usual."""
        return torch.fft.fftshift(rss(self.sens_maps).square(), -1)

    def gram(self, image: Tensor) -> Tensor:
        """S^H F^H M F S image: equal to `SenseOperator.gram`."""
        return self.combine(self.mask * self.expand(image))

    @staticmethod
    def rss(hybrid: Tensor) -> Tensor:
        """Root-sum-of-squares image (batch, y, x) of hybrid data."""
        return torch.fft.fftshift(rss(torch.fft.ifft(hybrid, dim=-1, norm="ortho")), -1)
