"""From a slice's tissue map to its noisy multi-coil k-space: what the scanner does."""

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from morelib.data.phantom.fields import Array, TissueMap, smooth_field, upsample
from morelib.data.phantom.matrix import Matrix
from morelib.data.phantom.protocol import Protocol
from morelib.data.phantom.subject import Geometry, Grid
from morelib.physics.coils import loop_coil_maps

ComplexArray = NDArray[np.complex64]

# A slice is drawn on this many points per pixel and axis, so that pixels hold true partial volumes.
FINE = 2
# Bright tissue (the image's 95th percentile) over one coil's complex noise at 3 T, and what is left at 1.5 T.
_SNR_3T = {
    "AXT1": 80.0, "AXT1PRE": 75.0, "AXT1POST": 90.0, "AXT2": 90.0, "AXFLAIR": 60.0, "CORPD_FBK": 90.0,
    "CORPDFS_FBK": 36.0,
}  # fmt: skip
_SNR_AT_1_5T = 0.65
# B0 is worst towards the ends of the coil: the lipid signal left there over that in the middle. Set by eye.
_FAILED_SUPPRESSION = 3.0
# B1 of body-sized wavelengths: how much brighter the centre is.
_SHADING_3T, _SHADING_1_5T = 0.22, 0.08


class Scanner:
    """One scan of one subject: what all slices of a volume share."""

    def __init__(self, protocol: Protocol, matrix: Matrix, geometry: Geometry, rng: np.random.Generator):
        """`rng` draws the coil array, SNR and shading."""
        self.protocol, self.matrix, self.geometry = protocol, matrix, geometry
        self.grid = Grid(matrix.points(FINE), matrix.extent(geometry.fov))
        snr, shading = _SNR_3T[protocol.acquisition], _SHADING_3T
        if protocol.field_t < 2:
            snr, shading = snr * _SNR_AT_1_5T, _SHADING_1_5T
        self._array_seed = int(rng.integers(2**32))
        self._snr = snr * rng.uniform(0.85, 1.2)
        self._shading = shading * rng.uniform(0.6, 1.2)

    def kspace(
        self, tissue: TissueMap, signals: Array, offset: float, rng: np.random.Generator
    ) -> ComplexArray:
        """Noisy k-space (coils, readout, phase) of one slice, `offset` mm from the middle of the coil array.

        The readout covers twice the field of view; phase columns outside the protocol's limits are exactly
        zero. Image values are in units of the signal equations.
        """
        h, w = self.grid.shape
        water, lipid = signals
        magnitude = tissue.paint(water)
        if lipid.any():
            magnitude += tissue.paint(lipid) * self._failed_suppression(rng)
        image = magnitude * self._object_field(rng)
        # Seeded afresh, so that every slice sees the same array. The fields are smooth: compute few points,
        # on a square around the slice.
        n = max(h, w)
        few = max(n // 8, 40)
        maps = loop_coil_maps(
            self.matrix.coils,
            (few, few),
            np.random.default_rng(self._array_seed),
            fov=max(self.grid.extent),
            radius=self.geometry.coil_radius,
            offset=offset,
            coronal=self.geometry.coronal,
        )
        seen = (..., slice((n - h) // 2, (n - h) // 2 + h), slice((n - w) // 2, (n - w) // 2 + w))
        kspace = np.stack([to_kspace(image * upsample(m, (n, n))[seen], self.matrix) for m in maps])
        bright = np.percentile(magnitude[tissue.low[1] > 0], 95) if tissue.low[1].any() else 1.0
        noise = rng.standard_normal((2, *kspace.shape), dtype=np.float32)
        kspace += (noise[0] + 1j * noise[1]) * np.float32(bright / self._snr / np.sqrt(2))
        center, maximum = self.protocol.limits(self.matrix.phase)
        left = self.matrix.phase // 2 - center
        kspace[..., :left] = 0
        kspace[..., left + maximum + 1 :] = 0
        return kspace.astype(np.complex64)

    def _axes(self) -> tuple[Array, Array]:
        """y and x of the points, -1 to 1 over the field of view."""
        (h, w), (height, width) = self.grid
        ends = 1.0, width / height
        y, x = (np.linspace(-end, end, n, dtype=np.float32) for end, n in zip(ends, (h, w), strict=True))
        return y[:, None], x[None]

    def _failed_suppression(self, rng: np.random.Generator) -> Array:
        """Factor (h, w) on the lipid signal that is left: 1 in the middle, more towards the ends."""
        y, _ = self._axes()
        uneven = np.exp(0.4 * smooth_field(rng, self.grid.shape, 4))
        return np.asarray(uneven * (1 + (_FAILED_SUPPRESSION - 1) * y**4))

    def _object_field(self, rng: np.random.Generator) -> ComplexArray:
        """B1 shading and object phase (h, w): a brighter centre, and a smooth phase of a few radians."""
        y, x = self._axes()
        x0, y0 = rng.uniform(-0.2, 0.2, 2)
        shading = 1 + self._shading * (np.exp(-2 * ((x - x0) ** 2 + (y - y0) ** 2)) - 0.4)
        slope = rng.normal(0, 1.0, 2)
        phase = slope[0] * x + slope[1] * y + rng.normal(0, 0.6) * (x**2 - y**2)
        phase = phase + 0.35 * smooth_field(rng, self.grid.shape, 6)
        return (shading * np.exp(1j * phase)).astype(np.complex64)


def to_kspace(image: ComplexArray, matrix: Matrix) -> ComplexArray:
    """The centre (readout, phase) of the k-space of a drawn image (h, w), h and w even, in twice its height.

    Scaled such that the orthonormal inverse transform gives back the image's values.
    """
    (h, w), readout, phase = image.shape, matrix.readout, matrix.phase
    # The phase axis first, cropped at once: fewer readout transforms are left.
    lines = fft.fftshift(fft.fft(fft.ifftshift(image, axes=1), axis=1, workers=1), axes=1)
    lines = lines[:, w // 2 - phase // 2 : w // 2 - phase // 2 + phase]
    padded = np.zeros((2 * h, phase), np.complex64)
    padded[h // 2 : h // 2 + h] = lines
    kspace = fft.fftshift(fft.fft(fft.ifftshift(padded, axes=0), axis=0, workers=1), axes=0)
    return kspace[h - readout // 2 : h + readout // 2] * np.float32(np.sqrt(readout * phase) / (2 * h * w))


def root_sum_of_squares(kspace: ComplexArray, shape: tuple[int, int]) -> Array:
    """RSS image of k-space (coils, readout, phase), its centre cropped to `shape` (h, w)."""
    axes = (-2, -1)
    image = fft.fftshift(fft.ifft2(fft.ifftshift(kspace, axes=axes), norm="ortho", workers=1), axes=axes)
    top, left = ((n - kept) // 2 for n, kept in zip(image.shape[-2:], shape, strict=True))
    seen = image[:, top : top + shape[0], left : left + shape[1]]
    return np.sqrt((np.abs(seen) ** 2).sum(0)).astype(np.float32)
