"""Axial brain slices of a seeded subject."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from morelib.data.phantom.anatomy import BOTTOM, LEVELS, Region, load_brain
from morelib.data.phantom.fields import TissueMap, smooth_field
from morelib.data.phantom.subject import Geometry, Pose, Warp, vote
from morelib.data.phantom.tissue import Tissue

# Heights of Colin27 that slices lie between: midbrain to the upper convexity.
LOWEST, HIGHEST = 64.0 - BOTTOM, 124.0 - BOTTOM

_HARD = np.zeros(len(Region), np.uint8)
for _region, _tissue in {
    Region.SKIN: Tissue.SKIN,
    Region.MUSCLE: Tissue.MUSCLE,
    Region.DURA: Tissue.DURA,
    Region.VESSEL: Tissue.BLOOD,
    Region.CHOROID: Tissue.CHOROID,
}.items():
    _HARD[_region] = _tissue


class Lesion(NamedTuple):
    """An ellipsoid, mm. If enhancing, with oedema around it, and dead within `necrosis` of its radius."""

    centre: NDArray[np.float64]
    radii: NDArray[np.float64]
    enhancing: bool
    necrosis: float


class BrainSubject:
    """One head: its shape, where its slices lie, and its lesions."""

    geometry = Geometry(fov=224.0, coil_radius=152.0, coronal=False)

    def __init__(self, rng: np.random.Generator, slices: int):
        anatomy = load_brain()
        warp = Warp(rng, (181, 217, 160), [(60, 3.2), (24, 1.4), (12, 0.5)])
        flip = -1 if rng.random() < 0.5 else 1
        self.pose = Pose(
            centre=np.array([90.0, 108.0, 0.0]) + rng.normal(0, 1.5, 3) * [1, 1, 0],
            tilt=Rotation.from_euler("xyz", rng.normal(0, [5, 2.5, 4]), degrees=True),
            scale=rng.uniform([0.96, 0.97, 0.95], [1.08, 1.05, 1.05]),
            warp=warp,
            rows=(1, -1),
            columns=(0, flip),
            normal=2,
        )
        spacing = (HIGHEST - LOWEST) / max(slices - 1, 1)
        start = LOWEST if slices > 1 else (LOWEST + HIGHEST) / 2
        self.offsets = start + spacing * np.arange(slices) + rng.uniform(-0.4, 0.4) * min(spacing, 12)
        # Atrophy widens the sulci by lowering the tissue coordinate.
        self.atrophy = rng.uniform(-0.05, 0.2)
        self.lesions = self._draw_lesions(rng, anatomy.region, anatomy.level)

    def _draw_lesions(
        self, rng: np.random.Generator, region: NDArray[np.uint8], level: NDArray[np.uint8]
    ) -> list[Lesion]:
        """Lesions near the slices: up to 14 small ones, and in a third of the subjects an enhancing one."""
        n = int(rng.choice([0, 1, 2, 4, 8, 14], p=[0.3, 0.15, 0.15, 0.15, 0.15, 0.1]))
        enhancing = int(rng.random() < 0.35)
        white = np.argwhere((region == Region.BRAIN) & (level >= 1.9 * LEVELS))
        lesions = []
        for k in range(n + enhancing):
            near = white[np.abs(white[:, 2] - rng.choice(self.offsets)) < 3]
            large = k < enhancing
            radius = rng.uniform(4, 10) if large else rng.uniform(1.0, 3.0)
            lesions.append(
                Lesion(
                    centre=near[rng.integers(len(near))].astype(float),
                    radii=radius * rng.uniform(0.75, 1.3, 3),
                    enhancing=large,
                    necrosis=0.65 if radius > 6 else 0.0,
                )
            )
        return lesions

    def slice(self, index: int, n: int, rng: np.random.Generator) -> TissueMap:
        """Tissues of slice `index` on n x n points over the field of view; `rng` draws its texture."""
        points = self.pose.points(self.offsets[index], self.geometry.fov, n)
        anatomy = load_brain()
        region, value = vote(anatomy.region, anatomy.level, points, len(Region))
        level = value / LEVELS
        low, mix = _HARD[region], np.zeros((n, n), np.float32)
        high = low.copy()

        scalp = region == Region.SCALP
        low[scalp], high[scalp], mix[scalp] = Tissue.BONE, Tissue.FAT, np.clip(level[scalp], 0, 1)

        brain = region == Region.BRAIN
        level = np.clip(level - self.atrophy * np.exp(-((level - 0.8) ** 2) / 0.3), 0, 2)
        upper = level >= 1
        low[brain] = np.where(upper, Tissue.GREY, Tissue.CSF)[brain]
        high[brain] = np.where(upper, Tissue.WHITE, Tissue.GREY)[brain]
        # Steepened towards hard labels; 0, 1/2 and 1 stay in place.
        mix[brain] = np.clip(0.5 + 1.6 * (level - upper - 0.5), 0, 1)[brain]

        for lesion in self.lesions:
            relative = (points - lesion.centre[:, None, None]) / lesion.radii[:, None, None]
            distance = np.linalg.norm(relative, axis=0) + 0.2 * smooth_field(rng, (n, n), 24)
            # Lesions and their oedema spread in white matter and stop before the fluid.
            reach = 2.2 if lesion.enhancing else 1.3
            around = (distance < reach) & brain & (level > (1.5 if lesion.enhancing else 0.9))
            low[around], high[around] = high[around], Tissue.LESION
            mix[around] = np.clip((reach - distance[around]) / 0.5, 0, 1)
            if lesion.enhancing:
                ring = (distance < 1) & (distance > lesion.necrosis) & brain & (level > 0.3)
                low[ring], mix[ring] = Tissue.ENHANCING, 0
        texture = 1 + 0.02 * smooth_field(rng, (n, n), 70) + 0.02 * smooth_field(rng, (n, n), 12)
        return TissueMap(low, high, mix, texture)
