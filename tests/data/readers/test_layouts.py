"""What holds for every layout, and that damaged files of every layout are refused in one line."""

import os
import random
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from morelib.data.dataset import SliceDataset
from morelib.data.index import find_volumes
from morelib.data.readers import read_info, read_mask, read_slice, volume_max
from morelib.data.volume import SIMULATED, VolumeInfo
from morelib.errors import UserError
from morelib.physics.fourier import centre_crop, ifft2c
from morelib.physics.sense import rss
from tests.data import fixtures
from tests.data.fixtures_raw import write_raw_file
from tests.data.synthetic import noisy_kspace

WRITERS: dict[str, Callable[[Path], Path]] = {
    "fastmri": lambda folder: fixtures.write_fastmri_file(folder / "a.h5", "AXT2", "anna"),
    "m4raw": fixtures.write_m4raw_file,
    "cc359": lambda folder: fixtures.write_cc359_file(folder / "c.h5"),
    "nifti": lambda folder: fixtures.write_nifti(folder / "n.nii", (20, 21, 3)),
    "packed": lambda folder: fixtures.write_nifti(folder / "n.nii.gz", (20, 21, 3)),
    "raw": lambda folder: write_raw_file(folder / "r.h5"),
    "raw 3-D": lambda folder: write_raw_file(
        folder / "r3.h5", partitions=noisy_kspace(3, 2, 24, 16), lines=range(16)
    ),
}


