"""The SENSE forward operator A = M F S of the multi-coil model y = A x (paper, Sec. II)."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from morelib.physics.fourier import fft2c, ifft2c


def rss(coils: Tensor, dim: int = 1) -> Tensor:
    """Root sum of squares of complex or real coil images over `dim`; real. Its gradient at zero is zero, not NaN."""
    out: Tensor = _RootSumOfSquares.apply(coils, dim)
    return out


class _RootSumOfSquares(torch.autograd.Function):
    """As torch.linalg.vector_norm, which is twenty times as slow on coils, whose pixels lie far apart in memory."""

    @staticmethod
    def forward(ctx: Any, coils: Tensor, dim: int) -> Tensor:
        ctx.dim = dim if dim >= 0 else dim + coils.ndim
        # The magnitude of each complex number would be a square root that is then squared.
        parts = torch.view_as_real(coils) if coils.is_complex() else coils.unsqueeze(-1)
        first, *others = parts.unbind(ctx.dim)
        squares = first.square()
        for coil in others:  # one by one, so that there are no squares of all coils in memory
            squares.addcmul_(coil, coil)
        out = squares.sum(-1).sqrt_()
        ctx.save_for_backward(coils, out)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        coils, out = ctx.saved_tensors
        return coils * torch.where(out > 0, grad / out, 0.0).unsqueeze(ctx.dim), None


def expand(image: Tensor, sens_maps: Tensor) -> Tensor:
    """Image (batch, y, x) times sensitivities (batch, coil, y, x): coil images (batch, coil, y, x)."""
    return sens_maps * image.unsqueeze(1)


def combine(coil_images: Tensor, sens_maps: Tensor) -> Tensor:
    """Sum over coils of conj(S) times the coil images; adjoint of `expand`. Gives (batch, y, x)."""
    return (sens_maps.conj() * coil_images).sum(1)


@dataclass(frozen=True)
class SenseOperator:
    """A = M F S: image (batch, y, x) to sampled k-space (batch, coil, y, x).

    Args:
        sens_maps: complex (batch, coil, y, x).
        mask: bool, broadcastable to k-space, usually (batch, 1, 1, x).

    `A(image)` applies it, `A.H` is its adjoint (and `A.H.H` is A again), `A.gram(image)` is A.H(A(image)).
    """

    sens_maps: Tensor
    mask: Tensor

    def __post_init__(self) -> None:
        batch, _, _, width = self.sens_maps.shape
        if self.mask.ndim != 4 or self.mask.shape[-1] != width or self.mask.shape[0] not in (1, batch):
            raise ValueError(
                f"mask {tuple(self.mask.shape)} does not fit sens_maps {tuple(self.sens_maps.shape)}: expected "
                f"({batch}, 1, 1, {width})"
            )

    def __call__(self, image: Tensor) -> Tensor:
        return self.mask * fft2c(expand(image, self.sens_maps))

    @property
    def H(self) -> "SenseAdjoint":
        return SenseAdjoint(self)

    def gram(self, image: Tensor) -> Tensor:
        """A.H A image: what a gradient step of Eq. 1 needs; image in, image out."""
        return self.H(self(image))


@dataclass(frozen=True)
class SenseAdjoint:
    """A.H = S^H F^H M: k-space (batch, coil, y, x) to image (batch, y, x)."""

    H: SenseOperator

    def __call__(self, kspace: Tensor) -> Tensor:
        return combine(ifft2c(self.H.mask * kspace), self.H.sens_maps)


def normalise_maps(sens_maps: Tensor) -> Tensor:
    """Scale coil maps to a root sum of squares of one; a pixel that no coil sees stays zero, never NaN."""
    magnitude = rss(sens_maps).unsqueeze(1)
    return sens_maps * torch.where(magnitude > 0, 1 / torch.where(magnitude > 0, magnitude, 1.0), 0.0)
