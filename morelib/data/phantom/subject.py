"""A subject's shape: how the plane of a slice runs through the template anatomy."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi
from scipy.spatial.transform import Rotation

from morelib.data.phantom.fields import upsample

Points = NDArray[np.float32]


class Warp:
    """A smooth random displacement field, in mm: cubic splines over coarse and fine control points."""

    def __init__(
        self, rng: np.random.Generator, extent: tuple[float, float, float], scales: list[tuple[float, float]]
    ):
        """`extent` of the box in mm; `scales` are pairs (control point spacing, displacement), both in mm."""
        self._levels = []
        for spacing, amplitude in scales:
            shape = [int(np.ceil(length / spacing)) + 1 for length in extent]
            controls = amplitude * rng.standard_normal((3, *shape))
            filtered = [ndi.spline_filter(c, order=3, output=np.float32, mode="nearest") for c in controls]
            self._levels.append((spacing, filtered))

    def __call__(self, points: Points) -> Points:
        """Displace points (3, ...) in mm."""
        out = points.copy()
        for spacing, controls in self._levels:
            for axis, control in enumerate(controls):
                at = points / spacing
                out[axis] += ndi.map_coordinates(control, at, order=3, mode="nearest", prefilter=False)
        return out


@dataclass(frozen=True)
class Geometry:
    """How an anatomy is scanned: side of the field of view and distance of the coils in mm, orientation."""

    fov: float
    coil_radius: float
    coronal: bool


@dataclass(frozen=True)
class Pose:
    """Where slices lie in the template box.

    `rows` and `columns` say which template axis, in which direction (+1 or -1), runs down and right in the
    image; `normal` is the axis across it. Lengths in mm.
    """

    centre: NDArray[np.float64]
    tilt: Rotation
    scale: NDArray[np.float64]
    warp: Warp
    rows: tuple[int, int]
    columns: tuple[int, int]
    normal: int

    def points(self, offset: float, fov: float, n: int) -> Points:
        """Template coordinates (3, n, n) of the slice at `offset` over a field of view `fov`, all in mm."""
        # The warp is smooth: evaluate it on every sixth point and interpolate.
        coarse = max(n // 6, 16)
        line = np.linspace(-fov / 2, fov / 2, coarse)
        local = np.zeros((3, coarse, coarse))
        local[self.normal] = offset
        local[self.rows[0]] += self.rows[1] * line[:, None]
        local[self.columns[0]] += self.columns[1] * line[None, :]
        turned = self.tilt.apply(local.reshape(3, -1).T).T * self.scale[:, None] + self.centre[:, None]
        warped = self.warp(turned.reshape(3, coarse, coarse).astype(np.float32))
        return np.asarray(upsample(warped, (n, n)))


def vote(
    labels: NDArray[np.uint8], values: NDArray[np.uint8] | None, points: Points, n_labels: int
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Hard labels between voxels: the label with the largest trilinear weight.

    Args:
        labels: (a, b, c) volume; outside of it label 0.
        values: volume of the same shape or None, interpolated among the winning label's voxels only.
        points: voxel coordinates (3, ...).
        n_labels: one more than the largest label.

    Returns:
        (label, value), both of the points' shape.
    """
    shape = np.array(labels.shape)[:, None]
    # A border of label 0 takes in what lies outside.
    padded = np.pad(labels, 1)
    label_at, value_at = padded.ravel(), None if values is None else np.pad(values, 1).ravel()
    inside = np.clip(points.reshape(3, -1) + 1, 0, shape + 0.999, dtype=np.float32)
    base = inside.astype(np.int32)
    upper = inside - base
    weights = np.stack([1 - upper, upper])
    first = np.ravel_multi_index(tuple(base), padded.shape)
    steps = np.array(padded.strides)  # labels are bytes, so these count voxels
    index = np.arange(first.size)
    votes = np.zeros((n_labels, first.size), np.float32)
    sums = np.zeros_like(votes)
    for corner in np.ndindex(2, 2, 2):
        weight = weights[corner[0], 0] * weights[corner[1], 1] * weights[corner[2], 2]
        at = first + int(steps @ corner)
        label = label_at[at]
        votes[label, index] += weight
        if value_at is not None:
            sums[label, index] += weight * value_at[at]
    winner = votes.argmax(axis=0)
    value = sums[winner, index] / np.maximum(votes[winner, index], 1e-6)
    return winner.astype(np.uint8).reshape(points.shape[1:]), value.reshape(points.shape[1:])
