"""Axial brain slices of a seeded subject."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from morelib.data.phantom.anatomy import BOTTOM, LEVELS, Region, load_brain
from morelib.data.phantom.fields import Finding, TissueMap, findings, smooth_field
from morelib.data.phantom.subject import Geometry, Grid, Pose, Warp, vote
from morelib.data.phantom.tissue import Tissue

# Heights of Colin27 that slices lie between: midbrain to the upper convexity.
LOWEST, HIGHEST = 64.0 - BOTTOM, 124.0 - BOTTOM

# Inside of the skull (an ellipsoid) and the middle of the ventricles, mm.
_SKULL = np.array([90, 108, 48], np.float32), np.array([72, 92, 76], np.float32)
_VENTRICLES, _VENTRICLES_REACH = np.array([90, 108, 46], np.float32), 24.0

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
    """An ellipsoid, mm. If enhancing, with oedema around it, and dead within `necrosis` of its radius.

    `seed` draws its outline.
    """

    centre: NDArray[np.float64]
    radii: NDArray[np.float64]
    enhancing: bool
    necrosis: float
    seed: int


class BrainSubject:
    """One head: its shape, where its slices lie, and its lesions."""

    geometry = Geometry(fov=224.0, coil_radius=152.0, thickness=5.0, coronal=False)

    def __init__(self, rng: np.random.Generator, slices: int):
        anatomy = load_brain()
        warp = Warp(rng, (181, 217, 160), [(90, 4.5), (45, 2.2), (24, 1.8), (12, 0.8)], within=_SKULL)
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
        # Ventricles differ most between heads: this many times wider, about.
        self.ventricles = float(np.exp(rng.uniform(-0.15, 0.4)))
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
                    seed=int(rng.integers(2**32)),
                )
            )
        return lesions

    def slice(self, offset: float, grid: Grid, rng: np.random.Generator) -> TissueMap:
        """Tissues of the slice at `offset` mm; `rng` draws its texture."""
        points = self.pose.points(self.geometry.layers(offset), grid)
        points = points + self._widen(points)
        anatomy = load_brain()
        region, value = vote(anatomy.region, anatomy.level, points, len(Region))
        level = value / LEVELS
        low, mix = _HARD[region], np.zeros(region.shape, np.float32)
        high = low.copy()

        scalp = region == Region.SCALP
        low[scalp], high[scalp], mix[scalp] = Tissue.BONE, Tissue.FAT, np.clip(level[scalp], 0, 1)

        brain = region == Region.BRAIN
        # Sulci and cortex are wider here and thinner there.
        atrophy = self.atrophy + 0.12 * smooth_field(rng, grid.shape, 9)
        cortex = 0.12 * smooth_field(rng, grid.shape, 14)
        level -= atrophy * np.exp(-((level - 0.8) ** 2) / 0.3) + cortex * np.exp(-((level - 1.5) ** 2) / 0.1)
        level = np.clip(level, 0, 2)
        upper = level >= 1
        low[brain] = np.where(upper, Tissue.GREY, Tissue.CSF)[brain]
        high[brain] = np.where(upper, Tissue.WHITE, Tissue.GREY)[brain]
        # Steepened towards hard labels; 0, 1/2 and 1 stay in place.
        mix[brain] = np.clip(0.5 + 1.6 * (level - upper - 0.5), 0, 1)[brain]
        texture = 1 + 0.02 * smooth_field(rng, grid.shape, 70) + 0.02 * smooth_field(rng, grid.shape, 12)
        tissue = TissueMap(low, high, mix, texture)
        for lesion in self.lesions:
            tissue.findings.extend(self._draw(lesion, tissue, points, np.where(brain, level, 0)))
        return tissue

    def _widen(self, points: NDArray[np.float32]) -> NDArray[np.float32]:
        """Displacement, mm, that widens the ventricles and squeezes what is around them."""
        away = points - _VENTRICLES.reshape(3, 1, 1, 1)
        near = np.exp(-(away**2).sum(0) / (2 * _VENTRICLES_REACH**2))
        return np.asarray((1 / self.ventricles - 1) * near * away, np.float32)

    def _draw(
        self, lesion: Lesion, tissue: TissueMap, points: NDArray[np.float32], level: NDArray[np.float32]
    ) -> list[Finding]:
        """Draw a lesion into `tissue`, if it is here."""
        relative = (points - lesion.centre.reshape(3, 1, 1, 1)) / lesion.radii.reshape(3, 1, 1, 1)
        uneven = smooth_field(np.random.default_rng(lesion.seed), level.shape[1:], 24)
        distance = np.linalg.norm(relative, axis=0) + 0.2 * uneven
        # Lesions and their oedema spread in white matter and stop before the fluid.
        reach = 2.2 if lesion.enhancing else 1.3
        around = (distance < reach) & (level > (1.5 if lesion.enhancing else 0.9))
        tissue.low[around], tissue.high[around] = tissue.high[around], Tissue.LESION
        tissue.mix[around] = np.clip((reach - distance[around]) / 0.5, 0, 1)
        if not lesion.enhancing:
            return findings("Nonspecific white matter lesion", around)
        mass = (distance < 1) & (level > 0.3)
        ring = mass & (distance > lesion.necrosis)
        tissue.low[ring], tissue.high[ring], tissue.mix[ring] = Tissue.ENHANCING, Tissue.ENHANCING, 0
        return findings("Mass", mass) + findings("Edema", around)
