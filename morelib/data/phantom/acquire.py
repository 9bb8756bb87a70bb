"""From a slice's tissue map to its noisy multi-coil k-space: what the scanner does."""

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from morelib.data.phantom.fields import Array, TissueMap, smooth_field, upsample
from morelib.data.phantom.protocol import Protocol
from morelib.data.phantom.subject import Geometry
from morelib.physics.coils import loop_coil_maps

ComplexArray = NDArray[np.complex64]

# A slice is drawn on this many points per pixel and axis, so that pixels hold true partial volumes.
FINE = 3
# Bright tissue (the image's 95th percentile) over one coil's complex noise at 3 T, and what is left at 1.5 T.
_SNR_3T = {
    "AXT1": 80.0, "AXT1PRE": 75.0, "AXT1POST": 90.0, "AXT2": 90.0, "AXFLAIR": 60.0, "CORPD_FBK": 90.0,
    "CORPDFS_FBK": 36.0,
}  # fmt: skip
_SNR_AT_1_5T = 0.65
# B1 of body-sized wavelengths: how much brighter the centre is.
_SHADING_3T, _SHADING_1_5T = 0.22, 0.08


class Scanner:
    """One scan of one subject: what all slices of a volume share."""

    def __init__(
        self, protocol: Protocol, size: int, coils: int, geometry: Geometry, rng: np.random.Generator
    ):
        """`size` is the target's matrix; `rng` draws the coil array, SNR and shading."""
        self.protocol, self.size, self.coils, self.geometry = protocol, size, coils, geometry
        snr, shading = _SNR_3T[protocol.acquisition], _SHADING_3T
        if protocol.field_t < 2:
            snr, shading = snr * _SNR_AT_1_5T, _SHADING_1_5T
        self._array_seed = int(rng.integers(2**32))
        self._snr = snr * rng.uniform(0.85, 1.2)
        self._shading = shading * rng.uniform(0.6, 1.2)

    def kspace(
        self, tissue: TissueMap, signals: Array, offset: float, rng: np.random.Generator
    ) -> ComplexArray:
        """Noisy k-space (coils, 2 * size, size) of one slice, `offset` mm from the middle of the coil array.

        The readout (axis 1) covers twice the field of view; phase columns outside the protocol's limits are
        exactly zero. Image values are in units of the signal equations.
        """
        n = tissue.low.shape[0]
        image = tissue.paint(signals) * self._object_field(n, rng)
        # Seeded afresh, so that every slice sees the same array. The fields are smooth: compute few points.
        few = max(n // 8, 40)
        maps = loop_coil_maps(
            self.coils,
            (few, few),
            np.random.default_rng(self._array_seed),
            fov=self.geometry.fov,
            radius=self.geometry.coil_radius,
            offset=offset,
            coronal=self.geometry.coronal,
        )
        kspace = np.stack([to_kspace(image * upsample(m, (n, n)), self.size) for m in maps])
        bright = np.percentile(np.abs(image)[tissue.low > 0], 95) if tissue.low.any() else 1.0
        noise = rng.standard_normal((2, *kspace.shape), dtype=np.float32)
        kspace += (noise[0] + 1j * noise[1]) * np.float32(bright / self._snr / np.sqrt(2))
        center, maximum = self.protocol.limits(self.size)
        left = self.size // 2 - center
        kspace[..., :left] = 0
        kspace[..., left + maximum + 1 :] = 0
        return kspace.astype(np.complex64)

    def _object_field(self, n: int, rng: np.random.Generator) -> ComplexArray:
        """B1 shading and object phase (n, n): a brighter centre, and a smooth phase of a few radians."""
        y, x = np.meshgrid(np.linspace(-1, 1, n), np.linspace(-1, 1, n), indexing="ij")
        x0, y0 = rng.uniform(-0.2, 0.2, 2)
        shading = 1 + self._shading * (np.exp(-2 * ((x - x0) ** 2 + (y - y0) ** 2)) - 0.4)
        slope = rng.normal(0, 1.0, 2)
        phase = slope[0] * x + slope[1] * y + rng.normal(0, 0.6) * (x**2 - y**2)
        phase += 0.35 * smooth_field(rng, (n, n), 6)
        return (shading * np.exp(1j * phase)).astype(np.complex64)


def to_kspace(image: ComplexArray, size: int) -> ComplexArray:
    """The centre (2 * size, size) of the k-space of an image (n, n), n even, in twice its height.

    Scaled such that the orthonormal inverse transform gives back the image's values.
    """
    n = image.shape[0]
    # The phase axis first, cropped at once: fewer readout transforms are left.
    lines = fft.fftshift(fft.fft(fft.ifftshift(image, axes=1), axis=1, workers=1), axes=1)
    lines = lines[:, n // 2 - size // 2 : n // 2 + size // 2]
    padded = np.zeros((2 * n, size), np.complex64)
    padded[n // 2 : n // 2 + n] = lines
    kspace = fft.fftshift(fft.fft(fft.ifftshift(padded, axes=0), axis=0, workers=1), axes=0)
    return kspace[n - size : n + size] * np.float32(size / (np.sqrt(2) * n**2))


def root_sum_of_squares(kspace: ComplexArray, size: int) -> Array:
    """RSS image (size, size) of k-space (coils, 2 * size, size), the readout cropped to its middle half."""
    axes = (-2, -1)
    image = fft.fftshift(fft.ifft2(fft.ifftshift(kspace, axes=axes), norm="ortho", workers=1), axes=axes)
    top = (image.shape[-2] - size) // 2
    return np.sqrt((np.abs(image[:, top : top + size]) ** 2).sum(0)).astype(np.float32)
