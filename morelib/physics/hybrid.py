"""SENSE in hybrid space: what networks need of the coils, without keeping coil data.

The mask acts along x only. So the Fourier transform along y cancels between A and its adjoint, and A^H A needs
transforms along x only. Between the two, F^H M F does not mind where x begins, so nothing is shifted either. And as
coil data are large, they are made for a few coils at a time, while they fit into a processor's cache, and made again
for the gradient. All of it is exact, not an approximation; `SenseOperator` is the plain form.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from morelib.physics.fourier import ifft2c
from morelib.physics.sense import rss

CACHED_PIXELS = 2**18


def at_once(image: Tensor) -> int:
    """How many images like this one to work on at a time, so that they stay in a processor's cache."""
    return max(CACHED_PIXELS // image.numel(), 1)


def coil_images(kspace: Tensor) -> Tensor:
    """F^H y of k-space (batch, coil, y, x)."""
    return torch.cat([ifft2c(coils) for (coils,) in _groups(kspace)], 1)


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
        """S^H of coil images (batch, coil, y, x): image (batch, y, x)."""
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
            images: F^H y, (batch, coil, y, x).
            taken, returned: images (batch, y, x).
        """
        arguments = images, taken, returned, self.sens_maps, self._conjugate, self.mask
        out: Tensor = _Magnitude.apply(*arguments)
        return out


class _Combine(torch.autograd.Function):
    """The sum over coils of conj(S) times their images."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, sens_maps: Tensor, conjugate: Tensor) -> Tensor:
        ctx.save_for_backward(images, sens_maps)
        out = torch.zeros_like(images[:, 0])
        for group, conj in _groups(images, conjugate):
            _add_up(out, group, conj)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        images, sens_maps = ctx.saved_tensors
        to_images, to_maps, _ = ctx.needs_input_grad
        return (
            sens_maps * grad.unsqueeze(1) if to_images else None,
            images * _conj(grad) if to_maps else None,
            None,
        )


class Gram(torch.autograd.Function):
    """A^H A x: the sum over coils of conj(S) P S x with P = F^H M F, which is its own adjoint, as all of it is."""

    @staticmethod
    def forward(ctx: Any, image: Tensor, sens_maps: Tensor, conjugate: Tensor, mask: Tensor) -> Tensor:
        ctx.save_for_backward(image, sens_maps, conjugate, mask)
        out = torch.zeros_like(image)
        for maps, conj in _groups(sens_maps, conjugate):
            _add_up(out, _project(maps * image.unsqueeze(1), mask), conj)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        image, sens_maps, conjugate, mask = ctx.saved_tensors
        image_conj, grad_conj = _conj(image), _conj(grad)
        grad_image = torch.zeros_like(image)
        grad_maps = torch.empty_like(sens_maps) if ctx.needs_input_grad[1] else None
        for maps, conj, grad_group in _groups(sens_maps, conjugate, grad_maps):
            # d/dx: conj(S) P(S g)
            back = _project(maps * grad.unsqueeze(1), mask)
            _add_up(grad_image, back, conj)
            if grad_group is not None:
                # d/dS: P(S g) conj(x) + P(S x) conj(g)
                torch.mul(back, image_conj, out=grad_group)
                grad_group.addcmul_(_project(maps * image.unsqueeze(1), mask), grad_conj)
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
        out = torch.zeros_like(taken.real)
        for group, maps in _groups(images, sens_maps):
            coils = _corrected(group, taken, returned, maps, mask)
            out += torch.view_as_real(coils).square_().sum(-1).sum(1)
        out.sqrt_()
        ctx.save_for_backward(images, taken, returned, sens_maps, conjugate, mask, out)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor, Tensor, Tensor | None, None, None]:
        images, taken, returned, sens_maps, conjugate, mask, out = ctx.saved_tensors
        # Where all coils are zero the gradient is taken as zero, not NaN.
        factor = torch.where(out > 0, grad / out, 0.0).unsqueeze(1)
        taken_conj, returned_conj = _conj(taken), _conj(returned)
        grad_taken, grad_returned = torch.zeros_like(taken), torch.zeros_like(returned)
        grad_images = torch.empty_like(images) if ctx.needs_input_grad[0] else None
        grad_maps = torch.empty_like(sens_maps) if ctx.needs_input_grad[3] else None
        everything = images, sens_maps, conjugate, grad_images, grad_maps
        for group, maps, conj, grad_group, grad_map in _groups(*everything):
            # d/dm: c, scaled by the derivative of the root; d/dp: -conj(S) c; d/dd: conj(S) P(c)
            coils = _corrected(group, taken, returned, maps, mask).mul_(factor)
            back = _project(coils, mask)
            _add_up(grad_taken, coils, conj)
            _add_up(grad_returned, back, conj)
            if grad_group is not None:
                grad_group.copy_(coils)
            if grad_map is not None:
                # d/dS: P(c) conj(d) - c conj(p)
                torch.mul(back, returned_conj, out=grad_map)
                grad_map.addcmul_(coils, taken_conj, value=-1)
        return grad_images, -grad_taken, grad_returned, grad_maps, None, None


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


def _groups(first: Tensor, *others: Tensor | None) -> Iterator[list[Any]]:
    """Coil data (batch, coil, y, x) by groups of coils: on a processor of as many as its cache holds, elsewhere all."""
    coils = first.shape[1]
    n = at_once(first[:, 0]) if first.device.type == "cpu" else coils
    for start in range(0, coils, n):
        yield [each if each is None else each[:, start : start + n] for each in (first, *others)]
