"""Slices for training and evaluation: the masks fastMRI draws, and no surprises."""

import gc
import os
from collections.abc import Callable
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from fastmri.data.subsample import EquispacedMaskFractionFunc, RandomMaskFunc
from fastmri.data.transforms import apply_mask, to_tensor

from morelib.data.dataset import SliceDataset
from morelib.data.index import find_volumes
from morelib.data.readers import read_info, read_slice
from morelib.data.volume import VolumeInfo
from morelib.errors import UserError


@pytest.fixture(scope="module")
def volumes(fastmri_files: Path) -> list[VolumeInfo]:
    return find_volumes(fastmri_files)


def make(volumes: list[VolumeInfo], **options: object) -> SliceDataset:
    return SliceDataset(volumes, **{"acceleration": 4, "center_fraction": 0.08} | options)  # type: ignore[arg-type]


def test_evaluation_slice_is_what_fastmri_makes(volumes: list[VolumeInfo]) -> None:
    by_name = {volume.name: volume for volume in volumes}
    for item in make(volumes):
        info = by_name[item.volume]
        kspace, target = read_slice(info, item.index)
        mask_func = RandomMaskFunc if info.anatomy == "knee" else EquispacedMaskFractionFunc
        seed = tuple(map(ord, item.volume))
        masked, mask, n_acs = apply_mask(
            to_tensor(kspace.numpy()), mask_func([0.08], [4]), seed=seed, padding=info.padding
        )
        torch.testing.assert_close(item.kspace, torch.view_as_complex(masked), rtol=0, atol=0)
        assert torch.equal(item.mask.flatten(), mask.flatten() > 0)
        assert item.n_acs == n_acs
        assert target is not None
        assert torch.equal(item.target, target)


def test_shapes_and_types(volumes: list[VolumeInfo]) -> None:
    knee = next(item for item in make(volumes) if item.acquisition == "CORPD_FBK")
    assert (knee.kspace.shape, knee.kspace.dtype) == ((3, 50, 33), torch.complex64)
    assert (knee.mask.shape, knee.mask.dtype) == ((1, 1, 33), torch.bool)
    assert (knee.target.shape, knee.target.dtype) == ((25, 25), torch.float32)


def test_a_volume_keeps_its_mask_at_evaluation_only(volumes: list[VolumeInfo]) -> None:
    evaluation, training = make(volumes[:4]), make(volumes[:4], train=True, mask_kind="random")
    assert all(torch.equal(evaluation[i].mask, evaluation[i + 1].mask) for i in range(0, 8, 2))
    evaluation.set_epoch(3)
    assert torch.equal(evaluation[0].mask, make(volumes[:4], seed=5)[0].mask)
    masks = []
    for epoch in (0, 1):
        training.set_epoch(epoch)
        masks.append(torch.stack([training[item].mask for item in range(8)]))
    assert not torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0][0], masks[0][1])
    training.set_epoch(0)
    assert torch.equal(torch.stack([training[item].mask for item in range(8)]), masks[0])


def test_masking_leaves_exact_zeros_and_exact_samples(volumes: list[VolumeInfo]) -> None:
    dataset = make(volumes, train=True, mask_kind="random")
    for item in range(0, len(dataset), 5):
        made = dataset[item]
        info = next(volume for volume in volumes if volume.name == made.volume)
        expected = torch.where(made.mask[0, 0], read_slice(info, made.index)[0], 0)
        assert torch.equal(torch.view_as_real(made.kspace), torch.view_as_real(expected))
        assert not torch.signbit(torch.view_as_real(made.kspace)[:, :, ~made.mask[0, 0]]).any()  # no -0


@pytest.mark.parametrize("cache", [False, True])
def test_reading_again_under_another_mask_finds_the_file_unchanged(
    volumes: list[VolumeInfo], cache: bool
) -> None:
    dataset = make(volumes[:2], train=True, mask_kind="random", cache=cache)
    before = dataset[1]
    dataset.set_epoch(1)
    assert not torch.equal(dataset[1].mask, before.mask)
    dataset.set_epoch(0)
    assert torch.equal(dataset[1].kspace, before.kspace)


