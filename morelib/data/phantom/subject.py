"""A subject's shape: how the plane of a slice runs through the template anatomy."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi
from scipy.spatial.transform import Rotation

from morelib.data.phantom.fields import upsample

Points = NDArray[np.float32]


class Warp:
    """A smooth random displacement field, in mm: cubic splines over coarse and fine control points."""

    def __init__(
        self,
        rng: np.random.Generator,
        extent: tuple[float, float, float],
        scales: list[tuple[float, float]],
        within: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None,
    ):
        """`extent` of the box in mm; `scales` are pairs (control point spacing, displacement), both in mm.

        All but the first scale fade towards the ellipsoid `within` (centre, radii) in mm: bones are smooth.
        """
        self._within = within
        self._levels = []
        for spacing, amplitude in scales:
            shape = [int(np.ceil(length / spacing)) + 1 for length in extent]
            controls = amplitude * rng.standard_normal((3, *shape))
            filtered = [ndi.spline_filter(c, order=3, output=np.float32, mode="nearest") for c in controls]
            self._levels.append((spacing, filtered))

    def __call__(self, points: Points) -> Points:
        """Displace points (3, ...) in mm."""
        out = points.copy()
        fade: Points | float = 1.0
        for level, (spacing, controls) in enumerate(self._levels):
            if level and self._within:
                centre, radii = (side.reshape(3, *[1] * (points.ndim - 1)) for side in self._within)
                fade = np.clip((1 - np.linalg.norm((points - centre) / radii, axis=0)) / 0.2, 0, 1)
            for axis, control in enumerate(controls):
                at = points / spacing
                move = ndi.map_coordinates(control, at, order=3, mode="nearest", prefilter=False)
                out[axis] += move * fade
        return out


@dataclass(frozen=True)
class Geometry:
    """How an anatomy is scanned: field of view, distance of the coils, slice thickness, mm; orientation."""

    fov: float
    coil_radius: float
    thickness: float
    coronal: bool

    def layers(self, offset: float) -> NDArray[np.float64]:
        """Where a slice at `offset` mm is drawn: three layers, whose mean is the slice."""
        return offset + self.thickness * np.array([-1, 0, 1]) / 3


class Grid(NamedTuple):
    """What is drawn of a slice: shape (h, w) in points, and its (height, width) in mm."""

    shape: tuple[int, int]
    extent: tuple[float, float]


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

    def points(self, offsets: NDArray[np.float64], grid: Grid) -> Points:
        """Template coordinates (3, layers, h, w) of layers at equidistant `offsets`, in mm.

        Neighbouring points lie at four depths within their layer, so that the slice is averaged over four
        times as many depths as there are layers: surfaces cut at a slant blur instead of showing twice.
        """
        shape, extent = grid
        # The warp is smooth: evaluate it on every sixth point and interpolate.
        coarse = max(shape[0] // 6, 16), max(shape[1] // 6, 16)
        down, right = (np.linspace(-side / 2, side / 2, n) for side, n in zip(extent, coarse, strict=True))
        local = np.zeros((3, len(offsets), *coarse))
        local[self.normal] = offsets[:, None, None]
        local[self.rows[0]] += self.rows[1] * down[:, None]
        local[self.columns[0]] += self.columns[1] * right
        turned = self.tilt.apply(local.reshape(3, -1).T).T * self.scale[:, None] + self.centre[:, None]
        warped = self.warp(turned.reshape(local.shape).astype(np.float32))
        points = np.asarray(upsample(warped, shape))
        step = (points[:, -1] - points[:, 0]) / (len(offsets) - 1)
        depth = np.tile(np.array([[-3, 1], [3, -1]], np.float32) / 8, (shape[0] // 2, shape[1] // 2))
        return np.asarray(points + (step * depth)[:, None])


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
    lower = 1 - upper
    first = np.ravel_multi_index(tuple(base), padded.shape)
    steps = np.array(padded.strides)  # labels are bytes, so these count voxels
    corners = list(np.ndindex(2, 2, 2))
    found = np.stack([label_at[first + int(steps @ corner)] for corner in corners])
    weights = np.stack(
        [np.prod([(lower, upper)[c][i] for i, c in enumerate(corner)], 0) for corner in corners]
    )
    winner = found[0].copy()
    # Most points lie between voxels of one label: nothing to count.
    mixed = np.flatnonzero((found != winner).any(0))
    votes = np.zeros((len(mixed), n_labels), np.float32)
    for label, weight in zip(found[:, mixed], weights[:, mixed], strict=True):
        votes[np.arange(len(mixed)), label] += weight
    winner[mixed] = votes.argmax(1)
    value = np.zeros(winner.shape, np.float32)
    if value_at is not None:
        weights *= found == winner
        for corner, weight in zip(corners, weights, strict=True):
            value += weight * value_at[first + int(steps @ corner)]
        value /= np.maximum(weights.sum(0), 1e-6)
    return winner.reshape(points.shape[1:]), value.reshape(points.shape[1:])
