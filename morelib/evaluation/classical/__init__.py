"""Classical references: SENSE by conjugate gradients and with total variation, on ESPIRiT maps, and their tuning."""

from morelib.evaluation.classical.systems import CgSense, TvSense
from morelib.evaluation.classical.tuning import Tuning, tune

__all__ = ["CgSense", "Tuning", "TvSense", "tune"]
