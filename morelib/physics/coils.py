"""Receive sensitivities of loop coils around an object, by the Biot-Savart law."""

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

_SEGMENTS = 24


def loop_coil_maps(
    n_coils: int,
    shape: tuple[int, int],
    rng: np.random.Generator,
    fov: float = 220.0,
    radius: float = 135.0,
    offset: float = 0.0,
    coronal: bool = False,
) -> NDArray[np.complex64]:
    """Sensitivity maps of circular loops spread around the axis of the bore.

    The receive field of a loop is its field under unit current (reciprocity): the line integral of
    dl x r / |r|^3 over the wire, seen through B1- = Bx - i By.

    Args:
        n_coils: number of loops, at least 1.
        shape: (ny, nx) points of the slice.
        rng: jitters angle, distance, height, tilt, gain and receiver phase of every loop.
        fov: side of the square field of view, mm.
        radius: distance of the loops from the centre, mm.
        offset: of the slice from the middle of the coil array along the slice's normal, mm.
        coronal: the image's vertical axis runs along the bore; otherwise the slice is axial.

    Returns:
        complex64 (n_coils, ny, nx), scaled so that the root sum of squares has mean 1.

    Source: Hoult and Richards, J. Magn. Reson. 24 (1976) 71 (principle of reciprocity).
    """
    ny, nx = shape
    y, x = np.meshgrid(np.linspace(-fov / 2, fov / 2, ny), np.linspace(-fov / 2, fov / 2, nx), indexing="ij")
    third = np.full_like(x, offset)
    points = np.stack([x, third, y] if coronal else [x, y, third], axis=-1)
    maps = np.empty((n_coils, ny, nx), np.complex64)
    # In a coronal slice front and back look alike: start between them, and stagger the loops along the bore.
    first = np.pi / n_coils + rng.uniform(-0.2, 0.2) if coronal else rng.uniform(0, 2 * np.pi)
    stagger = 0.3 if coronal else 0.0
    # Neighbouring loops of real arrays overlap a little.
    loop_radius = np.clip(1.15 * np.pi * radius / max(n_coils, 3), 0.3 * radius, 0.75 * radius)
    for c in range(n_coils):
        angle = first + 2 * np.pi * (c + rng.uniform(-0.15, 0.15)) / n_coils
        normal = np.array([np.cos(angle), np.sin(angle), rng.uniform(-0.15, 0.15)])
        normal /= np.linalg.norm(normal)
        along = (stagger * (-1) ** c + rng.uniform(-0.15, 0.15)) * radius
        centre = radius * rng.uniform(0.97, 1.08) * normal + [0, 0, along]
        field = _loop_field(points, centre, normal, loop_radius)
        gain = rng.uniform(0.85, 1.15) * np.exp(1j * rng.uniform(0, 2 * np.pi))
        maps[c] = gain * (field[..., 0] - 1j * field[..., 1])
    return (maps / np.sqrt((np.abs(maps) ** 2).sum(0)).mean()).astype(np.complex64)


def _loop_field(
    points: NDArray[np.float64], centre: NDArray[np.float64], normal: NDArray[np.float64], radius: float
) -> NDArray[np.float64]:
    """Field (..., 3) at `points` (..., 3) of a circular loop with unit current, up to mu0 / 4 pi."""
    u = np.cross(normal, [0.0, 0.0, 1.0])
    u /= np.linalg.norm(u)
    v = np.cross(normal, u)
    t = np.linspace(0, 2 * np.pi, _SEGMENTS + 1)[:, None]
    wire = centre + radius * (np.cos(t) * u + np.sin(t) * v)
    field = np.zeros_like(points)
    for start, end in pairwise(wire):
        r = points - (start + end) / 2
        field += np.cross(end - start, r) / (np.linalg.norm(r, axis=-1, keepdims=True) ** 3)
    return field
