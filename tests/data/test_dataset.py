"""Slices for training and evaluation: the masks fastMRI draws, and no surprises."""

import gc
import os
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from fastmri.data.subsample import EquispacedMaskFractionFunc, RandomMaskFunc
from fastmri.data.transforms import apply_mask, to_tensor

from morelib.data.dataset import SliceDataset, collate, loader
from morelib.data.volume import VolumeInfo, find_volumes, read_info, read_slice
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
    batch = collate([knee])
    assert batch.kspace.shape == (1, 3, 50, 33)
    assert batch.mask.shape == (1, 1, 1, 33)
    assert batch.target.shape == (1, 25, 25)
    assert (batch.volume, batch.index, batch.max_value.shape) == ((knee.volume,), (knee.index,), (1,))
    assert batch.to("meta").kspace.device.type == "meta"


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


def test_order_follows_from_seed_and_epoch(volumes: list[VolumeInfo]) -> None:
    def order(seed: int, epoch: int, shuffle: bool = True) -> list[tuple[str, int]]:
        batches = loader(make(volumes, train=True), shuffle, seed, epoch)
        return [(batch.volume[0], batch.index[0]) for batch in batches]

    plain = order(0, 0, shuffle=False)
    assert plain == [(volume.name, index) for volume in volumes for index in range(volume.n_slices)]
    assert order(0, 1) == order(0, 1)
    assert len({tuple(order(*key)) for key in ((0, 0), (0, 1), (1, 0))}) == 3
    assert sorted(order(0, 0)) == sorted(plain)


def test_worker_processes_change_nothing(volumes: list[VolumeInfo]) -> None:
    dataset = make(volumes[:2], train=True)
    here = list(loader(dataset, True, 0, 2))
    there = list(loader(dataset, True, 0, 2, workers=1))
    assert [batch.volume for batch in here] == [batch.volume for batch in there]
    assert all(torch.equal(a.kspace, b.kspace) for a, b in zip(here, there, strict=True))


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


def test_batches_need_equal_shapes(volumes: list[VolumeInfo]) -> None:
    dataset = make(volumes)
    brain, other, knee = dataset[8], dataset[10], next(i for i in dataset if i.acquisition == "CORPD_FBK")
    batch = collate([brain, other])
    assert batch.kspace.shape == (2, 2, 48, 32)
    assert batch.volume == (brain.volume, other.volume)
    with pytest.raises(UserError, match=r"different shapes.*batch size of 1"):
        collate([brain, knee])


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
