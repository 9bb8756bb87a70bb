"""Loop coil maps: the field of a loop, and what a set of them looks like."""

import numpy as np
import pytest

from morelib.physics.coils import _loop_field, loop_coil_maps


def test_field_on_the_axis_matches_the_closed_form():
    # On its axis a loop of radius R makes 2 pi R^2 / (R^2 + z^2)^(3/2), up to mu0 / 4 pi.
    radius = 30.0
    z = np.linspace(-80, 80, 9)
    points = np.stack([z, 0 * z, 0 * z], axis=-1)
    field = _loop_field(points, np.zeros(3), np.array([1.0, 0, 0]), radius)
    expected = 2 * np.pi * radius**2 / (radius**2 + z**2) ** 1.5
    # The wire is a polygon: a per cent of difference.
    np.testing.assert_allclose(np.abs(field[:, 0]), expected, rtol=0.03)
    np.testing.assert_allclose(field[:, 1:], 0, atol=1e-9)


@pytest.mark.parametrize("coronal", [False, True])
def test_maps_are_smooth_distinct_and_of_unit_mean(coronal):
    maps = loop_coil_maps(4, (40, 36), np.random.default_rng(0), coronal=coronal)
    assert maps.shape == (4, 40, 36)
    assert maps.dtype == np.complex64
    assert np.sqrt((np.abs(maps) ** 2).sum(0)).mean() == pytest.approx(1, abs=1e-5)
    assert np.abs(np.diff(maps, axis=-1)).max() < 0.3 * np.abs(maps).max()
    correlation = np.corrcoef(np.abs(maps).reshape(4, -1))
    assert correlation[~np.eye(4, dtype=bool)].max() < 0.9


def test_same_seed_same_array_and_slices_see_it_move():
    one, same, other = (
        loop_coil_maps(3, (16, 16), np.random.default_rng(5), offset=offset) for offset in (0.0, 0.0, 40.0)
    )
    assert np.array_equal(one, same)
    assert not np.allclose(one, other)
