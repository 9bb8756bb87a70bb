"""What is known of a volume without its image data, whichever file layout it came in."""

from dataclasses import dataclass
from pathlib import Path

# The columns of the paper's Table I, in its order, with the names printed there.
CATEGORY_NAMES = {
    "AXFLAIR": "AXFLAIR",
    "AXT1POST": "AXT1POST",
    "AXT2": "AXT2",
    "AXT1": "AXT1",
    "AXT1PRE": "AXT1PRE",
    "CORPDFS_FBK": "knee-fs",
    "CORPD_FBK": "knee-nofs",
}
CATEGORIES = tuple(CATEGORY_NAMES)

# Where k-space comes from: a scanner, a Fourier transform of published magnitude images, or this project's phantom.
MEASURED, SIMULATED, SYNTHETIC = "measured", "simulated", "synthetic"


@dataclass(frozen=True)
class VolumeInfo:
    """The header of one volume; no image data. Sizes in samples.

    `name` is unique in its data set and seeds the evaluation mask; `layout` names the reader. `readout`, `phase`
    are the last two axes of k-space as `read_slice` returns it; `recon` (h, w) is the target's size; `padding`
    (left, right) bounds the acquired phase columns; `max` is the target's maximum (None: not stored, see
    `volume_max`); `field_t` in tesla. `undersampled` files bring their own mask; `stored_target` says whether the
    target is read, not computed. `origin` is MEASURED, SIMULATED or SYNTHETIC.
    """

    path: Path
    name: str
    layout: str
    acquisition: str
    anatomy: str  # brain, knee, heart, prostate or unknown
    patient: str
    n_slices: int
    n_coils: int
    readout: int
    phase: int
    recon: tuple[int, int]
    padding: tuple[int, int]
    max: float | None
    field_t: float | None
    scanner: str | None
    stored_target: bool
    undersampled: bool
    origin: str

    @property
    def has_target(self) -> bool:
        """Whether `read_slice` returns a target: stored, or computed from fully sampled k-space."""
        return self.stored_target or not self.undersampled
