"""Headers drawn from the real volume table: matrices, coils and scanners, confounded as in fastMRI."""

from collections import defaultdict
from pathlib import Path

import h5py
import numpy as np
import pytest
from fastmri.data import SliceDataset
from fastmri.data.transforms import center_crop

from morelib.data import read_info, read_slice
from morelib.data.pathology import read_boxes
from morelib.data.phantom import BRAIN, KNEE, make_phantom
from morelib.data.phantom.matrix import Matrix, real_matrix, square_matrix
from morelib.data.phantom.protocol import Protocol, draw_protocol

REAL = {"size": 40, "coils": 14, "slices": 2, "real_headers": True}


def test_protocols_come_as_often_as_in_the_real_table():
    rng = np.random.default_rng(0)
    at_3t = {c: np.mean([draw_protocol(c, rng).field_t > 2 for _ in range(400)]) for c in ("AXT1", "AXT1PRE")}
    assert 0.08 < at_3t["AXT1"] < 0.25
    assert 0.8 < at_3t["AXT1PRE"] < 0.97


def test_phase_limits_stay_inside_every_width():
    rng = np.random.default_rng(0)
    for category in (*BRAIN, *KNEE):
        for width in (32, 64, 90, 320):
            center, maximum = draw_protocol(category, rng).limits(width)
            left = width // 2 - center
            assert 0 <= left < width // 2 < left + maximum + 1 <= width


def draws(category: str, n: int = 600) -> list[tuple[Protocol, Matrix]]:
    rng = np.random.default_rng(0)
    return [
        (protocol, real_matrix(protocol, 320, 28))
        for protocol in (draw_protocol(category, rng) for _ in range(n))
    ]


def test_contrast_scanner_field_coils_and_matrix_are_confounded():
    for category in (*BRAIN, *KNEE):
        for protocol, matrix in draws(category):
            # Of the brain, only AXT2 at 3 T has matrices as wide as 396.
            if matrix.readout == 768:
                assert (category, protocol.field_t) == ("AXT2", 2.89)
            if protocol.scanner in ("Aera", "Avanto"):
                assert protocol.field_t == 1.49
            else:
                assert protocol.field_t == 2.89
            assert (matrix.coils == 15) == (category in KNEE)
    wide = np.mean([matrix.readout == 768 for _, matrix in draws("AXT2")])
    assert 0.5 < wide < 0.7


def test_full_size_and_all_coils_are_the_real_ones():
    sizes = defaultdict(int)
    for category in BRAIN:
        for protocol, matrix in draws(category):
            assert (matrix.readout, matrix.phase) == (protocol.encoded_x, protocol.encoded_y)
            assert matrix.recon == (protocol.recon_x, protocol.recon_y)
            assert matrix.coils == protocol.coils
            left = matrix.phase // 2 - protocol.pe_center
            assert protocol.limits(matrix.phase) == (protocol.pe_center, protocol.pe_max), (left, protocol)
            sizes[matrix.readout, matrix.phase, matrix.target] += 1
    assert sizes[640, 320, (320, 320)] > sizes[640, 264, (320, 260)] > 0
    # Interpolated by the scanner: the target is as large as what was measured.
    assert sizes[512, 276, (512, 276)] > 0


def test_smaller_sizes_keep_the_ratios():
    rng = np.random.default_rng(1)
    for category in (*BRAIN, *KNEE):
        for _ in range(200):
            protocol = draw_protocol(category, rng)
            full, small = real_matrix(protocol, 320, 28), real_matrix(protocol, 80, 14)
            assert small.readout == pytest.approx(full.readout / 4, abs=2)
            assert small.phase == pytest.approx(full.phase / 4, abs=2)
            assert small.phase % 2 == full.phase % 2
            assert small.recon == pytest.approx(np.array(full.recon) / 4, abs=2)
            assert small.coils == max(2, round(full.coils / 2))
            assert small.target[0] <= small.readout
            assert small.target[1] <= small.phase


def test_a_square_matrix():
    matrix = square_matrix(64, 3)
    assert matrix == Matrix(128, 64, (64, 64), 3)
    assert matrix.target == (64, 64)
    assert matrix.extent(200.0) == (200.0, 200.0)
    # Pixels stay square: fewer columns see less.
    assert Matrix(128, 48, (64, 48), 3).extent(200.0) == (200.0, 150.0)


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return make_phantom(tmp_path_factory.mktemp("real"), volumes_per_category=5, **REAL)


def test_both_readers_read_every_file(phantom):
    shapes = set()
    dataset = iter(SliceDataset(phantom[0].parent, challenge="multicoil"))
    theirs = {(name, number): rest for *rest, name, number in dataset}
    for path in phantom:
        info = read_info(path)
        assert info.origin == "synthetic"
        shapes.add((info.readout, info.phase, info.n_coils))
        for index in range(info.n_slices):
            kspace, target = read_slice(info, index)
            their_kspace, _, their_target, attrs = theirs[path.name, index]
            assert np.isfinite(their_kspace).all()
            np.testing.assert_array_equal(kspace.numpy(), their_kspace)
            np.testing.assert_array_equal(target.numpy(), their_target)
            assert attrs["encoding_size"] == (info.readout, info.phase, 1)
            assert info.padding == (attrs["padding_left"], attrs["padding_right"])
            assert target.shape == (
                min(attrs["recon_size"][0], info.readout),
                min(attrs["recon_size"][1], info.phase),
            )
            image = np.fft.fftshift(
                np.fft.ifft2(np.fft.ifftshift(their_kspace, (1, 2)), norm="ortho"), (1, 2)
            )
            rss = center_crop(np.sqrt((np.abs(image) ** 2).sum(0)), tuple(target.shape))
            np.testing.assert_allclose(their_target, rss, atol=1e-5 * rss.max())
        for box in read_boxes(path):
            assert box.slice < info.n_slices
            assert box.x + box.width <= info.recon[1]
            assert box.y + box.height <= info.recon[0]
    assert len(shapes) > 5


def test_the_scanner_stands_in_the_file(phantom):
    scanners = {read_info(path).scanner for path in phantom}
    assert len(scanners) > 2
    assert all(scanner.endswith(" (synthetic phantom)") for scanner in scanners)


def test_same_arguments_same_bytes(phantom, tmp_path):
    again = make_phantom(tmp_path, volumes_per_category=1, **REAL)
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in phantom[::5]]


def test_boxes_are_stored(phantom):
    with h5py.File(phantom[0]) as file:
        assert isinstance(file.attrs["pathology"], str)
    labels = {box.label for path in phantom for box in read_boxes(path)}
    assert {"Nonspecific white matter lesion", "Joint Effusion", "Meniscus Tear"} <= labels
