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
from morelib.data.phantom.matrix import Matrix
from morelib.errors import UserError

SCANNERS = {"Skyra", "Aera", "Avanto", "Biograph_mMR", "Prisma_fit", "TrioTim"}
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
        model = root.findtext("r:acquisitionSystemInformation/r:systemModel", "", space)
        assert model.endswith(" (synthetic phantom)")
        assert model.split()[0] in SCANNERS
        assert root.findtext("r:acquisitionSystemInformation/r:receiverChannels", "", space) == "2"
        assert float(root.findtext("r:acquisitionSystemInformation/r:systemFieldStrength_T", "", space)) in (
            1.49,
            2.89,
        )
        te = float(root.findtext("r:sequenceParameters/r:TE", "", space))
        assert (te > 70) == (category in ("AXT2", "AXFLAIR"))


def test_kspace_of_a_fine_image_keeps_its_values():
    for phase in (32, 33, 40):
        y, x = np.meshgrid(np.linspace(-1, 1, 64), np.linspace(-1, 1, 2 * phase), indexing="ij")
        image = np.exp(-6 * (x**2 + y**2) + 1j * x).astype(np.complex64)
        kspace = to_kspace(image, Matrix(64, phase, (32, 32), 1))
        assert kspace.shape == (64, phase)
        axes = (0, 1)
        back = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(kspace, axes), norm="ortho"), axes)
        # Two fine points to a pixel; the middle one, and so every second from there, lies on a pixel.
        np.testing.assert_allclose(back[16:48], image[::2, phase % 2 :: 2], atol=0.01)
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
