"""The phantom: files that fastMRI reads, the same bytes every time, and contrasts in the right order."""

import hashlib
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import h5py
import numpy as np
import pytest
from fastmri.data import SliceDataset

from morelib.data.phantom import BRAIN, KNEE, make_phantom
from morelib.data.phantom import write as phantom_write
from morelib.data.phantom.acquire import to_kspace
from morelib.data.phantom.brain import BrainSubject
from morelib.data.phantom.knee import KneeSubject
from morelib.data.phantom.protocol import Protocol, draw_protocol
from morelib.data.phantom.signal import (
    inversion_recovery,
    signals,
    spin_echo,
    spoiled_gradient_echo,
    with_gadolinium,
)
from morelib.data.phantom.tissue import Relaxation, Tissue
from morelib.errors import UserError

SMALL = {"size": 32, "coils": 2, "slices": 2}


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return make_phantom(tmp_path_factory.mktemp("phantom"), volumes_per_category=2, **SMALL)


def test_seven_categories_in_order(phantom):
    names = [f"file_brain_{c}_phantom_{i:04d}.h5" for c in BRAIN for i in range(2)]
    names += [f"file_knee_{c}_phantom_{i:04d}.h5" for c in KNEE for i in range(2)]
    assert [path.name for path in phantom] == names
    assert {path.name for path in phantom[0].parent.iterdir()} == set(names)


def test_same_arguments_same_bytes_and_fewer_volumes_the_same_ones(phantom, tmp_path):
    calls = []
    again = make_phantom(
        tmp_path,
        volumes_per_category=1,
        progress=lambda done, total, path: calls.append((done, total, path)),
        **SMALL,
    )
    assert calls == [(i + 1, 7, path) for i, path in enumerate(again)]
    assert [digest(path) for path in again] == [digest(path) for path in phantom[::2]]
    # Written over what is there.
    assert [digest(p) for p in make_phantom(tmp_path, volumes_per_category=1, **SMALL)] == [
        digest(p) for p in again
    ]


def test_another_seed_is_another_phantom(phantom, tmp_path):
    other = make_phantom(tmp_path, volumes_per_category=1, seed=1, **SMALL)
    assert not {digest(path) for path in other} & {digest(path) for path in phantom}


def test_fastmri_reads_it_and_its_padding_holds(phantom):
    dataset = SliceDataset(phantom[0].parent, challenge="multicoil")
    assert len(dataset) == len(phantom) * 2
    widths = set()
    for kspace, _, target, attrs, name, _ in dataset:
        assert kspace.shape == (2, 64, 32)
        assert kspace.dtype == np.complex64
        assert target.shape == (32, 32)
        assert target.dtype == np.float32
        left, right = attrs["padding_left"], attrs["padding_right"]
        assert attrs["encoding_size"] == (64, 32, 1)
        assert attrs["recon_size"] == (32, 32, 1)
        assert 0 <= left < 16 < right <= 32
        acquired = np.any(kspace != 0, axis=(0, 1))
        assert acquired[left:right].all(), name
        assert not acquired[:left].any()
        assert not acquired[right:].any()
        widths.add(right - left)
    assert len(widths) > 1


def test_target_is_the_rss_of_the_stored_kspace(phantom):
    for path in phantom:
        with h5py.File(path) as file:
            kspace, target = file["kspace"][()], file["reconstruction_rss"][()]
            axes = (-2, -1)
            image = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(kspace, axes), norm="ortho"), axes)
            rss = np.sqrt((np.abs(image[..., 16:48, :]) ** 2).sum(1))
            np.testing.assert_allclose(target, rss, atol=1e-5 * rss.max())
            assert file.attrs["max"] == target.max()
            assert file.attrs["norm"] == pytest.approx(np.linalg.norm(target), rel=1e-6)
            assert 1e-4 < file.attrs["max"] < 1e-3
            assert np.isfinite(kspace).all()


def test_patients_one_per_brain_volume_and_one_per_pair_of_knee_volumes(phantom):
    patients: dict[str, list[str]] = {}
    for path in phantom:
        with h5py.File(path) as file:
            patients.setdefault(file.attrs["patient_id"], []).append(file.attrs["acquisition"])
    assert len(patients) == 2 * len(BRAIN) + 2
    assert sorted(len(found) for found in patients.values()) == [1] * 10 + [2, 2]
    assert all(set(found) == set(KNEE) for found in patients.values() if len(found) == 2)


