"""Geometry of the template knee, in mm: distances, the taut outline of the bones, the skin.

Axes: 0 front to back, 1 top to bottom, 2 medial to lateral.
"""

from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi

from morelib.data.phantom.anatomy import load_knee
from morelib.data.phantom.fields import Array

VOXEL_MM = np.array([0.729, 0.729, 0.697], np.float32)
# Height of the gap between femur and tibia.
JOINT_LINE = 76.0


class KneeFields(NamedTuple):
    """All in mm. On the template's voxels: distance to bone (negative inside) and to cartilage or meniscus.

    For every (front-back, up-down): how far a string stretched over the bones reaches medially and laterally.
    """

    bone: Array
    joint: Array
    medial: Array
    lateral: Array


@cache
def knee_fields() -> KneeFields:
    """Distances and outlines of the template knee."""
    labels = load_knee()
    bone = (labels >= 5) & (labels <= 8)
    # The segmentation rounds the shafts off where it ends; the leg goes on.
    bone = np.pad(bone[:, 4:-4], ((0, 0), (4, 4), (0, 0)), mode="edge")
    bone[:, :, [0, -1]] = False
    joint = (labels > 0) & ~bone
    outside, inside, to_joint = (
        ndi.distance_transform_edt(mask, sampling=VOXEL_MM).astype(np.float32)
        for mask in (~bone, bone, ~joint)
    )
    medial = _taut_outline(bone)
    lateral = (bone.shape[2] - 1) * VOXEL_MM[2] - _taut_outline(bone[:, :, ::-1])
    # The segmentation steps from slice to slice; smoothing the distance rounds that off.
    return KneeFields(ndi.gaussian_filter(outside - inside, 1.3), to_joint, medial, lateral)


def _taut_outline(bone: NDArray[np.bool_]) -> Array:
    """Position (front-back, up-down), mm, of a string stretched over the low end of axis 2."""
    first = np.where(bone.any(2), bone.argmax(2) * VOXEL_MM[2], np.nan)
    return np.stack([_lower_hull(row) for row in first]).astype(np.float32)


def _lower_hull(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Greatest convex function below `values` (NaN is no constraint); far away where there are too few."""
    at = np.flatnonzero(~np.isnan(values))
    if len(at) < 2:
        return np.full(len(values), 1e3)
    hull: list[int] = []
    for i in at:
        while len(hull) > 1 and _turns_down(values, hull[-2], hull[-1], int(i)):
            hull.pop()
        hull.append(int(i))
    return np.interp(np.arange(len(values)), hull, values[hull])


def _turns_down(values: NDArray[np.float64], i: int, j: int, k: int) -> bool:
    """Whether the point at j lies on or above the line from i to k."""
    return bool((values[j] - values[i]) * (k - i) >= (values[k] - values[i]) * (j - i))


def leg_depth(points: Array, wider: float) -> Array:
    """Depth below the skin, mm, negative outside: axial superellipses, wider at thigh and calf."""
    a, s, side = points
    width = wider * np.interp(s, [-20, 0, 40, JOINT_LINE, 100, 150], [67, 63, 57, 54, 52, 55])
    # Below the joint the fibula stands out.
    width += np.interp(s, [JOINT_LINE, 105], [0, 9]) * np.clip((side - 58) / 30, 0, 1)
    thickness = np.interp(s, [-20, 0, JOINT_LINE, 110, 150], [68, 66, 64, 60, 62])
    rho = ((np.abs(side - 58) / width) ** 2.4 + (np.abs(a - 72) / thickness) ** 2.4) ** (1 / 2.4)
    return ((1 - rho) * width).astype(np.float32)


def segment_distance(points: Array, start: NDArray[np.float64], end: NDArray[np.float64]) -> Array:
    """Distance, mm, from points (3, layers, y, x) to the segment from `start` to `end`."""
    line = (end - start).astype(np.float32)
    relative = points - start.astype(np.float32).reshape(3, 1, 1, 1)
    along = np.clip(np.tensordot(line, relative, 1) / (line @ line), 0, 1)
    return np.linalg.norm(relative - line.reshape(3, 1, 1, 1) * along, axis=0).astype(np.float32)
