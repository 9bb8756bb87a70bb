"""Headers, slices, and every way a file can be bad."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from fastmri.data import SliceDataset as FastmriSliceDataset

from morelib.data.index import find_volumes
from morelib.data.readers import read_info, read_mask, read_slice, volume_max
from morelib.data.volume import CATEGORIES, SYNTHETIC
from morelib.errors import UserError


@pytest.fixture
def path(tmp_path: Path, write_file: Callable[..., Path]) -> Path:
    return write_file(tmp_path / "one.h5", "AXT2", "anna")


def test_reads_what_fastmri_reads(fastmri_files: Path) -> None:
    volumes = {volume.name: volume for volume in find_volumes(fastmri_files)}
    theirs = FastmriSliceDataset(fastmri_files, "multicoil")
    assert len(theirs) == sum(volume.n_slices for volume in volumes.values())
    for kspace, _, target, attrs, name, index in theirs:
        info = volumes[name]
        ours_kspace, ours_target = read_slice(info, index)
        np.testing.assert_array_equal(ours_kspace.numpy(), kspace)
        assert ours_target is not None
        np.testing.assert_array_equal(ours_target.numpy(), target)
        assert info.padding == (attrs["padding_left"], attrs["padding_right"])
        assert info.recon == attrs["recon_size"][:2]
        assert (info.acquisition, info.patient, info.max) == (
            attrs["acquisition"],
            attrs["patient_id"],
            attrs["max"],
        )


def test_find_volumes_is_sorted_and_complete(fastmri_files: Path) -> None:
    volumes = find_volumes(fastmri_files)
    assert [volume.name for volume in volumes] == sorted(volume.name for volume in volumes)
    assert {volume.acquisition for volume in volumes} == set(CATEGORIES)
    assert {volume.anatomy for volume in volumes if volume.acquisition.startswith("COR")} == {"knee"}
    assert {volume.anatomy for volume in volumes if volume.acquisition.startswith("AX")} == {"brain"}
    assert all(volume.field_t == 2.89 and volume.origin == SYNTHETIC for volume in volumes)


def test_half_written_files_are_not_volumes(tmp_path: Path, write_file: Callable[..., Path]) -> None:
    write_file(tmp_path / "a.h5", "AXT2", "anna")
    (tmp_path / ".b.1234.partial.h5").write_bytes(b"half")
    assert [volume.name for volume in find_volumes(tmp_path)] == ["a.h5"]


def test_target_is_made_from_fully_sampled_kspace(path: Path) -> None:
    stored = read_slice(read_info(path), 1)[1]
    maximum = volume_max(read_info(path))
    with h5py.File(path, "a") as file:
        del file["reconstruction_rss"], file.attrs["max"]
    info = read_info(path)
    assert info.has_target
    assert info.max is None
    torch.testing.assert_close(read_slice(info, 1)[1], stored, rtol=1e-5, atol=1e-9)
    assert volume_max(info) == pytest.approx(maximum, rel=1e-5)


def test_undersampled_file_has_a_mask_and_no_target(path: Path) -> None:
    columns = np.zeros(32)
    columns[[5, 15, 16, 17, 27]] = 1
    with h5py.File(path, "a") as file:
        del file["reconstruction_rss"]
        file["mask"] = columns
    info = read_info(path)
    assert info.undersampled
    assert not info.has_target
    assert read_slice(info, 0)[1] is None
    mask = read_mask(info)
    np.testing.assert_array_equal(mask.mask.numpy(), columns > 0)
    assert (mask.n_acs, mask.acceleration) == (3, 28 / 5)


def test_m4raw_names_and_missing_attributes_work(path: Path) -> None:
    with h5py.File(path, "a") as file:
        file.attrs["acquisition"] = np.bytes_(b"FLAIR")
        del file.attrs["patient_id"], file.attrs["max"]
    info = read_info(path)
    assert (info.acquisition, info.patient, info.max) == ("FLAIR", "one", None)


def test_zero_maximum_becomes_one(path: Path) -> None:
    assert volume_max(replace(read_info(path), max=0.0)) == 1.0


def edit_header(old: str, new: str) -> Callable[[h5py.File], None]:
    def edit(file: h5py.File) -> None:
        text = file["ismrmrd_header"][()].decode()
        changed = re.sub(old, new, text)
        assert changed != text
        replace_dataset("ismrmrd_header", changed.encode())(file)

    return edit


def replace_dataset(key: str, value: object) -> Callable[[h5py.File], None]:
    def edit(file: h5py.File) -> None:
        del file[key]
        if value is not None:
            file[key] = value

    return edit


BROKEN = {
    "no kspace": (replace_dataset("kspace", None), "no dataset 'kspace'"),
    "three axes": (replace_dataset("kspace", np.zeros((2, 4, 4), np.complex64)), "expected 4 axes"),
    "no slices": (replace_dataset("kspace", np.zeros((0, 2, 4, 4), np.complex64)), "none empty"),
    "real kspace": (replace_dataset("kspace", np.zeros((2, 2, 4, 4), np.float32)), "expected complex"),
    "no header": (replace_dataset("ismrmrd_header", None), "no dataset 'ismrmrd_header'"),
    "no XML": (replace_dataset("ismrmrd_header", b"<a><b></a>"), "not valid XML"),
    "not UTF-8": (replace_dataset("ismrmrd_header", b"\xff\xfe<a/>"), "not valid XML"),
    "entity": (
        edit_header("<ismrmrdHeader", '<!DOCTYPE a [<!ENTITY b "c">]><ismrmrdHeader'),
        "document type",
    ),
    "no center": (edit_header("<center>.*</center>", ""), "kspace_encoding_step_1/center"),
    "odd number": (
        edit_header("<maximum>.*</maximum>", "<maximum>x</maximum>"),
        "kspace_encoding_step_1/maximum",
    ),
    "all padding": (edit_header("<center>.*</center>", "<center>-99</center>"), "outside the acquired range"),
    "slices differ": (
        replace_dataset("reconstruction_rss", np.zeros((3, 24, 24), np.float32)),
        "reconstruction_rss",
    ),
    "complex target": (
        replace_dataset("reconstruction_rss", np.zeros((2, 24, 24), np.complex64)),
        "reconstruction_rss",
    ),
    "bad maximum": (lambda file: file.attrs.update(max="much"), "attribute max"),
    "NaN maximum": (lambda file: file.attrs.update(max=float("nan")), "attribute max"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_bad_content_is_one_line_naming_the_file(case: str, path: Path) -> None:
    edit, expected = BROKEN[case]
    with h5py.File(path, "a") as file:
        edit(file)
    with pytest.raises(UserError, match=expected) as error:
        read_info(path)
    message = str(error.value)
    assert str(path) in message
    assert "\n" not in message
    assert ";" in message, "the message holds a remedy"


@pytest.mark.parametrize("content", [b"", b"not HDF5 at all", None], ids=["empty", "foreign", "truncated"])
def test_unreadable_file(content: bytes | None, path: Path) -> None:
    path.write_bytes(path.read_bytes()[:3000] if content is None else content)
    with pytest.raises(UserError, match=r"one\.h5: not a readable HDF5 file"):
        read_info(path)


def test_missing_things(tmp_path: Path, path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        read_info(tmp_path / "none.h5")
    with pytest.raises(UserError, match=r"no such folder.*morelib phantom"):
        find_volumes(tmp_path / "none")
    with pytest.raises(UserError, match="no such folder"):
        find_volumes(path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"no \.h5 files.*morelib phantom"):
        find_volumes(tmp_path / "empty")


@pytest.mark.parametrize("key", ["kspace", "reconstruction_rss"])
def test_nan_names_file_and_slice(key: str, path: Path) -> None:
    with h5py.File(path, "a") as file:
        values = file[key][()]
        values[1, 0, 0] = np.nan
        file[key][...] = values
    info = read_info(path)
    read_slice(info, 0)
    with pytest.raises(UserError, match=rf"one\.h5: {key} of slice 1 holds NaN"):
        read_slice(info, 1)


def test_mask_of_other_width(path: Path) -> None:
    with h5py.File(path, "a") as file:
        file["mask"] = np.ones(31)
    with pytest.raises(UserError, match="31 columns of float64, kspace has 32"):
        read_mask(read_info(path))
