"""Coronal knee slices of a seeded subject: labelled bones and cartilage, modelled soft tissue around them."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi
from scipy.spatial.transform import Rotation

from morelib.data.phantom.anatomy import load_knee
from morelib.data.phantom.fields import Array, TissueMap, findings, smooth_field
from morelib.data.phantom.knee_template import JOINT_LINE, VOXEL_MM, knee_fields, leg_depth, segment_distance
from morelib.data.phantom.subject import Geometry, Grid, Pose, Warp, vote
from morelib.data.phantom.tissue import Tissue

Mask = NDArray[np.bool_]

# Slices lie between the front and the back of the condyles, mm.
FRONT, BACK = 63.0, 87.0

_CARTILAGE, _BONES, _MENISCI = (1, 2, 3, 4), (5, 6, 7, 8), (9, 10)
# (tibial end, femoral end, radius) in mm, and how much fluid-like tissue streaks the fibres.
_ANTERIOR_CRUCIATE = (np.array([68.0, 72, 60]), np.array([88.0, 54, 67]), 3.6, 0.4)
_POSTERIOR_CRUCIATE = (np.array([95.0, 77, 57]), np.array([75.0, 55, 54]), 4.2, 0.08)


class Tear(NamedTuple):
    """A fluid-filled cleft in a meniscus: a plane through `centre`, as far as `reach`, mm."""

    centre: Array
    normal: Array
    reach: float


class Bruise(NamedTuple):
    """Water in the marrow around a point, mm."""

    centre: Array
    radius: float


class KneeSubject:
    """One knee: its shape, where its slices lie, how much fat and muscle it has, and its pathology."""

    geometry = Geometry(fov=144.0, coil_radius=112.0, thickness=3.0, coronal=True)

    def __init__(self, rng: np.random.Generator, slices: int):
        self.pose = Pose(
            centre=np.array([0.0, 71.0, 59.0]) + rng.normal(0, [0, 4, 2.5]),
            tilt=Rotation.from_euler("xyz", rng.normal(0, [4, 5, 3]), degrees=True),
            scale=rng.uniform([0.95, 0.95, 0.94], [1.05, 1.06, 1.08]),
            warp=Warp(rng, (140, 140, 112), [(60, 4.5), (28, 1.8)]),
            rows=(1, 1),
            columns=(2, -1 if rng.random() < 0.5 else 1),
            normal=0,
        )
        spacing = (BACK - FRONT) / max(slices - 1, 1)
        start = FRONT if slices > 1 else (FRONT + BACK) / 2
        self.offsets = start + spacing * np.arange(slices) + rng.uniform(-0.3, 0.3) * min(spacing, 10)
        self.fat_mm = rng.uniform(5, 13)
        self.wider = rng.uniform(0.93, 1.1)
        self.muscle = rng.uniform(0.8, 1.15)
        self.parting = rng.uniform(0, 1), rng.uniform(13, 22)
        self.scars = rng.uniform(0, 0.6)
        self.red_marrow = rng.uniform(-0.5, 0.35)
        self.fluid_mm = rng.uniform(0.8, 1.7)
        self.effusion_mm = rng.uniform(2.5, 6) if rng.random() < 0.35 else 0.0
        tear, bruise = _draw_tear(rng, self.offsets), _draw_bruise(rng, self.offsets)
        self.tear = tear if rng.random() < 0.45 else None
        self.bruise = bruise if rng.random() < 0.35 else None

    def slice(self, offset: float, grid: Grid, rng: np.random.Generator) -> TissueMap:
        """Tissues of the slice at `offset` mm; `rng` draws the small change."""
        points = self.pose.points(self.geometry.layers(offset), grid)
        voxels = points / VOXEL_MM.reshape(3, 1, 1, 1)
        fields = knee_fields()
        bone, joint = (
            ndi.map_coordinates(f, voxels, order=1, mode="nearest") + _beyond(points)
            for f in (fields.bone, fields.joint)
        )
        medial, lateral = (
            ndi.map_coordinates(f, voxels[:2], order=1, mode="nearest")
            for f in (fields.medial, fields.lateral)
        )
        label, _ = vote(load_knee(), None, voxels, 11)
        draw = _Canvas(bone.shape)
        self._leg(draw, points, bone, rng)
        effused = self._joint(draw, points, bone, joint, medial, lateral, rng)
        bruised = self._bones(draw, points, bone, rng)
        draw.hard(np.isin(label, _CARTILAGE), Tissue.CARTILAGE)
        meniscus = np.isin(label, _MENISCI)
        draw.hard(meniscus, Tissue.MENISCUS)
        torn = self._tear(draw, points, meniscus)
        texture = 1 + 0.03 * smooth_field(rng, grid.shape, 70) + 0.03 * smooth_field(rng, grid.shape, 10)
        # Trabeculae take up some of the marrow's room.
        knots = grid.shape[0] // 3, grid.shape[1] // 3
        grain = (
            0.08
            + 0.05 * smooth_field(rng, grid.shape, knots)
            + 0.05 * smooth_field(rng, grid.shape, (18, 26))
        )
        texture *= 1 - np.clip(grain, 0, 0.4) * (bone < 0).mean(0)
        found = findings("Bone-Fracture/Contusion/dislocation", bruised) + findings("Meniscus Tear", torn)
        for half in (points[2] < 58, points[2] >= 58):
            found += findings("Joint Effusion", effused & half & (draw.low == Tissue.FLUID))
        return TissueMap(draw.low, draw.high, draw.amount, texture, found)

    def _leg(self, draw: "_Canvas", points: Array, bone: Array, rng: np.random.Generator) -> None:
        """Skin, fat with septa, fascia and muscles."""
        side = points[2]
        shape = side.shape[1:]
        depth = leg_depth(points, self.wider) + 1.0 * smooth_field(rng, shape, 7)
        depth = np.maximum(depth, 7 - 0.6 * bone)  # bones stay under the skin
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
        draw.mixed(veins & (deep < 2) & (depth > 3), Tissue.BLOOD, Tissue.FAT, 0.4)

    def _muscles(
        self, draw: "_Canvas", points: Array, deep: Array, bone: Array, rng: np.random.Generator
    ) -> None:
        """Bellies between fascia and bone that taper towards the joint; planes of fat part them."""
        a, s, side = points
        shape = a.shape[1:]
        wave = 3 * smooth_field(rng, shape, 5)
        back = np.clip((a - 72) / 18, 0, 1)
        # The vasti end above the joint, the medial one lower; behind, the hamstrings reach further down.
        above = np.interp(side, [25, 58, 95], [60, 34, 50]) + 8 * back + wave - s
        # Below, muscle lies laterally; the heads of the calf come in behind.
        below = s - (np.interp(side, [25, 58, 80, 100], [124, 112, 96, 88]) - 26 * back + wave)
        taper = np.sqrt(np.clip(np.maximum(above, below) / 38, 0, 1)) * self.muscle
        between = deep / np.maximum(deep + np.maximum(bone, 0) - 2, 1e-3)
        taper = taper + 0.08 * smooth_field(rng, shape, 16)
        belly = (deep > 0.6) & (bone > 2.2) & (np.abs(between - 0.42) < 0.58 * taper)
        # Fat between the fascicles, which run towards the joint's middle.
        streaks = smooth_field(rng, shape, (16, 60)) + 0.7 * smooth_field(rng, shape, (9, 24))
        draw.mixed(belly, Tissue.MUSCLE, Tissue.FAT, np.clip(0.05 + 0.08 * streaks, 0, 0.4))
        phase, distance = self.parting
        part = phase + (side - 58) / distance + 0.004 * (a - 72) * (s - JOINT_LINE) / distance
        part += 0.3 * smooth_field(rng, shape, 7)
        planes = np.abs(part - np.round(part)) * distance < 0.15 + 0.4 * smooth_field(rng, shape, 9)
        draw.mixed(belly & planes, Tissue.MUSCLE, Tissue.FAT, 0.7)

    def _joint(
        self, draw: "_Canvas", points: Array, bone: Array, joint: Array, medial: Array, lateral: Array,
        rng: np.random.Generator,
    ) -> Mask:  # fmt: skip
        """Synovial fluid, capsule, cruciate and collateral ligaments; returns where the effusion is."""
        a, s, side = points
        shape = a.shape[1:]
        capsule = (side > medial - 0.5) & (side < lateral + 0.5) & (np.abs(s - JOINT_LINE) < 45)
        uneven = 1 + 0.5 * smooth_field(rng, shape, 14)
        fluid = (joint < self.fluid_mm * uneven) & capsule & (bone < 7)
        draw.hard(fluid, Tissue.FLUID)
        # An effusion fills the joint and the recesses beside the condyles.
        recess = np.clip(1 - ((s - 58) / 17) ** 2, 0, 1) * np.clip((np.abs(side - 58) - 20) / 8, 0, 1)
        recess = (bone > 0) & (bone < self.effusion_mm * uneven * recess)
        swollen = (joint < 0.6 * self.effusion_mm * uneven) & capsule & (bone < 7)
        effused = (swollen | recess) & ~fluid & (self.effusion_mm > 0)
        draw.hard(effused, Tissue.FLUID)
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
        return effused

    def _bones(self, draw: "_Canvas", points: Array, bone: Array, rng: np.random.Generator) -> Mask:
        """Marrow with growth plate scars, in cortical shells thicker along the shafts; returns the bruise."""
        a, s, side = points
        shape = a.shape[1:]
        inside = bone < 0
        # Red marrow stays longest in patches of the shafts, away from the joint.
        red = self.red_marrow + 0.3 * smooth_field(rng, shape, (12, 14)) - 0.2 * smooth_field(rng, shape, 40)
        red = red * np.clip((np.abs(s - JOINT_LINE) - 22) / 20, 0, 1)
        draw.mixed(inside, Tissue.MARROW, Tissue.RED_MARROW, np.clip(red, 0, 0.8))
        bulge = 0.004 * (side - 59) ** 2 + 1.0 * smooth_field(rng, shape, 9)
        for height, sign in ((44, 1), (97, -1)):
            scar = np.abs(s - height - sign * bulge) < 0.45
            draw.mixed(inside & scar, Tissue.MARROW, Tissue.BONE, self.scars)
        bruised, uneven = np.zeros_like(inside), 0.2 * smooth_field(rng, shape, 20)
        if self.bruise:
            # Bright once fat is suppressed.
            centre, radius = self.bruise
            distance = np.linalg.norm(points - centre.reshape(3, 1, 1, 1), axis=0)
            amount = np.clip(0.7 - 0.5 * distance / radius + uneven, 0, 0.6)
            bruised = inside & (distance < 1.4 * radius) & (amount > 0.1)
            draw.mixed(bruised, Tissue.MARROW, Tissue.MUSCLE, amount)
        shaft = np.clip((np.abs(s - JOINT_LINE) - 26) / 40, 0, 1)
        thickness = 0.65 + 1.1 * shaft + 0.2 * smooth_field(rng, shape, 24)
        draw.hard(inside & (bone > -thickness), Tissue.BONE)
        return bruised & (draw.low != Tissue.BONE)

    def _tear(self, draw: "_Canvas", points: Array, meniscus: Mask) -> Mask:
        """A line of fluid through a meniscus; returns where."""
        if not self.tear:
            return np.zeros_like(meniscus)
        centre, normal, reach = self.tear
        relative = points - centre.reshape(3, 1, 1, 1)
        torn = meniscus & (np.abs(np.tensordot(normal, relative, 1)) < 0.5)
        torn &= np.linalg.norm(relative, axis=0) < reach
        draw.hard(torn, Tissue.FLUID)
        return torn


def _beyond(points: Array) -> Array:
    """How far, mm, points lie outside the template from front to back and from side to side."""
    size = (np.array(load_knee().shape, np.float32) - 1) * VOXEL_MM
    return sum(np.abs(points[axis] - np.clip(points[axis], 0, size[axis])) for axis in (0, 2))


def _pick(rng: np.random.Generator, where: Mask, offsets: NDArray[np.floating]) -> Array:
    """A template point, mm, of those set in `where`, near a slice; where none is near, the nearest."""
    at = np.argwhere(where) * VOXEL_MM
    distance = np.abs(at[:, 0] - rng.choice(offsets))
    near = at[distance < 2] if distance.min() < 2 else at[[distance.argmin()]]
    return np.asarray(near[rng.integers(len(near))], np.float32)


def _draw_tear(rng: np.random.Generator, offsets: NDArray[np.floating]) -> Tear:
    """Mostly of the medial meniscus; mostly horizontal or oblique, else vertical."""
    meniscus = load_knee() == (_MENISCI[0] if rng.random() < 0.7 else _MENISCI[1])
    normal = rng.normal(0, 0.25, 3) + ([0, 1, 0] if rng.random() < 0.7 else [0, 0, 1])
    return Tear(
        _pick(rng, meniscus, offsets),
        (normal / np.linalg.norm(normal)).astype(np.float32),
        rng.uniform(6, 12),
    )


def _draw_bruise(rng: np.random.Generator, offsets: NDArray[np.floating]) -> Bruise:
    """In femur or tibia, not far from the joint."""
    bone = np.isin(load_knee(), _BONES[:2])
    height = np.arange(bone.shape[1])[:, None] * VOXEL_MM[1]
    return Bruise(_pick(rng, bone & (np.abs(height - JOINT_LINE) < 22), offsets), rng.uniform(6, 12))


class _Canvas:
    """A tissue map being drawn; what is drawn later covers what was there."""

    def __init__(self, shape: tuple[int, ...]):
        self.low = np.full(shape, Tissue.AIR, np.uint8)
        self.high = self.low.copy()
        self.amount = np.zeros(shape, np.float32)

    def hard(self, where: Mask, tissue: Tissue) -> None:
        """One tissue alone."""
        self.mixed(where, tissue, tissue, 0.0)

    def mixed(self, where: Mask, tissue: Tissue, other: Tissue, amount: Array | float) -> None:
        """`tissue` with `amount`, between 0 and 1, of `other` in it."""
        self.low[where], self.high[where] = tissue, other
        self.amount[where] = np.broadcast_to(amount, where.shape)[where]
