"""The record that evaluation makes and statistics and tables read."""

from dataclasses import dataclass


@dataclass(frozen=True)
class VolumeScore:
    """One volume's scores: `psnr` in dB, `ssim` from 0 to 1, `nmse`; `acceleration` is the true (net) one.

    `origin` is that of its k-space: measured, simulated or synthetic (`morelib.data.volume`).
    """

    volume: str
    acquisition: str
    patient: str
    n_slices: int
    acceleration: float
    psnr: float
    ssim: float
    nmse: float
    origin: str
