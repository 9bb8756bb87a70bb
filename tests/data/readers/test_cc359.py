"""Calgary-Campinas: both orders of k-space, the 85 % rule, and files of another kind."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from morelib.data.readers import read_info, read_slice
from morelib.data.readers.cc359 import acquired
from morelib.data.volume import MEASURED
from morelib.errors import UserError
from morelib.physics.fourier import ifft2c
from tests.data.fixtures import write_cc359_file


def stored(path: Path, index: int) -> np.ndarray:
    """One slice of the file (coil, y, x), as public code reads it."""
    with h5py.File(path) as file:
        values = file["kspace"][index]
    return (values[..., ::2] + 1j * values[..., 1::2]).transpose(2, 0, 1)


@pytest.mark.parametrize("zero_first", [False, True])
@pytest.mark.parametrize("size", [(36, 30), (35, 29), (34, 31)])
def test_coil_images_are_those_of_a_plain_transform(
    size: tuple[int, int], zero_first: bool, tmp_path: Path
) -> None:
    path = write_cc359_file(tmp_path / "a.h5", readout=size[0], phase=size[1], zero_first=zero_first)
    info = read_info(path)
    assert (info.n_slices, info.padding) == (8, (0, acquired(size[1])))  # [1:-1] of 10
    for index in range(info.n_slices):
        kspace, target = read_slice(info, index)
        plain = np.abs(np.fft.ifft2(stored(path, index + 1), norm="ortho"))
        np.testing.assert_allclose(ifft2c(kspace).abs().numpy(), plain, rtol=0, atol=1e-5 * plain.max())
        np.testing.assert_allclose(target, np.sqrt((plain**2).sum(0)), rtol=0, atol=1e-5 * plain.max())


def test_both_orders_give_the_same_kspace_with_its_energy_in_the_middle(tmp_path: Path) -> None:
    first, middle = (
        read_slice(read_info(write_cc359_file(tmp_path / f"{zero_first}.h5", zero_first=zero_first)), 0)[0]
        for zero_first in (True, False)
    )
    torch.testing.assert_close(first, middle)
    assert middle.abs().square().sum(0).argmax() == 36 // 2 * 30 + 30 // 2


def test_header_facts(tmp_path: Path) -> None:
    info = read_info(write_cc359_file(tmp_path / "e14110s3_P59904.7.h5"))
    assert (info.patient, info.anatomy, info.acquisition) == ("e14110s3_P59904.7", "brain", "CC359-T1")
    assert (info.scanner, info.field_t, info.max, info.origin) == (None, None, None, MEASURED)
    assert (info.n_coils, info.readout, info.phase, info.recon) == (3, 36, 30, (36, 30))


def test_the_outer_slices_of_a_full_volume_are_not_used(tmp_path: Path) -> None:
    path = write_cc359_file(tmp_path / "a.h5", depth=256, coils=1, readout=12, phase=10)
    info = read_info(path)
    assert info.n_slices == len(range(256)[50:-50])
    np.testing.assert_allclose(read_slice(info, 0)[0].abs(), np.abs(stored(path, 50)), rtol=1e-5)


def test_columns_that_were_never_acquired_are_zero_even_if_the_file_has_values_there(tmp_path: Path) -> None:
    path = write_cc359_file(tmp_path / "a.h5")
    with h5py.File(path, "a") as file:
        file["kspace"][:, :, 26:] = 1e-3
    assert not read_slice(read_info(path), 0)[0][..., 26:].any()


def test_the_rule_of_85_percent() -> None:
    assert (
        [acquired(n) for n in (170, 174, 180)]
        == [int(np.ceil(0.85 * n)) for n in (170, 174, 180)]
        == [145, 148, 153]
    )


def test_test_files_that_are_undersampled_in_both_directions_are_refused(tmp_path: Path) -> None:
    path = write_cc359_file(tmp_path / "a.h5")
    with h5py.File(path, "a") as file:
        keep = np.random.default_rng(0).random((36, 30, 1)) < 0.2
        file["kspace"][...] = file["kspace"][()] * keep
    with pytest.raises(
        UserError, match=r"a\.h5: most of its k-space is zero.*; give the fully sampled files"
    ):
        read_info(path)


BROKEN = {
    "whole numbers": (np.ones((4, 8, 8, 4), np.int16), "expected float32"),
    "odd channels": (np.ones((4, 8, 8, 5), np.float32), "real and imaginary"),
    "no coils": (np.ones((4, 8, 8, 0), np.float32), "none empty"),
    "no slices": (np.ones((0, 8, 8, 4), np.float32), "none empty"),
    "text": (np.full((2, 2, 2, 2), b"a"), "expected float32"),
    "three axes": (np.ones((8, 8, 4), np.float32), "expected 4 axes"),
    "complex": (np.ones((4, 4, 8, 8), np.complex64), "no dataset 'ismrmrd_header'"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_other_files_are_refused(case: str, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["kspace"] = BROKEN[case][0]
    with pytest.raises(UserError, match=BROKEN[case][1]) as error:
        read_info(tmp_path / "a.h5")
    assert "a.h5: " in str(error.value) and ";" in str(error.value)


@pytest.mark.parametrize("dtype", ["f2", ">f4", "f8"])
def test_other_real_numbers_and_chunks_work(dtype: str, tmp_path: Path) -> None:
    path = write_cc359_file(tmp_path / "a.h5")
    with h5py.File(path, "a") as file:
        values = file["kspace"][()] * 100
        del file["kspace"]
        file.create_dataset("kspace", data=values.astype(dtype), chunks=(1, 36, 30, 6), compression="gzip")
    kspace, target = read_slice(read_info(path), 2)
    assert kspace.dtype == torch.complex64 and target is not None and 0.01 < target.max() < 1