@pytest.fixture(scope="module", params=fixtures.DATASETS)
def volumes(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[VolumeInfo]:
    return find_volumes(fixtures.DATASETS[request.param](tmp_path_factory.mktemp(request.param)))


def check(info: VolumeInfo) -> None:
    """Every slice is as the header says, and finite."""
    for index in range(info.n_slices):
        kspace, target = read_slice(info, index)
        assert kspace.dtype == torch.complex64 and kspace.is_contiguous()
        assert kspace.shape == (info.n_coils, info.readout, info.phase)
        assert torch.view_as_real(kspace).isfinite().all()
        if target is None:
            assert info.undersampled
            assert read_mask(info).mask.shape == (info.phase,)
            continue
        assert target.dtype == torch.float32 and target.shape == info.recon and target.isfinite().all()


def test_slices_are_as_the_header_says(volumes: list[VolumeInfo]) -> None:
    for info in volumes:
        check(info)
        maximum = volume_max(info)
        for index in range(info.n_slices):
            kspace, target = read_slice(info, index)
            left, right = info.padding
            assert not kspace[..., :left].any() and not kspace[..., right:].any()
            assert target is not None
            computed = centre_crop(rss(ifft2c(kspace), dim=0), info.recon)
            torch.testing.assert_close(computed, target, rtol=1e-4, atol=1e-5 * maximum)
            assert target.max() <= maximum * 1.00001


def test_slices_may_be_written_to(volumes: list[VolumeInfo]) -> None:
    kspace, target = read_slice(volumes[0], 0)
    kept = kspace.clone(), target.clone() if target is not None else None
    for values in (kspace, target):
        if values is not None:
            values.zero_()
    for again, before in zip(read_slice(volumes[0], 0), kept, strict=True):
        assert (again is None and before is None) or torch.equal(again, before)


def test_names_patients_and_origin(volumes: list[VolumeInfo]) -> None:
    assert len({info.name for info in volumes}) == len(volumes)
    assert len({info.patient for info in volumes}) == 3
    for info in volumes:
        assert (info.origin == SIMULATED) == ("(simulated)" in info.acquisition)


def test_every_data_set_can_be_trained_on(volumes: list[VolumeInfo]) -> None:
    dataset = SliceDataset(volumes, "equispaced", acceleration=4, center_fraction=0.1, train=True)
    assert len(dataset) == sum(info.n_slices for info in volumes)
    for item in (dataset[0], dataset[len(dataset) - 1]):
        assert item.kspace.abs().max() > 0 and not item.kspace[..., ~item.mask[0, 0]].any()
        assert 0 < item.target.max() <= item.max_value * 1.00001


def read_all(path: Path) -> str | None:
    """None where the file can be read; else what is wrong, in one line that names it and has a remedy."""
    try:
        check(read_info(path))
    except UserError as error:
        message = str(error)
        assert str(path) in message and "\n" not in message and ";" in message, message
        return message
    return None


@pytest.mark.parametrize("layout", WRITERS)
@pytest.mark.parametrize(
    "content", [b"", b"Sorry, you are not logged in.\n", bytes(5000)], ids=["empty", "text", "zeros"]
)
def test_foreign_content(layout: str, content: bytes, tmp_path: Path) -> None:
    path = WRITERS[layout](tmp_path)
    path.write_bytes(content)
    assert "not a readable" in (read_all(path) or "")


@pytest.mark.parametrize("layout", WRITERS)
@pytest.mark.parametrize("share", [0.01, 0.2, 0.5, 0.9, 0.999])
def test_truncated_files(layout: str, share: float, tmp_path: Path) -> None:
    path = WRITERS[layout](tmp_path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    assert read_all(path) is not None


@pytest.mark.parametrize("layout", WRITERS)
def test_damaged_files_are_read_or_refused(layout: str, tmp_path: Path) -> None:
    path, draw = WRITERS[layout](tmp_path), random.Random(layout)
    good, outcomes = path.read_bytes(), []
    for number in range(100):
        content = bytearray(good)
        for _ in range(draw.choice((1, 2, 5, 20))):
            reach = len(content) if draw.random() < 0.4 else min(4096, len(content))
            content[draw.randrange(reach)] = draw.choice((0, 255, draw.randrange(256)))
        damaged = path.with_name(f"{number}-{path.name}")
        damaged.write_bytes(content)
        outcomes.append(read_all(damaged))
    assert any(outcomes) and (None in outcomes or layout == "packed")


@pytest.mark.parametrize("layout", WRITERS)
def test_no_permission(layout: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = WRITERS[layout](tmp_path)
    path.chmod(0)
    if os.geteuid() == 0:  # the superuser may read everything: let the libraries refuse instead

        def refuse(*_: object, **__: object) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr("h5py.File", refuse)
        monkeypatch.setattr("nibabel.load", refuse)
    assert "may not be read; change its permissions" in (read_all(path) or "")


@pytest.mark.parametrize("layout", WRITERS)
def test_a_file_that_is_gone_or_a_folder(layout: str, tmp_path: Path) -> None:
    path = WRITERS[layout](tmp_path)
    info = read_info(path)
    path.unlink()
    with pytest.raises(UserError, match="no such file"):
        read_info(path)
    with pytest.raises(UserError, match="no such file"):
        read_slice(info, 0)
    path.mkdir()
    with pytest.raises(UserError, match="no such file"):
        read_info(path)


def scale_coil(path: Path, coil: int | slice, factor: float) -> None:
    """Multiply one coil, or some, of a stored k-space."""
    with h5py.File(path, "a") as file:
        if "kspace" in file:
            values = file["kspace"][()]
            values[(slice(None), coil) if values.dtype.kind == "c" else (..., coil)] *= factor
            file["kspace"][...] = values
            if "reconstruction_rss" in file:
                del file["reconstruction_rss"], file.attrs["max"]
            return
        table = file["dataset/data"]
        for number in range(1, len(table)):
            row = table[number]
            coils = row["data"].reshape(row["head"]["active_channels"], -1).copy()
            coils[coil] *= factor
            row["data"] = coils.ravel()
            table[number] = row


@pytest.mark.parametrize("layout", ["fastmri", "m4raw", "cc359", "raw", "raw 3-D"])
def test_dead_coils(layout: str, tmp_path: Path) -> None:
    path = WRITERS[layout](tmp_path)
    scale_coil(path, 0, 0.0)
    if layout == "cc359":
        scale_coil(path, 1, 0.0)  # the imaginary part
    info = read_info(path)
    check(info)
    kspace, target = read_slice(info, 1)
    assert not kspace[0].any() and kspace[1].any() and target is not None and target.max() > 0
    scale_coil(path, slice(None), 0.0)
    info = read_info(path)
    check(info)
    assert not read_slice(info, 0)[0].any() and volume_max(info) == 1


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("layout", ["fastmri", "m4raw", "cc359", "raw", "raw 3-D"])
def test_nan_and_infinity(layout: str, value: float, tmp_path: Path) -> None:
    path = WRITERS[layout](tmp_path)
    with np.errstate(invalid="ignore"):
        scale_coil(path, 1, value)
    assert "slice 0 holds NaN or infinite values" in (read_all(path) or "")


@pytest.mark.parametrize("size", [(1, 17, 13), (1, 24, 16), (3, 31, 20)])
def test_one_slice_and_odd_sizes(size: tuple[int, int, int], tmp_path: Path) -> None:
    slices, readout, phase = size
    paths = [
        fixtures.write_cc359_file(tmp_path / "c.h5", depth=slices, readout=readout, phase=phase),
        fixtures.write_nifti(tmp_path / "n.nii.gz", (phase, readout, slices)),
        write_raw_file(tmp_path / "r.h5", noisy_kspace(slices, 3, readout, phase), image=(9, 11)),
        write_raw_file(
            tmp_path / "r3.h5",
            partitions=noisy_kspace(2 * slices + 1, 3, readout, phase),
            image=(9, 11),
        ),
    ]
    for path in paths:
        info = read_info(path)
        assert (info.readout, info.phase) == (readout, phase)
        check(info)
