"""Coronal knee slices of a seeded subject: labelled bones and cartilage, modelled soft tissue around them."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi
from scipy.spatial.transform import Rotation

from morelib.data.phantom.anatomy import load_knee
from morelib.data.phantom.fields import Array, TissueMap, smooth_field
from morelib.data.phantom.knee_template import JOINT_LINE, VOXEL_MM, knee_fields, leg_depth, segment_distance
from morelib.data.phantom.subject import Geometry, Pose, Warp, vote
from morelib.data.phantom.tissue import Tissue

# Slices lie between the front and the back of the condyles, mm.
FRONT, BACK = 63.0, 87.0

_CARTILAGE, _BONES, _MENISCI = (1, 2, 3, 4), (5, 6, 7, 8), (9, 10)
# (tibial end, femoral end, radius) in mm, and how much fluid-like tissue streaks the fibres.
_ANTERIOR_CRUCIATE = (np.array([68.0, 72, 60]), np.array([88.0, 54, 67]), 3.6, 0.4)
_POSTERIOR_CRUCIATE = (np.array([95.0, 77, 57]), np.array([75.0, 55, 54]), 4.2, 0.08)


class KneeSubject:
    """One knee: its shape, where its slices lie, how much fat, muscle and effusion it has."""

    geometry = Geometry(fov=144.0, coil_radius=112.0, coronal=True)

    def __init__(self, rng: np.random.Generator, slices: int):
        self.pose = Pose(
            centre=np.array([0.0, 71.0, 59.0]) + rng.normal(0, [0, 4, 2.5]),
            tilt=Rotation.from_euler("xyz", rng.normal(0, [3, 5, 3]), degrees=True),
            scale=rng.uniform([0.95, 0.95, 0.94], [1.05, 1.06, 1.08]),
            warp=Warp(rng, (140, 140, 112), [(50, 3.0), (22, 1.0)]),
            rows=(1, 1),
            columns=(2, -1 if rng.random() < 0.5 else 1),
            normal=0,
        )
        spacing = (BACK - FRONT) / max(slices - 1, 1)
        start = FRONT if slices > 1 else (FRONT + BACK) / 2
        self.offsets = start + spacing * np.arange(slices) + rng.uniform(-0.3, 0.3) * min(spacing, 10)
        self.fat_mm = rng.uniform(5, 13)
        self.effusion_mm = rng.choice([1.0, 1.6, 3.0], p=[0.4, 0.35, 0.25])
        self.muscle = rng.uniform(0.8, 1.15)
        self.oedema = rng.uniform(0, 1) < 0.35, rng.uniform([66, 40, 30], [90, 110, 90]), rng.uniform(6, 12)

    def slice(self, index: int, n: int, rng: np.random.Generator) -> TissueMap:
        """Tissues of slice `index` on n x n points over the field of view; `rng` draws the small change."""
        points = self.pose.points(self.offsets[index], self.geometry.fov, n)
        voxels = points / VOXEL_MM[:, None, None]
        fields = knee_fields()
        bone, joint = (
            ndi.map_coordinates(f, voxels, order=1, mode="nearest") for f in (fields.bone, fields.joint)
        )
        medial, lateral = (
            ndi.map_coordinates(f, voxels[:2], order=1, mode="nearest")
            for f in (fields.medial, fields.lateral)
        )
        label, _ = vote(load_knee(), None, voxels, 11)
        draw = _Canvas(n)
        self._leg(draw, points, bone, rng)
        self._joint(draw, points, bone, joint, medial, lateral, rng)
        self._bones(draw, points, bone, rng)
        draw.hard(np.isin(label, _CARTILAGE), Tissue.CARTILAGE)
        draw.hard(np.isin(label, _MENISCI), Tissue.MENISCUS)
        texture = 1 + 0.03 * smooth_field(rng, (n, n), 70) + 0.03 * smooth_field(rng, (n, n), 10)
        return TissueMap(draw.low, draw.high, draw.amount, texture)

    def _leg(self, draw: "_Canvas", points: Array, bone: Array, rng: np.random.Generator) -> None:
        """Skin, fat with septa, fascia and muscles."""
        side = points[2]
        shape = side.shape
        depth = leg_depth(points) + 1.0 * smooth_field(rng, shape, 7)
        inside = depth > 0
        draw.hard(inside, Tissue.FAT)
        # Septa run along the skin, waver, and break off.
        layer = (depth + 2.5 * smooth_field(rng, shape, (9, 14))) / 4.5
        broken = smooth_field(rng, shape, (14, 22)) > 0.35
        septa = inside & broken & (np.abs(layer - np.round(layer)) < 0.06)
        draw.mixed(septa, Tissue.FAT, Tissue.LIGAMENT, 0.5)
        draw.hard(inside & (depth < 1.7), Tissue.SKIN)
        # More fat on the medial side.
        fat = self.fat_mm * np.interp(side, [10, 58, 110], [1.35, 1.0, 0.8])
        deep = depth - fat - 1.5 * smooth_field(rng, shape, 6)
        self._muscles(draw, points, deep, bone, rng)
        draw.mixed((np.abs(deep) < 0.4) & (bone > 3), Tissue.FAT, Tissue.LIGAMENT, 0.7)
        # Small veins in the fat: where two random fields vanish together.
        veins = smooth_field(rng, shape, 22) ** 2 + smooth_field(rng, shape, 22) ** 2 < 0.012
        draw.hard(veins & (deep < 2) & (depth > 3), Tissue.BLOOD)

    def _muscles(
        self, draw: "_Canvas", points: Array, deep: Array, bone: Array, rng: np.random.Generator
    ) -> None:
        """Bellies between fascia and bone that taper towards the joint; planes of fat part them."""
        a, s, side = points
        shape = a.shape
        wave = 3 * smooth_field(rng, shape, 5)
        back = np.clip((a - 72) / 18, 0, 1)
        # The vasti end above the joint, the medial one lower; behind, the hamstrings reach further down.
        above = np.interp(side, [25, 58, 95], [60, 34, 50]) + 8 * back + wave - s
        # Below, muscle lies laterally; the heads of the calf come in behind.
        below = s - (np.interp(side, [25, 58, 80, 100], [124, 112, 96, 88]) - 26 * back + wave)
        taper = np.sqrt(np.clip(np.maximum(above, below) / 38, 0, 1)) * self.muscle
        between = deep / np.maximum(deep + np.maximum(bone, 0) - 2, 1e-3)
        belly = (deep > 0.6) & (bone > 2.2) & (np.abs(between - 0.42) < 0.58 * taper)
        streaks = smooth_field(rng, shape, (14, 64))
        draw.mixed(belly, Tissue.MUSCLE, Tissue.FAT, np.clip(0.05 + 0.07 * streaks, 0, 0.35))
        angle = np.arctan2(a - 72, side - 58) + 0.2 * smooth_field(rng, shape, 5)
        width = 0.035 + 0.02 * smooth_field(rng, shape, 9)
        planes = np.abs(np.sin(2.5 * angle + 0.025 * s + 0.3)) < width
        draw.mixed(belly & planes, Tissue.MUSCLE, Tissue.FAT, 0.8)

    def _joint(
        self, draw: "_Canvas", points: Array, bone: Array, joint: Array, medial: Array, lateral: Array,
        rng: np.random.Generator,
    ) -> None:  # fmt: skip
        """Synovial fluid, capsule, cruciate and collateral ligaments."""
        a, s, side = points
        shape = a.shape
        capsule = (side > medial - 0.5) & (side < lateral + 0.5) & (np.abs(s - JOINT_LINE) < 45)
        uneven = self.effusion_mm * (1 + 0.5 * smooth_field(rng, shape, 14))
        draw.hard((joint < uneven) & capsule & (bone < 7), Tissue.FLUID)
        # Synovium and folds in the notch: fat and fluid by turns.
        notch = capsule & (joint < 14) & (bone > 0) & (np.abs(side - 59) < 14) & (s < JOINT_LINE + 4)
        folds = smooth_field(rng, shape, 28)
        draw.mixed(notch & (folds > 0), Tissue.FAT, Tissue.FLUID, np.clip(0.35 * folds, 0, 0.6))
        for start, end, radius, streaked in (_ANTERIOR_CRUCIATE, _POSTERIOR_CRUCIATE):
            near = (segment_distance(points, start, end) < radius + 0.4 * smooth_field(rng, shape, 20)) & (
                bone > 0
            )
            streak = np.clip(streaked * (0.6 + 0.6 * smooth_field(rng, shape, (30, 70))), 0, 0.7)
            draw.mixed(near, Tissue.LIGAMENT, Tissue.FLUID, streak)
        # Collateral ligaments hug the taut outline of the bones; in front, further out, the iliotibial band.
        thin = 0.8 + 0.25 * smooth_field(rng, shape, 9)
        bands = [
            ((s > 48) & (s < 112) & (np.abs(a - 77) < 9), side - medial + 1.2, 1.0),
            ((s > 50) & (s < 104) & (a > 83), side - lateral - 1.6, 1.0),
            ((s < 92) & (a < 72), side - lateral - 3.0, 0.7),
        ]
        for where, offset, half_width in bands:
            draw.mixed(
                where & (np.abs(offset) < half_width * thin) & (bone > 0), Tissue.LIGAMENT, Tissue.FAT, 0.08
            )

    def _bones(self, draw: "_Canvas", points: Array, bone: Array, rng: np.random.Generator) -> None:
        """Marrow with trabeculae and growth plate scars, in cortical shells thicker along the shafts."""
        a, s, side = points
        shape = a.shape
        inside = bone < 0
        n = shape[0]
        grain = 0.05 * smooth_field(rng, shape, n // 5) + 0.05 * smooth_field(rng, shape, (18, 26))
        draw.mixed(inside, Tissue.MARROW, Tissue.BONE, np.clip(0.08 + grain, 0, 0.4))
        bulge = 0.004 * (side - 59) ** 2 + 1.0 * smooth_field(rng, shape, 9)
        for height, sign in ((44, 1), (97, -1)):
            scar = np.abs(s - height - sign * bulge) < 0.45
            draw.mixed(inside & scar, Tissue.MARROW, Tissue.BONE, 0.45)
        present, centre, radius = self.oedema
        if present:
            # A bone bruise: water in the marrow, bright once fat is suppressed.
            distance = np.linalg.norm(points - centre[:, None, None].astype(np.float32), axis=0)
            bruise = np.clip(0.7 - 0.5 * distance / radius + 0.2 * smooth_field(rng, shape, 20), 0, 0.6)
            draw.mixed(
                inside & (distance < 1.4 * radius) & (bruise > 0.1), Tissue.MARROW, Tissue.MUSCLE, bruise
            )
        shaft = np.clip((np.abs(s - JOINT_LINE) - 26) / 40, 0, 1)
        thickness = 0.65 + 1.1 * shaft + 0.2 * smooth_field(rng, shape, 24)
        draw.hard(inside & (bone > -thickness), Tissue.BONE)


class _Canvas:
    """A tissue map being drawn; what is drawn later covers what was there."""

    def __init__(self, n: int):
        self.low = np.full((n, n), Tissue.AIR, np.uint8)
        self.high = self.low.copy()
        self.amount = np.zeros((n, n), np.float32)

    def hard(self, where: NDArray[np.bool_], tissue: Tissue) -> None:
        """One tissue alone."""
        self.mixed(where, tissue, tissue, 0.0)

    def mixed(self, where: NDArray[np.bool_], tissue: Tissue, other: Tissue, amount: Array | float) -> None:
        """`tissue` with `amount`, between 0 and 1, of `other` in it."""
        self.low[where], self.high[where] = tissue, other
        self.amount[where] = np.broadcast_to(amount, where.shape)[where]
