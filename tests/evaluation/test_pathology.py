"""Errors inside boxes: known answers."""

import numpy as np
import pytest

from morelib.data.dataset import SliceDataset
from morelib.data.index import find_volumes
from morelib.data.pathology import Box, read_boxes
from morelib.data.phantom import make_phantom
from morelib.errors import UserError
from morelib.evaluation import ZeroFilled
from morelib.evaluation.evaluate import reconstruct_volume
from morelib.evaluation.metrics import nmse, psnr
from morelib.evaluation.pathology import WHOLE, mean_region_errors, region_errors


@pytest.fixture
def volume() -> np.ndarray:
    target = np.full((2, 8, 6), 2.0, np.float32)
    target[0, 0, 0] = 10.0
    return target


def test_an_error_of_one_in_one_box(volume):
    prediction = volume.copy()
    prediction[1, 2:4, 1:5] += 1
    boxes = [Box(1, "Mass", 1, 2, 4, 2), Box(0, "Edema", 2, 2, 3, 3)]
    whole, edema, mass = region_errors(volume, prediction, boxes)
    assert (whole.label, whole.n_boxes, whole.n_pixels) == (WHOLE, 0, 96)
    assert whole.nmse == nmse(volume, prediction)
    assert whole.psnr == psnr(volume, prediction)
    assert (edema.label, edema.n_boxes, edema.n_pixels, edema.nmse) == ("Edema", 1, 9, 0)
    assert edema.psnr == float("inf")
    # Squared error 1 everywhere inside, over a target of 2; the data range is the volume's maximum, 10.
    assert (mass.label, mass.n_boxes, mass.n_pixels) == ("Mass", 1, 8)
    assert mass.nmse == pytest.approx(1 / 4)
    assert mass.psnr == pytest.approx(20)


def test_overlapping_boxes_count_a_pixel_once(volume):
    prediction = volume.copy()
    prediction[0, 4, 4] += 1
    boxes = [Box(0, "Mass", 3, 3, 2, 2), Box(0, "Mass", 4, 4, 2, 2)]
    mass = region_errors(volume, prediction, boxes)[1]
    assert (mass.n_boxes, mass.n_pixels) == (2, 7)
    assert mass.nmse == pytest.approx(1 / (7 * 4))


def test_a_box_around_everything_is_the_whole_slice(volume):
    volume, rng = volume[:1], np.random.default_rng(0)
    prediction = volume + rng.standard_normal(volume.shape).astype(np.float32)
    whole, mass = region_errors(volume, prediction, [Box(0, "Mass", 0, 0, 6, 8)])
    assert mass.nmse == pytest.approx(whole.nmse)
    assert mass.psnr == pytest.approx(whole.psnr)


def test_no_boxes_and_a_black_box(volume):
    assert len(region_errors(volume, volume, [])) == 1
    prediction = volume.copy()
    volume[1, :4] = 0
    black = region_errors(volume, prediction, [Box(1, "Mass", 0, 0, 2, 2)])[1]
    assert np.isnan(black.nmse)
    assert black.psnr == pytest.approx(10 * np.log10(100 / 4))


@pytest.mark.parametrize(
    "box", [Box(2, "Mass", 0, 0, 1, 1), Box(0, "Mass", 5, 0, 2, 1), Box(0, "Mass", 0, 8, 1, 1)]
)
def test_a_box_outside(volume, box):
    with pytest.raises(UserError, match="outside a volume of 2 slices of 8 x 6"):
        region_errors(volume, volume, [box])


def test_volumes_that_do_not_fit(volume):
    with pytest.raises(ValueError, match="one shape"):
        region_errors(volume, volume[:1], [])


def test_means_over_the_volumes_that_have_boxes(tmp_path):
    make_phantom(tmp_path, volumes_per_category=2, size=48, coils=2, slices=3)
    dataset = SliceDataset(find_volumes(tmp_path), acceleration=4, center_fraction=0.1)
    found = {error.label: error for error in mean_region_errors(ZeroFilled(), dataset)}
    boxes = {number: read_boxes(v.path) for number, v in enumerate(dataset.volumes)}
    with_boxes = {number: kept for number, kept in boxes.items() if kept}
    assert with_boxes
    assert set(found) == {WHOLE} | {box.label for kept in with_boxes.values() for box in kept}
    singles = []
    for number, kept in with_boxes.items():
        prediction, target = reconstruct_volume(ZeroFilled(), (dataset[i] for i in dataset.items_of(number)))
        singles += region_errors(target, prediction, kept)
    for label, error in found.items():
        group = [single for single in singles if single.label == label]
        assert error.n_boxes == sum(single.n_boxes for single in group)
        assert error.psnr == pytest.approx(np.mean([single.psnr for single in group]))
