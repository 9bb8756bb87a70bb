"""Smooth random fields and the tissue map they texture: the small change of brain and knee slices."""

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi

Array = NDArray[np.float32]


@dataclass(frozen=True)
class TissueMap:
    """A slice as two `Tissue` numbers per point and how much of the second; all (y, x).

    Nearly everywhere `mix` is 0 or 1, a hard label; in between lies what is a mixture in the body too.
    """

    low: NDArray[np.uint8]
    high: NDArray[np.uint8]
    mix: Array
    texture: Array  # factor on the signal, around 1

    def paint(self, signals: Array) -> Array:
        """The slice's signal (y, x), given the signal of every tissue."""
        return (signals[self.low] * (1 - self.mix) + signals[self.high] * self.mix) * self.texture


@cache
def _interpolator(knots: int, n: int) -> Array:
    """Cubic interpolation from `knots` values to `n` as a matrix (n, knots)."""
    identity = np.eye(knots, dtype=np.float32)
    return np.asarray(ndi.zoom(identity, (n / knots, 1), order=3, mode="nearest"))


def upsample(field: NDArray[Any], shape: tuple[int, int]) -> NDArray[Any]:
    """Interpolate (..., h, w) to (..., *shape), cubic, corners on corners."""
    rows, columns = _interpolator(field.shape[-2], shape[0]), _interpolator(field.shape[-1], shape[1])
    return np.asarray(rows @ field @ columns.T)


def smooth_field(rng: np.random.Generator, shape: tuple[int, int], knots: tuple[int, int] | int) -> Array:
    """A random field (y, x) of about unit variance with `knots` independent values per axis."""
    knots = (knots, knots) if isinstance(knots, int) else knots
    return np.asarray(upsample(rng.standard_normal(knots, dtype=np.float32), shape))
