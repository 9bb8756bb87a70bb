"""The phantom's bodies: contrasts in the right order, tissues where they belong, boxes around pathology."""

import numpy as np
import pytest

from morelib.data.phantom.acquire import FINE, root_sum_of_squares, to_kspace
from morelib.data.phantom.brain import BrainSubject
from morelib.data.phantom.fields import TissueMap, findings
from morelib.data.phantom.knee import KneeSubject, _pick
from morelib.data.phantom.knee_template import VOXEL_MM
from morelib.data.phantom.matrix import Matrix, square_matrix
from morelib.data.phantom.protocol import Protocol, draw_protocol
from morelib.data.phantom.signal import (
    WATER_FRACTION,
    inversion_recovery,
    signals,
    spin_echo,
    spoiled_gradient_echo,
    with_gadolinium,
)
from morelib.data.phantom.subject import Grid
from morelib.data.phantom.tissue import Relaxation, Tissue

GRID = Grid((96, 96), (224.0, 224.0))

WATER = Relaxation(0.8, 1000.0, 100.0)


def test_signal_equations_in_their_limits():
    assert spin_echo(WATER, 1e9, 0) == pytest.approx(0.8)
    assert spin_echo(WATER, 1e9, 100) == pytest.approx(0.8 / np.e)
    assert spin_echo(WATER, 0, 10) == 0
    # 90 degrees: plain saturation recovery; the maximum over flip angles is at Ernst's.
    assert spoiled_gradient_echo(WATER, 1000, 0, 90) == pytest.approx(0.8 * (1 - 1 / np.e))
    flips = np.arange(1, 90)
    ernst = np.rad2deg(np.arccos(np.exp(-0.1)))
    assert abs(flips[np.argmax([spoiled_gradient_echo(WATER, 100, 0, f) for f in flips])] - ernst) < 1
    # With full recovery the null is at T1 ln 2; without inversion delay all is upside down.
    assert inversion_recovery(WATER, 1e9, 0, 1000 * np.log(2)) == pytest.approx(0, abs=1e-9)
    assert inversion_recovery(WATER, 1e9, 0, 0) == pytest.approx(0.8)
    assert with_gadolinium(WATER, 0.0, 3.0) == WATER
    assert with_gadolinium(WATER, 1.0, 3.0).t1 == pytest.approx(1 / (1 / 1000 + 0.0037))


@pytest.mark.parametrize(
    ("category", "dark_to_bright"),
    [
        ("AXT1", [Tissue.BONE, Tissue.CSF, Tissue.GREY, Tissue.WHITE, Tissue.FAT]),
        ("AXT1PRE", [Tissue.BONE, Tissue.CSF, Tissue.GREY, Tissue.WHITE, Tissue.FAT]),
        ("AXT1POST", [Tissue.CSF, Tissue.LESION, Tissue.WHITE, Tissue.ENHANCING, Tissue.BLOOD]),
        ("AXT2", [Tissue.BONE, Tissue.WHITE, Tissue.GREY, Tissue.LESION, Tissue.CSF]),
        ("AXFLAIR", [Tissue.CSF, Tissue.WHITE, Tissue.GREY, Tissue.LESION]),
        ("CORPD_FBK", [Tissue.BONE, Tissue.MENISCUS, Tissue.CARTILAGE, Tissue.MARROW]),
        ("CORPDFS_FBK", [Tissue.BONE, Tissue.FAT, Tissue.MUSCLE, Tissue.CARTILAGE, Tissue.FLUID]),
    ],
)
def test_contrast_order(category, dark_to_bright):
    for seed in range(40):
        rng = np.random.default_rng(seed)
        found = signals(draw_protocol(category, rng), rng).sum(0)[dark_to_bright]
        assert (np.diff(found) > 0).all(), (seed, found)


def test_fat_suppression_leaves_the_water_and_three_to_ten_per_cent_of_the_lipid():
    protocol = draw_protocol("CORPD_FBK", np.random.default_rng(0))
    suppressed = Protocol(**{**protocol.__dict__, "acquisition": "CORPDFS_FBK"})
    for seed in range(20):
        with_fat, no_lipid = signals(protocol, np.random.default_rng(seed))
        water, lipid = signals(suppressed, np.random.default_rng(seed))
        assert not no_lipid.any()
        for tissue, part in WATER_FRACTION.items():
            assert 0.03 <= lipid[tissue] / with_fat[tissue] / (1 - part) <= 0.10
        assert water[Tissue.MUSCLE] == with_fat[Tissue.MUSCLE]
        # Marrow is darker than muscle, but not black; red marrow is between.
        marrow, red, muscle = (water + lipid)[[Tissue.MARROW, Tissue.RED_MARROW, Tissue.MUSCLE]]
        assert 0.15 * muscle < marrow < red < muscle


def test_a_slice_is_the_mean_of_its_layers():
    low = np.array([[[Tissue.FAT]], [[Tissue.FAT]], [[Tissue.CSF]]], np.uint8)
    mix = np.array([[[0.0]], [[0.5]], [[0.0]]], np.float32)
    tissue = TissueMap(low, np.full_like(low, Tissue.AIR), mix, np.ones((1, 1), np.float32))
    values = np.zeros(len(Tissue), np.float32)
    values[Tissue.FAT], values[Tissue.CSF] = 3, 6
    assert tissue.paint(values).item() == pytest.approx((3 + 1.5 + 6) / 3)


