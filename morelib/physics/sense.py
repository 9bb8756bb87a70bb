"""The SENSE forward operator A = M F S of the multi-coil model y = A x (paper, Sec. II)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from morelib.physics.fourier import fft2c, ifft2c


def rss(coils: Tensor, dim: int = 1) -> Tensor:
    """Root sum of squares of complex or real coil images over `dim`; real. Its gradient at zero is zero, not NaN."""
    if not coils.is_complex():
        return torch.linalg.vector_norm(coils, dim=dim)
    # The magnitude of each complex number would be a square root that is then squared.
    dim = dim if dim >= 0 else dim - 1
    return torch.linalg.vector_norm(torch.view_as_real(coils), dim=(dim, -1))


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