def test_header_says_how_and_that_it_is_synthetic(phantom):
    space = {"r": "http://www.ismrm.org/ISMRMRD"}
    for path in phantom:
        with h5py.File(path) as file:
            root = ElementTree.fromstring(file["ismrmrd_header"][()])
            category = file.attrs["acquisition"]
        assert root.findtext("r:acquisitionSystemInformation/r:systemModel", "", space).startswith(
            "synthetic phantom"
        )
        assert root.findtext("r:acquisitionSystemInformation/r:receiverChannels", "", space) == "2"
        assert float(root.findtext("r:acquisitionSystemInformation/r:systemFieldStrength_T", "", space)) in (
            1.49,
            2.89,
        )
        te = float(root.findtext("r:sequenceParameters/r:TE", "", space))
        assert (te > 70) == (category in ("AXT2", "AXFLAIR"))


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
        found = signals(draw_protocol(category, rng), rng)[dark_to_bright]
        assert (np.diff(found) > 0).all(), (seed, found)


def test_fat_suppression_leaves_three_to_ten_per_cent():
    protocol = draw_protocol("CORPD_FBK", np.random.default_rng(0))
    suppressed = Protocol(**{**protocol.__dict__, "acquisition": "CORPDFS_FBK"})
    for seed in range(20):
        with_fat = signals(protocol, np.random.default_rng(seed))
        without = signals(suppressed, np.random.default_rng(seed))
        assert 0.03 <= without[Tissue.FAT] / with_fat[Tissue.FAT] <= 0.10
        assert without[Tissue.MUSCLE] == with_fat[Tissue.MUSCLE]


def test_brain_slices_hold_a_brain():
    subject = BrainSubject(np.random.default_rng(0), 3)
    for i in range(3):
        tissue = subject.slice(i, 96, np.random.default_rng(i))
        part = {t: np.mean((tissue.low == t) & (tissue.mix < 0.5)) for t in Tissue}
        part[Tissue.WHITE] += np.mean((tissue.high == Tissue.WHITE) & (tissue.mix >= 0.5))
        assert 0.3 < part[Tissue.AIR] < 0.75
        assert part[Tissue.WHITE] > 0.08
        assert part[Tissue.GREY] > 0.05
        assert part[Tissue.CSF] > 0.005


def test_knee_slices_hold_a_knee():
    subject = KneeSubject(np.random.default_rng(0), 3)
    for i in range(3):
        tissue = subject.slice(i, 96, np.random.default_rng(i))
        assert tissue.mix.min() >= 0
        assert tissue.mix.max() <= 1
        for expected in (
            "SKIN",
            "FAT",
            "MUSCLE",
            "MARROW",
            "BONE",
            "CARTILAGE",
            "MENISCUS",
            "LIGAMENT",
            "FLUID",
        ):
            assert np.any(tissue.low == Tissue[expected]), expected


def test_kspace_of_a_fine_image_keeps_its_values():
    y, x = np.mgrid[-1:1:96j, -1:1:96j]
    image = np.exp(-6 * (x**2 + y**2) + 1j * x).astype(np.complex64)
    kspace = to_kspace(image, 32)
    assert kspace.shape == (64, 32)
    axes = (0, 1)
    back = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(kspace, axes), norm="ortho"), axes)
    # Three fine points to a pixel, whose centre is the first of them.
    np.testing.assert_allclose(back[16:48], image[::3, ::3], atol=0.01)
    assert np.abs(back[:16]).max() < 0.01


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"size": 33}, "odd"),
        ({"size": 30}, "size"),
        ({"coils": 0}, "coils"),
        ({"slices": 0}, "slices"),
        ({"volumes_per_category": 0}, "volumes_per_category"),
        ({"seed": -1}, "seed"),
    ],
)
def test_bad_arguments(tmp_path, arguments, word):
    with pytest.raises(UserError, match=word):
        make_phantom(tmp_path / "out", **arguments)
    assert not (tmp_path / "out").exists()


def test_a_file_in_the_way(tmp_path):
    (tmp_path / "out").write_text("not a folder")
    with pytest.raises(UserError, match="out"):
        make_phantom(tmp_path / "out", **SMALL)


def test_interrupt_leaves_whole_files_only(tmp_path):
    def stop(done: int, total: int, path: Path) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_phantom(tmp_path, volumes_per_category=2, progress=stop, **SMALL)
    left = list(tmp_path.iterdir())
    assert 1 <= len(left) < 14
    for path in left:
        with h5py.File(path) as file:
            assert {"kspace", "reconstruction_rss", "ismrmrd_header"} == set(file)


@pytest.mark.parametrize(
    ("error", "raised"), [(KeyboardInterrupt(), KeyboardInterrupt), (OSError("full"), UserError)]
)
def test_trouble_while_writing_leaves_nothing(tmp_path, monkeypatch, error, raised):
    class Broken(h5py.File):
        def create_dataset(self, name, *args, **kwargs):
            if name == "reconstruction_rss":
                raise error
            return super().create_dataset(name, *args, **kwargs)

    monkeypatch.setattr(phantom_write.h5py, "File", Broken)
    with pytest.raises(raised):
        make_phantom(tmp_path, volumes_per_category=1, **SMALL)
    assert list(tmp_path.iterdir()) == []
