"""Magnitude images: which they are, how they lie, and that their k-space is marked as simulated."""

from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from morelib.data.index import find_volumes
from morelib.data.readers import read_info, read_mask, read_slice, volume_max
from morelib.data.readers.nifti import left_out
from morelib.data.volume import SIMULATED
from morelib.errors import UserError
from morelib.physics.fourier import fft2c
from tests.data.fixtures import write_acdc_tree, write_nifti, write_prostate158_tree


def save(path: Path, voxels: np.ndarray, affine: np.ndarray | None = None) -> Path:
    nibabel.save(nibabel.Nifti1Image(voxels, np.diag([-1.0, -1, 1, 1]) if affine is None else affine), path)
    return path


def test_acdc_frames_of_one_patient_stay_together(tmp_path: Path) -> None:
    volumes = find_volumes(write_acdc_tree(tmp_path))
    assert [(info.name, info.patient) for info in volumes[2:4]] == [
        ("patient001/patient001_frame01.nii.gz", "patient001"),
        ("patient001/patient001_frame03.nii.gz", "patient001"),
    ]
    assert {(info.acquisition, info.anatomy, info.origin) for info in volumes} == {
        ("CINE (simulated)", "heart", SIMULATED)
    }


def test_prostate158_contrasts_of_one_patient_stay_together(tmp_path: Path) -> None:
    volumes = find_volumes(write_prostate158_tree(tmp_path))
    assert {(info.name, info.patient) for info in volumes if info.patient == "020"} == {
        ("020/dwi.nii.gz", "020"),
        ("020/t2.nii.gz", "020"),
    }
    assert {(info.acquisition, info.anatomy) for info in volumes} == {
        ("PROSTATE-T2 (simulated)", "prostate"),
        ("PROSTATE-DWI (simulated)", "prostate"),
    }


def test_any_other_image(tmp_path: Path) -> None:
    info = read_info(write_nifti(tmp_path / "case7/head_scan.nii.gz", (20, 24, 3)))
    assert (info.name, info.patient) == ("case7/head_scan.nii.gz", "head_scan")
    assert (info.acquisition, info.anatomy, info.origin) == ("NIfTI (simulated)", "unknown", SIMULATED)
    with pytest.raises(UserError, match="has no mask of its own; draw one"):
        read_mask(info)


@pytest.mark.parametrize(
    "name",
    ["patient001_frame01_gt.nii.gz", "patient001_4d.nii.gz", "t2_anatomy_reader1.nii.gz", "adc.nii.gz", "empty.nii.gz",
     "adc_tumor_reader2.nii.gz", "brain_mask.nii", "x_seg.nii.gz", "tumour.nii", "label.nii.gz", "case_adc.nii"],
)  # fmt: skip
def test_labels_and_maps_are_left_out(name: str, tmp_path: Path) -> None:
    path = write_nifti(tmp_path / name, (8, 8, 2))
    assert left_out(path)
    with pytest.raises(UserError, match="not a volume; leave it out"):
        read_info(path)


@pytest.mark.parametrize(
    "name",
    ["patient001_frame01.nii.gz", "t2.nii.gz", "dwi.nii", "segovia.nii.gz", "cascade.nii.gz", "mask.h5"],
)
def test_images_are_not_left_out(name: str) -> None:
    assert not left_out(Path(name))


def test_kspace_is_the_transform_of_the_slice_scaled_to_one(tmp_path: Path) -> None:
    voxels = np.random.default_rng(0).uniform(0, 900, (13, 10, 4)).astype(np.float32)
    info = read_info(save(tmp_path / "a.nii.gz", voxels))
    assert (info.n_slices, info.n_coils, info.readout, info.phase) == (4, 1, 10, 13)
    for index in range(4):
        kspace, target = read_slice(info, index)
        np.testing.assert_allclose(target, voxels[:, :, index].T / voxels.max(), rtol=1e-6)
        assert target is not None
        torch.testing.assert_close(kspace, fft2c(target.to(torch.complex64))[None])
    assert info.max == volume_max(info) == 1


def test_frames_follow_one_another(tmp_path: Path) -> None:
    voxels = np.zeros((8, 9, 2, 3), np.uint8)
    for z in range(2):
        for t in range(3):
            voxels[:, :, z, t] = 1 + z + 10 * t
    info = read_info(save(tmp_path / "a.nii.gz", voxels))
    assert info.n_slices == 6
    values = [float(read_slice(info, index)[1].max() * 22) for index in range(6)]
    assert values == pytest.approx([1, 2, 11, 12, 21, 22])
    volume_like = save(tmp_path / "b.nii", voxels[..., :1][..., None])
    assert read_info(volume_like).n_slices == 2


