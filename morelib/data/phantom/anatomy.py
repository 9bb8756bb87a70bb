"""The two shipped anatomies: Colin27's head and one labelled knee. See assets/NOTICE for their owners."""

from enum import IntEnum
from functools import cache
from importlib.resources import files
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# `level` counts in steps of 1 / LEVELS of a tissue coordinate.
LEVELS = 10
# Colin27's plane at which the shipped head begins.
BOTTOM = 32


class Region(IntEnum):
    """Hard labels of the head. In BRAIN and SCALP a `level` says where between their tissues a voxel is."""

    AIR = 0
    SCALP = 1  # level 0: bone or air, level 1: fat
    SKIN = 2
    MUSCLE = 3
    BRAIN = 4  # level 0: CSF, 1: grey matter, 2: white matter
    DURA = 5
    VESSEL = 6
    CHOROID = 7


class BrainAnatomy(NamedTuple):
    """region, level: (x, y, z) uint8 at 1 mm; x to the right, y to the front, z up."""

    region: NDArray[np.uint8]
    level: NDArray[np.uint8]


def _load(name: str) -> dict[str, NDArray[np.uint8]]:
    with files("morelib.data.phantom").joinpath("assets", name).open("rb") as file, np.load(file) as archive:
        return dict(archive)


@cache
def load_brain() -> BrainAnatomy:
    """The labelled Colin27 head."""
    arrays = _load("brain.npz")
    return BrainAnatomy(arrays["region"], arrays["level"])


@cache
def load_knee() -> NDArray[np.uint8]:
    """Knee labels (front to back, top to bottom, side to side), 0.73 x 0.73 x 0.7 mm."""
    return _load("knee.npz")["labels"]
