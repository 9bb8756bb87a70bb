"""Tissues and their relaxation times at 1.5 T and 3 T."""

from enum import IntEnum
from typing import NamedTuple

import numpy as np


class Tissue(IntEnum):
    """What a point of a slice is made of."""

    AIR = 0
    BONE = 1  # cortical bone
    MARROW = 2
    FAT = 3
    SKIN = 4
    MUSCLE = 5
    CSF = 6
    GREY = 7
    WHITE = 8
    BLOOD = 9
    DURA = 10
    CHOROID = 11
    LESION = 12
    CARTILAGE = 13
    MENISCUS = 14
    LIGAMENT = 15
    FLUID = 16  # synovial fluid
    ENHANCING = 17  # lesion with a broken blood-brain barrier
    RED_MARROW = 18


class Relaxation(NamedTuple):
    """Proton density relative to CSF; T1 and T2 in ms."""

    pd: float
    t1: float
    t2: float


# (PD, T1 / T2 at 3 T, T1 / T2 at 1.5 T). Sources: white and grey matter Wright 2008 (T1), Stanisz 2005 (T2);
# CSF Lin 2001; blood Stanisz 2005; muscle, cartilage, fluid, fat and marrow Gold 2004; red marrow de Bazelaire
# 2004 (vertebra); the rest are values usual in the 3 T literature, scaled to 1.5 T like muscle.
_TABLE: dict[Tissue, tuple[float, float, float, float, float]] = {
    Tissue.AIR: (0.0, 1000, 10, 1000, 10),
    Tissue.BONE: (0.10, 250, 0.4, 200, 0.4),
    Tissue.MARROW: (0.90, 365, 133, 288, 165),
    Tissue.FAT: (0.95, 371, 133, 288, 165),
    Tissue.SKIN: (0.65, 900, 35, 700, 37),
    Tissue.MUSCLE: (0.78, 1420, 32, 1130, 35),
    Tissue.CSF: (1.0, 4160, 1650, 4200, 2000),
    Tissue.GREY: (0.82, 1607, 99, 1197, 95),
    Tissue.WHITE: (0.70, 838, 69, 646, 72),
    Tissue.BLOOD: (0.75, 1932, 275, 1441, 290),
    Tissue.DURA: (0.55, 1100, 30, 850, 32),
    Tissue.CHOROID: (0.88, 1900, 180, 1500, 190),
    Tissue.LESION: (0.88, 1550, 165, 1250, 170),
    Tissue.ENHANCING: (0.88, 1500, 120, 1200, 125),
    Tissue.CARTILAGE: (0.75, 1240, 37, 1060, 42),
    Tissue.MENISCUS: (0.55, 900, 13, 800, 15),
    Tissue.LIGAMENT: (0.50, 900, 11, 800, 12),
    Tissue.FLUID: (1.0, 3620, 767, 2850, 1210),
    Tissue.RED_MARROW: (0.88, 586, 49, 549, 49),
}


def relaxation_table(field_t: float, rng: np.random.Generator | None = None) -> dict[Tissue, Relaxation]:
    """Relaxation per tissue at the nearer of 1.5 T and 3 T; `rng` jitters PD, T1 and T2.

    A subject's T1 and T2 vary by 4 % in common and by 1.5 % from tissue to tissue, PD by 1.5 %.
    """
    high = field_t > 2
    common = 0.04 * rng.standard_normal(2) if rng else np.zeros(2)
    table = {}
    for tissue, (pd, t1_3t, t2_3t, t1_15, t2_15) in _TABLE.items():
        own = 0.015 * rng.standard_normal(3) if rng else np.zeros(3)
        jitter = np.exp(own + np.array([0, *common]))
        t1, t2 = (t1_3t, t2_3t) if high else (t1_15, t2_15)
        table[tissue] = Relaxation(pd * jitter[0], t1 * jitter[1], t2 * jitter[2])
    return table