@pytest.mark.parametrize(
    ("signs", "corner"),
    [((-1, -1), (0, 0)), ((1, -1), (0, -1)), ((-1, 1), (-1, 0)), ((1, 1), (-1, -1))],
)
def test_images_are_turned_upright(signs: tuple[int, int], corner: tuple[int, int], tmp_path: Path) -> None:
    voxels = np.zeros((6, 5, 1), np.int16)
    voxels[0, 0] = (
        7  # the first voxel is, of all, most anterior where y decreases towards the front (-1), and so on
    )
    info = read_info(save(tmp_path / "a.nii", voxels, np.diag([*signs, 1.0, 1])))
    target = read_slice(info, 0)[1]
    assert target is not None and target[corner] == 1 and target.sum() == 1


def test_one_reading_serves_all_slices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = read_info(write_nifti(tmp_path / "a.nii.gz", (10, 10, 6)))
    load, calls = nibabel.load, []
    monkeypatch.setattr("nibabel.load", lambda *a, **k: (calls.append(a), load(*a, **k))[1])
    first = [read_slice(info, index)[1] for index in range(6)]
    assert len(calls) == 1
    first[0].zero_()
    assert read_slice(info, 0)[1].max() > 0, "what is handed out is a copy"
    write_nifti(info.path, (10, 10, 6), seed=5)
    assert not torch.equal(read_slice(info, 1)[1], first[1]), "a file that was changed is read again"


def test_nan_names_the_slice_and_spoils_no_other(tmp_path: Path) -> None:
    voxels = np.ones((6, 6, 3), np.float32)
    voxels[2, 2, 1], voxels[2, 2, 2] = np.nan, np.inf
    info = read_info(save(tmp_path / "a.nii.gz", voxels))
    assert read_slice(info, 0)[1].max() == 1
    for index in (1, 2):
        with pytest.raises(UserError, match=rf"a\.nii\.gz: the image of slice {index} holds NaN"):
            read_slice(info, index)


def test_small_negative_values_become_zero_and_empty_images_stay_zero(tmp_path: Path) -> None:
    voxels = np.full((6, 6, 1), -3, np.int16)
    voxels[3] = 100
    target = read_slice(read_info(save(tmp_path / "a.nii", voxels)), 0)[1]
    assert (target.min(), target.max()) == (0, 1)
    empty = read_info(save(tmp_path / "b.nii", np.zeros((6, 6, 1), np.int16)))
    kspace, target = read_slice(empty, 0)
    assert not kspace.any() and not target.any()


def test_a_plane_is_one_slice(tmp_path: Path) -> None:
    info = read_info(save(tmp_path / "a.nii", np.ones((6, 7), np.float64)))
    assert (info.n_slices, info.readout, info.phase) == (1, 7, 6)


RGB = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
REFUSED = {
    "colours": (np.zeros((4, 4, 2), RGB), "expected real numbers"),
    "complex": (np.ones((4, 4, 2), np.complex64), "expected real numbers"),
    "one axis": (np.ones(4, np.float32), "expected real numbers with 2 to 4 axes"),
    "vectors": (np.ones((4, 4, 2, 1, 3), np.float32), "expected real numbers with 2 to 4 axes"),
    "no voxels": (np.ones((4, 0, 2), np.float32), "none empty"),
    "a phase": (np.linspace(-3.2, 3.1, 32, dtype=np.float32).reshape(4, 4, 2), "magnitude images"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_magnitude_image_is_refused(case: str, tmp_path: Path) -> None:
    voxels, expected = REFUSED[case]
    path = save(tmp_path / "a.nii.gz", voxels)
    with pytest.raises(UserError, match=expected) as error:
        read_slice(read_info(path), 0)
    assert str(path) in str(error.value) and ";" in str(error.value)


def test_a_header_that_promises_too_much_is_refused_before_memory_is_taken(tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "a.nii", (8, 8, 2))
    content = bytearray(path.read_bytes())
    content[42:48] = np.array([30000, 30000, 30000], "<i2").tobytes()  # dim[1:4]
    path.write_bytes(content)
    with pytest.raises(UserError, match="too short for its shape"):
        read_info(path)


def test_small_repairs_to_a_header_print_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = write_nifti(tmp_path / "a.nii", (8, 8, 2))
    content = bytearray(path.read_bytes())
    content[252:254] = np.array([77], "<i2").tobytes()  # qform_code
    path.write_bytes(content)
    assert read_slice(read_info(path), 0)[1].max() > 0
    assert capfd.readouterr() == ("", "")


def test_a_bad_checksum_is_seen(tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "a.nii.gz", (20, 20, 4))
    content = bytearray(path.read_bytes())
    content[-6] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="CRC"):
        read_slice(read_info(path), 0)
