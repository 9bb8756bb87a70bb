"""SENSE without a network: min_x 1/2 ||A x - y||^2 + R(x), for R = w/2 ||x||^2 and R = w TV(x).

A^H A has norm at most one where the maps' root sum of squares is one. Images are complex (batch, y, x); every sample
of a batch is solved on its own.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from morelib.physics.hybrid import HybridSense

# CG steps of one image update in TV-SENSE; it starts from the last image, so a few are enough.
_CG_STEPS = 5
# Differences below this are shrunk to zero, in units of the image's brightest value.
_SHRINK = 0.1


def conjugate_gradients(
    normal: Callable[[Tensor], Tensor], rhs: Tensor, iterations: int, start: Tensor | None = None
) -> Tensor:
    """Solve normal(x) = rhs for a Hermitian positive `normal`, from `start` (or zero), with so many steps.

    Source: Hestenes and Stiefel, J. Res. NBS 49 (1952) 409.
    """
    x = torch.zeros_like(rhs) if start is None else start
    residual = rhs if start is None else rhs - normal(start)
    direction, energy = residual, _energy(residual)
    for _ in range(iterations):
        moved = normal(direction)
        step = _ratio(energy, _inner(direction, moved))
        x = x + step * direction
        residual = residual - step * moved
        before, energy = energy, _energy(residual)
        direction = residual + _ratio(energy, before) * direction
    return x


def cg_sense(sense: HybridSense, zero_filled: Tensor, weight: float, iterations: int) -> Tensor:
    """The image that solves (A^H A + weight) x = A^H y, given `zero_filled` = A^H y.

    Source: Pruessmann et al., MRM 46 (2001) 638.
    """
    # Eq. 1 with lambda Psi(x) = weight / 2 ||x||^2
    return conjugate_gradients(lambda x: sense.gram(x) + weight * x, zero_filled, iterations)


def tv_sense(sense: HybridSense, zero_filled: Tensor, weight: float, iterations: int) -> Tensor:
    """The image that minimises 1/2 ||A x - y||^2 + weight TV(x), TV the sum over pixels of |gradient(x)|.

    By ADMM: the differences get a variable of their own, which is shrunk; the image follows it and the data, which is
    a `cg_sense` again. `zero_filled` = A^H y should be scaled to a brightest value of about one: this changes how fast
    it converges, not where to.

    Source: Boyd et al., Found. Trends Mach. Learn. 3 (2011) 1; TV: Rudin, Osher and Fatemi, Physica D 60 (1992) 259.
    """
    # Eq. 1 with lambda Psi(x) = weight TV(x)
    penalty = weight / _SHRINK

    def normal(x: Tensor) -> Tensor:
        return sense.gram(x) + penalty * gradient_adjoint(gradient(x))

    image = zero_filled
    dual = torch.zeros_like(gradient(image))
    for _ in range(iterations):
        wanted = gradient(image) + dual
        edges = shrink(wanted, _SHRINK)
        dual = wanted - edges
        rhs = zero_filled + penalty * gradient_adjoint(edges - dual)
        image = conjugate_gradients(normal, rhs, _CG_STEPS, image)
    return image


def gradient(image: Tensor) -> Tensor:
    """Differences to the pixel before along y and x, (batch, 2, y, x); around the edge, as the Fourier transform.

    Isotropic TV depends a little on which neighbour is taken; this is BART's.
    """
    return torch.stack([image - image.roll(1, -2), image - image.roll(1, -1)], dim=1)


def gradient_adjoint(differences: Tensor) -> Tensor:
    """Adjoint of `gradient`: minus the divergence."""
    along_y, along_x = differences.unbind(1)
    return along_y - along_y.roll(-1, -2) + along_x - along_x.roll(-1, -1)


def shrink(differences: Tensor, by: float) -> Tensor:
    """Shorten the vector at every pixel by `by` > 0, to zero at most: the proximal operator of `by` times TV's sum."""
    kept = 1 - by / _length(differences).clamp(min=by)
    return kept.unsqueeze(1) * differences


def _length(differences: Tensor) -> Tensor:
    # Not torch.linalg.vector_norm, which is twenty times as slow on complex numbers.
    return (differences.real.square() + differences.imag.square()).sum(1).sqrt()


def _inner(a: Tensor, b: Tensor) -> Tensor:
    """Real part of the inner product of each sample, (batch, 1, 1)."""
    return (a.real * b.real + a.imag * b.imag).sum((-2, -1), keepdim=True)


def _energy(a: Tensor) -> Tensor:
    return _inner(a, a)


def _ratio(a: Tensor, b: Tensor) -> Tensor:
    """a / b, zero where b is: an empty slice, or nothing left to correct."""
    return torch.where(b > 0, a / torch.where(b > 0, b, 1.0), 0.0)
