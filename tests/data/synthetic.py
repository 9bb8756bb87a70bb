"""What the tiny files of the tests show: a textured disc, seen by smooth coils. Written apart from the library."""

import numpy as np


def fft2c(image: np.ndarray) -> np.ndarray:
    """Centred and orthonormal along the last two axes."""
    axes = (-2, -1)
    return np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(image, axes), norm="ortho"), axes)


def coil_images(slices: int, coils: int, readout: int, phase: int, seed: int = 0) -> np.ndarray:
    """A textured disc seen by `coils` smooth coils, brightest in the first slice: (slice, coil, y, x) complex."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-1 : 1 : readout * 1j, -1 : 1 : phase * 1j]
    disc = ((y * 2) ** 2 + x**2 < 0.8) * (1 + 0.3 * np.sin(9 * x + rng.uniform(0, 6)) * np.cos(14 * y))
    angles = 2 * np.pi * np.arange(coils) / coils
    maps = np.stack(
        [np.exp(-((y - 0.5 * np.sin(a)) ** 2) - (x - np.cos(a)) ** 2 + 1j * (x + a)) for a in angles]
    )
    brightness = (1e-4 * (1 - 0.3 * np.arange(slices) / slices))[:, None, None, None]
    return brightness * maps * disc


def noisy_kspace(slices: int, coils: int, readout: int, phase: int, seed: int = 0) -> np.ndarray:
    """K-space of `coil_images`, fastMRI's layout, with noise: (slice, coil, y, x) complex."""
    kspace = fft2c(coil_images(slices, coils, readout, phase, seed))
    rng = np.random.default_rng(seed + 1)
    return kspace + 1e-6 * (rng.standard_normal(kspace.shape) + 1j * rng.standard_normal(kspace.shape))