def parts(tissue: TissueMap) -> dict[Tissue, float]:
    """How much of the slice each tissue takes."""
    return {
        t: float(np.mean((tissue.low == t) * (1 - tissue.mix) + (tissue.high == t) * tissue.mix))
        for t in Tissue
    }


@pytest.mark.parametrize("grid", [GRID, Grid((96, 66), (224.0, 154.0))])
def test_brain_slices_hold_a_brain(grid):
    for seed in range(3):
        subject = BrainSubject(np.random.default_rng(seed), 3)
        for offset in subject.offsets:
            part = parts(subject.slice(offset, grid, np.random.default_rng(0)))
            assert part[Tissue.AIR] < 0.75
            assert part[Tissue.WHITE] > 0.08
            assert part[Tissue.GREY] > 0.05
            assert part[Tissue.CSF] > 0.005


def test_knee_slices_hold_a_knee():
    grid = Grid((96, 96), (144.0, 144.0))
    for seed in range(3):
        subject = KneeSubject(np.random.default_rng(seed), 3)
        for offset in subject.offsets:
            tissue = subject.slice(offset, grid, np.random.default_rng(0))
            assert tissue.mix.min() >= 0
            assert tissue.mix.max() <= 1
            part = parts(tissue)
            for expected in (
                "SKIN", "FAT", "MUSCLE", "MARROW", "BONE", "CARTILAGE", "MENISCUS", "LIGAMENT", "FLUID",
            ):  # fmt: skip
                assert part[Tissue[expected]] > 2e-4, expected


@pytest.mark.parametrize(("offset", "plane"), [(0.0, 20), (90.0, 40), (30.0 * VOXEL_MM[0], 30)])
def test_pathology_lies_near_a_slice_or_as_near_as_there_is_tissue(offset, plane):
    where = np.zeros((60, 4, 4), bool)
    where[20:41] = True
    points = [_pick(np.random.default_rng(seed), where, np.array([offset])) for seed in range(20)]
    assert all(abs(point[0] - plane * VOXEL_MM[0]) < 2 for point in points)


def test_bounds_of_what_is_set():
    where = np.zeros((3, 6, 8), bool)
    assert findings("Mass", where) == []
    where[0, 2, 5] = where[2, 4, 3] = True
    (found,) = findings("Mass", where)
    assert (found.label, found.rows, found.columns) == ("Mass", (2, 4), (3, 5))


def outside(tissue: TissueMap) -> np.ndarray:
    """The points (y, x) in no finding of a slice."""
    out = np.ones(tissue.low.shape[1:], bool)
    for found in tissue.findings:
        out[found.rows[0] : found.rows[1] + 1, found.columns[0] : found.columns[1] + 1] = False
    return out


@pytest.mark.parametrize(
    ("kind", "category", "remove", "labels"),
    [
        (BrainSubject, "AXFLAIR", {"lesions": []}, {"Nonspecific white matter lesion", "Mass", "Edema"}),
        (KneeSubject, "CORPDFS_FBK", {"effusion_mm": 0.0}, {"Joint Effusion"}),
        (KneeSubject, "CORPDFS_FBK", {"tear": None}, {"Meniscus Tear"}),
        (KneeSubject, "CORPDFS_FBK", {"bruise": None}, {"Bone-Fracture/Contusion/dislocation"}),
    ],
)
def test_boxes_enclose_all_that_a_pathology_changes(kind, category, remove, labels):
    rng = np.random.default_rng(0)
    levels = signals(draw_protocol(category, rng), rng).sum(0)
    seen = set()
    for seed in range(8):
        subject = kind(np.random.default_rng(seed), 2)
        grid = Grid((96, 96), (subject.geometry.fov, subject.geometry.fov))
        ill = [subject.slice(offset, grid, np.random.default_rng(1)) for offset in subject.offsets]
        for name, healthy in remove.items():
            setattr(subject, name, healthy)
        for offset, with_it in zip(subject.offsets, ill, strict=True):
            without = subject.slice(offset, grid, np.random.default_rng(1))
            change = with_it.paint(levels) - without.paint(levels)
            here = {found.label for found in with_it.findings} & labels
            seen |= here
            assert not {found.label for found in without.findings} & labels
            assert np.any(change) == bool(here)
            assert not np.any(change[outside(with_it)])
            if here:
                # Water where there was none: brighter.
                assert change[change != 0].mean() > 0
    assert seen == labels


@pytest.mark.parametrize(
    "matrix",
    [
        square_matrix(40, 2),
        Matrix(80, 46, (40, 40), 2),
        Matrix(64, 27, (32, 25), 2),
        Matrix(64, 35, (64, 64), 2),
    ],
)
def test_a_drawn_block_appears_in_its_box(matrix):
    h, w = matrix.points(FINE)
    rows, columns = (h // 2 - 9, h // 2 + 4), (w // 2 + 3, w // 2 + 12)
    image = np.zeros((h, w), np.complex64)
    image[rows[0] : rows[1] + 1, columns[0] : columns[1] + 1] = 1
    target = root_sum_of_squares(to_kspace(image, matrix)[None], matrix.target)
    assert target.shape == matrix.target
    x, y, width, height = matrix.to_target(rows, columns, FINE)
    ys, xs = np.nonzero(target > 0.6)
    assert (xs.min(), ys.min()) >= (x, y)
    assert xs.max() < x + width
    assert ys.max() < y + height
    assert len(xs) >= (width - 2) * (height - 2)
    # What lies in the oversampled part only is not in the target.
    if matrix.recon[0] < matrix.phase:
        assert matrix.to_target(rows, (0, 1), FINE) is None
