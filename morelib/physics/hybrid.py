"""SENSE in hybrid space: what networks need of the coils, without keeping coil data.

The mask acts along x only. So the Fourier transform along y cancels between A and its adjoint, and A^H A needs
transforms along x only. Between the two, F^H M F does not mind where x begins, so nothing is shifted either. And as
coil data are large, they are made for a few coils at a time, while they fit into a processor's cache, and made again
for the gradient. All of it is exact, not an approximation; `SenseOperator` is the plain form.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from morelib.physics.fourier import ifft2c
from morelib.physics.sense import rss

CACHED_PIXELS = 2**18


def at_once(images: Tensor) -> int:
    """How many of images (n, ...) to work on at a time: on a processor as many as its cache holds, elsewhere all."""
    return max(CACHED_PIXELS // images[0].numel(), 1) if images.device.type == "cpu" else len(images)


def coil_images(kspace: Tensor) -> Tensor:
    """F^H y of k-space (batch, coil, y, x)."""
    return torch.cat([ifft2c(coils) for coils in kspace.split(_coils_at_once(kspace), 1)], 1)


class HybridSense:
    """A = M F S and its adjoint by their products.

    Args:
        sens_maps: S, complex (batch, coil, y, x).
        mask: M, bool (batch, 1, 1, x).
    """

    def __init__(self, sens_maps: Tensor, mask: Tensor) -> None:
        self.sens_maps = sens_maps
        # Written out once: a product with a lazy conjugate would copy it each time.
        self._conjugate = sens_maps.detach().conj().resolve_conj()
        # In the order of a plain FFT.
        self.mask = torch.fft.ifftshift(mask, -1)

    def combine(self, images: Tensor) -> Tensor:
        """S^H of measured coil images (batch, coil, y, x), which get no gradient: image (batch, y, x)."""
        out: Tensor = _Combine.apply(images, self.sens_maps, self._conjugate)
        return out

    def coverage(self) -> Tensor:
        """S^H S, real (batch, y, x): one where coils see something, zero elsewhere, for maps scaled as usual."""
        return rss(self.sens_maps).square()

    def gram(self, image: Tensor) -> Tensor:
        """A^H A image, (batch, y, x): equal to `SenseOperator.gram`."""
        out: Tensor = Gram.apply(image, self.sens_maps, self._conjugate, self.mask)
        return out

    def magnitude(self, images: Tensor, taken: Tensor, returned: Tensor) -> Tensor:
        """Root sum of squares of F^H (y - F S taken + M F S returned), real (batch, y, x).

        Args:
            images: F^H y, (batch, coil, y, x), which get no gradient.
            taken, returned: images (batch, y, x).
        """
        arguments = images, taken, returned, self.sens_maps, self._conjugate, self.mask
        out: Tensor = _Magnitude.apply(*arguments)
        return out


class _Combine(torch.autograd.Function):
    """The sum over coils of conj(S) times their images."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, sens_maps: Tensor, conjugate: Tensor) -> Tensor:
        ctx.save_for_backward(images)
        out, n = torch.zeros_like(images[:, 0]), _coils_at_once(images)
        for group, conj in zip(images.split(n, 1), conjugate.split(n, 1), strict=True):
            _add_up(out, group, conj)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor, None]:
        (images,) = ctx.saved_tensors
        return None, images * _conj(grad), None


