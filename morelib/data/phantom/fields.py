"""Smooth random fields and the tissue map they texture: the small change of brain and knee slices."""

from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Finding:
    """A pathology in a slice: its label, and the (first, last) rows and columns of the points it changes."""

    label: str
    rows: tuple[int, int]
    columns: tuple[int, int]


def findings(label: str, where: NDArray[np.bool_]) -> list[Finding]:
    """One finding around all points that are set in any layer of `where` (layers, y, x); none for none."""
    rows, columns = (np.flatnonzero(where.any(axis)) for axis in ((0, 2), (0, 1)))
    if not len(rows):
        return []
    return [Finding(label, (int(rows[0]), int(rows[-1])), (int(columns[0]), int(columns[-1])))]


@dataclass(frozen=True)
class TissueMap:
    """A slice as two `Tissue` numbers per point and how much of the second, all (layers, y, x).

    Layers lie behind each other within the slice's thickness; the scanner sees their mean. Nearly everywhere
    `mix` is 0 or 1, a hard label; in between lies what is a mixture in the body too.
    """

    low: NDArray[np.uint8]
    high: NDArray[np.uint8]
    mix: Array
    texture: Array  # (y, x), factor on the signal, around 1
    findings: list[Finding] = field(default_factory=list)

    def paint(self, signals: Array) -> Array:
        """The slice's signal (y, x), given the signal of every tissue."""
        low, high = signals[self.low], signals[self.high]
        high -= low
        high *= self.mix
        high += low
        return np.asarray(high.mean(0) * self.texture)


@cache
def _interpolator(knots: int, n: int) -> Array:
    """Cubic interpolation from `knots` values to `n` as a matrix (n, knots)."""
    identity = np.eye(knots, dtype=np.float32)
    return np.asarray(ndi.zoom(identity, (n / knots, 1), order=3, mode="nearest"))


def upsample(values: NDArray[Any], shape: tuple[int, int]) -> NDArray[Any]:
    """Interpolate (..., h, w) to (..., *shape), cubic, corners on corners."""
    rows, columns = _interpolator(values.shape[-2], shape[0]), _interpolator(values.shape[-1], shape[1])
    return np.asarray(rows @ values @ columns.T)


def smooth_field(rng: np.random.Generator, shape: tuple[int, int], knots: tuple[int, int] | int) -> Array:
    """A random field (y, x) of about unit variance with `knots` independent values per axis."""
    knots = (knots, knots) if isinstance(knots, int) else knots
    return np.asarray(upsample(rng.standard_normal(knots, dtype=np.float32), shape))
