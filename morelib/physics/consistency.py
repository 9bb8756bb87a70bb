"""The data-consistency step in image space (Eq. 2) and in k-space (E2EVarNet), and hybrid space, where it is cheap.

The mask acts along x only. So the Fourier transform along y cancels between the forward and the adjoint operator:
transform y once, and every cascade needs 1-D FFTs along x. `HybridSense` also leaves the centre of x to a phase of the
measured data, so that nothing is shifted in a cascade. Both are exact, not approximations.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from morelib.physics.fourier import ifft1c
from morelib.physics.sense import SenseOperator, expand, rss

CACHED_PIXELS = 2**17


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
    """SENSE between images and hybrid space: coil data already transformed along y, and along x by a plain FFT.

    Args:
        sens_maps: complex (batch, coil, y, x), centred as usual.
        mask: bool (batch, 1, 1, x), centred as usual.

    `enter` brings measured k-space into hybrid space once; `expand`, `combine` and `rss` then need 1-D FFTs only.
    """

    def __init__(self, sens_maps: Tensor, mask: Tensor) -> None:
        self.sens_maps = sens_maps
        # Written out once: a product with a lazy conjugate would copy it each time.
        self._conjugate = sens_maps.conj().resolve_conj()
        self.mask = torch.fft.ifftshift(mask, -1)

    @staticmethod
    def enter(kspace: Tensor) -> Tensor:
        """Centred k-space (batch, coil, ky, kx) to hybrid space (batch, coil, y, kx uncentred)."""
        hybrid = torch.fft.ifftshift(ifft1c(kspace, -2), -1)
        # A plain FFT counts x from the first pixel, not from the centre: in k-space that is the phase of one pixel.
        centre = torch.zeros(kspace.shape[-1], dtype=kspace.real.dtype, device=kspace.device)
        centre[len(centre) // 2] = 1
        return hybrid * torch.fft.fft(centre)

    def expand(self, image: Tensor) -> Tensor:
        """F S image, unmasked, in hybrid space."""
        return torch.fft.fft(expand(image, self.sens_maps), dim=-1, norm="ortho")

    def combine(self, hybrid: Tensor) -> Tensor:
        """S^H F^H of hybrid data: image (batch, y, x)."""
        return (self._conjugate * torch.fft.ifft(hybrid, dim=-1, norm="ortho")).sum(1)

    def coverage(self) -> Tensor:
        """S^H S, real (batch, y, x): one where coils see something, zero elsewhere, for maps scaled as usual."""
        return rss(self.sens_maps).square()

    def gram(self, image: Tensor) -> Tensor:
        """S^H F^H M F S image: equal to `SenseOperator.gram`. Keeps no coil data for the gradient."""
        out: Tensor = _Gram.apply(image, self.sens_maps, self._conjugate.detach(), self.mask)
        return out

    @staticmethod
    def rss(hybrid: Tensor) -> Tensor:
        """Root-sum-of-squares image (batch, y, x) of hybrid data."""
        return rss(torch.fft.ifft(hybrid, dim=-1, norm="ortho"))


class _Gram(torch.autograd.Function):
    """The sum over coils of conj(S) P S x with P = F^H M F, a few coils at a time where that is better.

    Arguments: image x (batch, y, x); S and conj(S), (batch, coil, y, x); the uncentred mask (batch, 1, 1, x). P is its
    own adjoint, and so is all of it.
    """

    @staticmethod
    def forward(ctx: Any, image: Tensor, sens_maps: Tensor, conjugate: Tensor, mask: Tensor) -> Tensor:
        ctx.save_for_backward(image, sens_maps, conjugate, mask)
        x, n, out = image.unsqueeze(1), _at_once(sens_maps), torch.zeros_like(image)
        for maps, conj in zip(sens_maps.split(n, 1), conjugate.split(n, 1), strict=True):
            out += _project(maps * x, mask).mul_(conj).sum(1)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        image, sens_maps, conjugate, mask = ctx.saved_tensors
        x, g, n = image.unsqueeze(1), grad.unsqueeze(1), _at_once(sens_maps)
        x_conj, g_conj = x.conj().resolve_conj(), g.conj().resolve_conj()
        grad_image, grad_maps = torch.zeros_like(image), torch.empty_like(sens_maps)
        groups = (each.split(n, 1) for each in (sens_maps, conjugate, grad_maps))
        for maps, conj, slope in zip(*groups, strict=True):
            # d/dS: P(S g) conj(x) + P(S x) conj(g)
            back = _project(maps * g, mask)
            torch.mul(back, x_conj, out=slope)
            slope.addcmul_(_project(maps * x, mask), g_conj)
            # d/dx: conj(S) P(S g)
            grad_image += back.mul_(conj).sum(1)
        return grad_image, grad_maps, None, None


def _project(coils: Tensor, mask: Tensor) -> Tensor:
    """F^H M F of coil images, along x. Where x begins does not matter to it, so nothing is shifted."""
    return torch.fft.ifft(torch.fft.fft(coils, norm="ortho").mul_(mask), norm="ortho")


def _at_once(coils: Tensor) -> int:
    """How many coils to work on at a time: on a processor as many as its cache holds."""
    return coils.shape[1] if coils.is_cuda else max(CACHED_PIXELS // coils[:, 0].numel(), 1)