class Gram(torch.autograd.Function):
    """A^H A x: the sum over coils of conj(S) P S x with P = F^H M F, which is its own adjoint, as all of it is."""

    @staticmethod
    def forward(ctx: Any, image: Tensor, sens_maps: Tensor, conjugate: Tensor, mask: Tensor) -> Tensor:
        ctx.save_for_backward(image, sens_maps, conjugate, mask)
        x, n, out = image.unsqueeze(1), _coils_at_once(sens_maps), torch.zeros_like(image)
        for maps, conj in zip(sens_maps.split(n, 1), conjugate.split(n, 1), strict=True):
            _add_up(out, _project(maps * x, mask), conj)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        image, sens_maps, conjugate, mask = ctx.saved_tensors
        x, g, n = image.unsqueeze(1), grad.unsqueeze(1), _coils_at_once(sens_maps)
        grad_image, grad_maps = torch.zeros_like(image), torch.empty_like(sens_maps)
        groups = (each.split(n, 1) for each in (sens_maps, conjugate, grad_maps))
        for maps, conj, grad_group in zip(*groups, strict=True):
            # d/dS: P(S g) conj(x) + P(S x) conj(g)
            back = _project(maps * g, mask)
            torch.mul(back, _conj(image), out=grad_group)
            grad_group.addcmul_(_project(maps * x, mask), _conj(grad))
            # d/dx: conj(S) P(S g)
            _add_up(grad_image, back, conj)
        return grad_image, grad_maps, None, None


class _Magnitude(torch.autograd.Function):
    """The root of the sum over coils of |c|^2 with c = m - S p + P S d."""

    @staticmethod
    def forward(
        ctx: Any,
        images: Tensor,
        taken: Tensor,
        returned: Tensor,
        sens_maps: Tensor,
        conjugate: Tensor,
        mask: Tensor,
    ) -> Tensor:
        out, n = torch.zeros_like(taken.real), _coils_at_once(images)
        for group, maps in zip(images.split(n, 1), sens_maps.split(n, 1), strict=True):
            coils = _corrected(group, taken, returned, maps, mask)
            out += torch.view_as_real(coils).square_().sum(-1).sum(1)
        out.sqrt_()
        ctx.save_for_backward(images, taken, returned, sens_maps, conjugate, mask, out)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor, Tensor, Tensor, None, None]:
        images, taken, returned, sens_maps, conjugate, mask, out = ctx.saved_tensors
        # Where all coils are zero the gradient is taken as zero, not NaN.
        factor, n = torch.where(out > 0, grad / out, 0.0).unsqueeze(1), _coils_at_once(images)
        grad_taken, grad_returned = torch.zeros_like(taken), torch.zeros_like(returned)
        grad_maps = torch.empty_like(sens_maps)
        groups = (each.split(n, 1) for each in (images, sens_maps, conjugate, grad_maps))
        for group, maps, conj, grad_group in zip(*groups, strict=True):
            coils = _corrected(group, taken, returned, maps, mask).mul_(factor)
            back = _project(coils, mask)
            # d/dS: P(c) conj(d) - c conj(p)
            torch.mul(back, _conj(returned), out=grad_group)
            grad_group.addcmul_(coils, _conj(taken), value=-1)
            # d/dd: conj(S) P(c); d/dp: -conj(S) c
            _add_up(grad_returned, back, conj)
            _add_up(grad_taken, coils, conj)
        return None, -grad_taken, grad_returned, grad_maps, None, None


def _corrected(images: Tensor, taken: Tensor, returned: Tensor, maps: Tensor, mask: Tensor) -> Tensor:
    """c of `_Magnitude`."""
    coils = _project(maps * returned.unsqueeze(1), mask)
    return coils.addcmul_(maps, taken.unsqueeze(1), value=-1).add_(images)


def _project(coils: Tensor, mask: Tensor) -> Tensor:
    """P = F^H M F of coil images, along x."""
    return torch.fft.ifft(torch.fft.fft(coils, norm="ortho").mul_(mask), norm="ortho")


def _conj(image: Tensor) -> Tensor:
    """conj(image) beside coil images, (batch, 1, y, x), written out."""
    return image.conj().resolve_conj().unsqueeze(1)


def _add_up(total: Tensor, coils: Tensor, conjugate: Tensor) -> None:
    """Adds the sum over coils of conj(S) times `coils` to `total`."""
    if coils.shape[1] == 1:
        total.addcmul_(coils[:, 0], conjugate[:, 0])
    else:
        total += (coils * conjugate).sum(1)


def _coils_at_once(coils: Tensor) -> int:
    return at_once(coils.transpose(0, 1))