@pytest.mark.parametrize("cache", [False, True])
def test_neighbours_stand_around_the_slice_and_the_ends_are_repeated(
    tmp_path: Path, write_file: Callable[..., Path], cache: bool
) -> None:
    info = read_info(write_file(tmp_path / "a.h5", "AXT2", "anna", slices=4))
    for train in (False, True):
        alone, with_neighbours = make([info], train=train), make([info], train=train, cache=cache, adjacent=5)
        whole = [read_slice(info, index)[0] for index in range(4)]
        for item, near in enumerate(([0, 0, 0, 1, 2], [0, 0, 1, 2, 3], [0, 1, 2, 3, 3], [1, 2, 3, 3, 3])):
            made = with_neighbours[item]
            assert made.kspace.shape == (5, 2, 48, 32)
            assert torch.equal(made.mask, alone[item].mask) and made.mask.shape == (1, 1, 32)
            assert torch.equal(made.kspace, torch.stack([whole[i] * made.mask[0] for i in near]))
            assert torch.equal(made.kspace[2], alone[item].kspace)
            assert torch.equal(made.target, alone[item].target)


def test_a_single_slice_is_its_own_neighbour(tmp_path: Path, write_file: Callable[..., Path]) -> None:
    made = make([read_info(write_file(tmp_path / "a.h5", "AXT2", "anna", slices=1))], adjacent=3)[0]
    assert torch.equal(made.kspace, made.kspace[:1].expand_as(made.kspace))


def test_items_run_through_the_volumes(tmp_path: Path, write_file: Callable[..., Path]) -> None:
    paths = [write_file(tmp_path / f"{n}.h5", "AXT2", "anna", slices=n) for n in (3, 1, 2)]
    dataset = make([read_info(path) for path in paths])
    assert [(s.volume, s.index) for s in dataset] == [
        ("3.h5", 0), ("3.h5", 1), ("3.h5", 2), ("1.h5", 0), ("2.h5", 0), ("2.h5", 1)
    ]  # fmt: skip
    assert [list(dataset.items_of(number)) for number in range(3)] == [[0, 1, 2], [3], [4, 5]]
    assert dataset[-1].index == 1
    with pytest.raises(IndexError):
        dataset[6]


def test_a_dataset_travels_to_another_process(volumes: list[VolumeInfo]) -> None:
    dataset = make(volumes[:3], train=True)
    dataset[0]
    copy = ForkingPickler.loads(ForkingPickler.dumps(dataset))  # as a spawned worker gets it
    assert all(torch.equal(copy[item].kspace, dataset[item].kspace) for item in range(len(dataset)))


def test_cache_returns_the_same_and_reads_once(tmp_path: Path, write_file: Callable[..., Path]) -> None:
    info = read_info(write_file(tmp_path / "a.h5", "AXT2", "anna"))
    plain, cached = make([info]), make([info], cache=True)
    torch.testing.assert_close(cached[1].kspace, plain[1].kspace, rtol=0, atol=0)
    info.path.unlink()
    torch.testing.assert_close(cached[1].target, cached[1].target)
    with pytest.raises(UserError, match="no such file"):
        plain[1]


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts open files through /proc")
def test_no_file_handle_stays_open(volumes: list[VolumeInfo]) -> None:
    dataset = make(volumes)
    dataset[0]
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    for item in range(len(dataset)):
        dataset[item]
    assert len(os.listdir("/proc/self/fd")) == before


def test_an_empty_volume_divides_by_nothing(tmp_path: Path, write_file: Callable[..., Path]) -> None:
    path = write_file(tmp_path / "zero.h5", "AXT2", "anna")
    with h5py.File(path, "a") as file:
        file["kspace"][...] = 0
        file["reconstruction_rss"][...] = 0
        file.attrs["max"] = 0.0
    item = make([read_info(path)])[0]
    assert item.max_value == 1.0
    assert bool(torch.isfinite(item.kspace).all())


def test_undersampled_file_keeps_its_mask(tmp_path: Path, write_file: Callable[..., Path]) -> None:
    path = write_file(tmp_path / "test.h5", "AXT2", "anna")
    columns = np.zeros(32, bool)
    columns[[4, 10, 15, 16, 17, 25]] = True
    with h5py.File(path, "a") as file:
        del file["reconstruction_rss"]
        file["mask"] = columns
    info = read_info(path)
    item = make([info])[0]
    np.testing.assert_array_equal(item.mask.flatten().numpy(), columns)
    assert item.n_acs == 3
    assert not item.target.any()
    with pytest.raises(UserError, match="leave it out of training"):
        make([info], train=True)


def test_bad_arguments(volumes: list[VolumeInfo]) -> None:
    with pytest.raises(UserError, match="no volumes"):
        SliceDataset([])
    with pytest.raises(UserError, match="no entry for knee"):
        SliceDataset(volumes, mask_kind={"brain": "random"})
    with pytest.raises(UserError, match="unknown"):
        make(volumes, mask_kind="spiral")
    for adjacent in (0, 2, -3):
        with pytest.raises(UserError, match=f"adjacent is {adjacent}; it must be odd"):
            make(volumes, adjacent=adjacent)
