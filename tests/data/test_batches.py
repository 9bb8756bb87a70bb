"""Every slice once an epoch, in an order and under masks that neither workers nor batch size nor restarts change."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise, zip_longest
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from morelib.data.batches import AHEAD, Batch, Loader, collate
from morelib.data.dataset import Slice, SliceDataset
from morelib.data.index import find_volumes
from morelib.data.readers import read_info
from morelib.data.volume import VolumeInfo
from morelib.errors import UserError


@pytest.fixture(scope="module")
def volumes(fastmri_files: Path) -> list[VolumeInfo]:
    return find_volumes(fastmri_files)


@pytest.fixture
def uneven(tmp_path: Path, write_file: Callable[..., Path]) -> list[VolumeInfo]:
    """Brains and knees of 1 to 5 slices."""
    kinds = (("AXT2", {}), ("CORPD_FBK", {"coils": 3, "phase": 33, "size": 25}), ("AXFLAIR", {}))
    return [
        read_info(write_file(tmp_path / f"{number}.h5", kind, f"{number}", slices=number, **sizes))
        for number, (kind, sizes) in enumerate((*kinds, *kinds[:2]), start=1)
    ]


def make(volumes: list[VolumeInfo], **options: object) -> SliceDataset:
    return SliceDataset(volumes, **{"acceleration": 4, "center_fraction": 0.08} | options)  # type: ignore[arg-type]


def names(batches: Iterator[Batch]) -> list[list[tuple[str, int]]]:
    return [list(zip(batch.volume, batch.index, strict=True)) for batch in batches]


def test_a_batch_stacks_its_slices(volumes: list[VolumeInfo]) -> None:
    dataset = make(volumes)
    brain, other, knee = dataset[8], dataset[10], next(i for i in dataset if i.acquisition == "CORPD_FBK")
    batch = collate([brain, other])
    assert batch.kspace.shape == (2, 2, 48, 32)
    assert batch.volume == (brain.volume, other.volume)
    assert torch.equal(batch.target[1], other.target) and torch.equal(batch.mask[1], other.mask)
    one = collate([knee])
    assert (one.kspace.shape, one.mask.shape, one.target.shape) == (
        (1, 3, 50, 33),
        (1, 1, 1, 33),
        (1, 25, 25),
    )
    assert (one.volume, one.index, one.max_value.shape) == ((knee.volume,), (knee.index,), (1,))
    assert one.to("meta").kspace.device.type == "meta"
    with pytest.raises(UserError, match=r"different shapes.*batch size of 1"):
        collate([brain, knee])
    assert collate([make(volumes, adjacent=5)[8]] * 2).kspace.shape == (2, 5, 2, 48, 32)


def test_order_follows_from_seed_and_epoch(volumes: list[VolumeInfo]) -> None:
    def order(seed: int, epoch: int, shuffle: bool = True) -> list[list[tuple[str, int]]]:
        return names(Loader(make(volumes, train=True), shuffle, seed).epoch(epoch))

    plain = order(0, 0, shuffle=False)
    assert plain == [[(volume.name, index)] for volume in volumes for index in range(volume.n_slices)]
    assert order(0, 1) == order(0, 1)
    assert len({str(order(*key)) for key in ((0, 0), (0, 1), (1, 0))}) == 3
    assert sorted(order(0, 0)) == sorted(plain)


def test_single_slices_come_in_the_order_of_a_shuffling_dataloader(volumes: list[VolumeInfo]) -> None:
    """Recorded results were trained in this order."""
    dataset = make(volumes, train=True)
    for seed, epoch in ((0, 0), (3, 7)):
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        plain = DataLoader(range(len(dataset)), shuffle=True, generator=generator)  # type: ignore[arg-type]
        expected = [[(dataset[int(item)].volume, dataset[int(item)].index)] for item in plain]
        assert names(Loader(dataset, True, seed).epoch(epoch)) == expected


def test_reading_leaves_the_global_random_numbers_alone(volumes: list[VolumeInfo]) -> None:
    before = torch.get_rng_state()
    for workers in (0, 1):
        list(Loader(make(volumes[:2], train=True), True, workers=workers).epoch())
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("batch_size", [1, 2, 4, 100])
def test_every_slice_comes_once_in_batches_of_equal_shapes(
    uneven: list[VolumeInfo], batch_size: int, shuffle: bool
) -> None:
    loader = Loader(make(uneven, train=True), shuffle, batch_size=batch_size)
    batches = list(loader.epoch(2))
    assert len(batches) == len(loader)
    seen = Counter(name for batch in names(iter(batches)) for name in batch)
    assert seen == {(volume.name, index): 1 for volume in uneven for index in range(volume.n_slices)}
    sizes: dict[int, list[int]] = {}
    for batch in batches:
        sizes.setdefault(batch.kspace.shape[-1], []).append(len(batch.volume))
    # 1 + 3 + 4 brain slices, 2 + 5 of knees: full batches and one rest of each shape.
    for width, total in ((32, 8), (33, 7)):
        full, rest = divmod(total, batch_size)
        assert sorted(sizes[width], reverse=True) == [batch_size] * full + [rest] * (rest > 0)


def test_files_with_masks_of_their_own_share_a_batch_where_their_centres_are_equal(
    tmp_path: Path, write_file: Callable[..., Path]
) -> None:
    paths = [write_file(tmp_path / f"{number}.h5", "AXT2", "anna") for number in range(3)]
    kept = ([4, 15, 16, 17, 25], [9, 15, 16, 17], [4, 14, 15, 16, 17, 18])
    for path, columns in zip(paths, kept, strict=True):
        with h5py.File(path, "a") as file:
            del file["reconstruction_rss"]
            file["mask"] = np.isin(np.arange(32), columns)
    loader = Loader(make([read_info(path) for path in paths]), shuffle=False, batch_size=4)
    assert [(set(batch.volume), batch.n_acs) for batch in loader.epoch()] == [
        ({"0.h5", "1.h5"}, 3),
        ({"2.h5"}, 5),
    ]


def test_masks_depend_on_slice_and_epoch_alone(uneven: list[VolumeInfo]) -> None:
    def masks(batch_size: int, workers: int, epoch: int) -> dict[tuple[str, int], str]:
        batches = Loader(make(uneven, train=True), True, batch_size=batch_size, workers=workers).epoch(epoch)
        return {
            key: str(batch.mask[number].flatten().tolist())
            for batch in batches
            for number, key in enumerate(zip(batch.volume, batch.index, strict=True))
        }

    first = masks(1, 0, 1)
    assert masks(3, 0, 1) == first == masks(2, 2, 1)
    assert masks(1, 0, 2) != first


@pytest.mark.parametrize("batch_size", [1, 3])
def test_reading_ahead_changes_nothing(uneven: list[VolumeInfo], batch_size: int) -> None:
    here = Loader(make(uneven, train=True), True, 5, batch_size)
    there = Loader(make(uneven, train=True), True, 5, batch_size, workers=2)
    for epoch in (0, 1, 4):
        for a, b in zip(here.epoch(epoch), there.epoch(epoch), strict=True):
            assert (a.volume, a.index) == (b.volume, b.index)
            assert torch.equal(a.kspace, b.kspace) and torch.equal(a.mask, b.mask)


def test_only_a_few_batches_are_read_ahead_and_an_error_comes_in_its_turn(volumes: list[VolumeInfo]) -> None:
    class Counted(SliceDataset):
        read = 0

        def __getitem__(self, item: int) -> Slice:
            if item == 9:
                raise UserError("slice 9")
            self.read += 1
            return super().__getitem__(item)

    dataset = Counted(volumes, acceleration=4, center_fraction=0.08)
    batches = Loader(dataset, shuffle=False, workers=1).epoch()
    assert next(batches).index == (0,)
    assert dataset.read <= 1 + AHEAD
    assert len([next(batches) for _ in range(8)]) == 8
    with pytest.raises(UserError, match="slice 9"):
        next(batches)
    _ended("read-ahead")


def test_an_epoch_left_early_leaves_no_thread(volumes: list[VolumeInfo]) -> None:
    batches = Loader(make(volumes), shuffle=False, workers=2).epoch()
    next(batches)
    batches.close()
    _ended("read-ahead")


def _ended(name: str) -> None:
    for thread in threading.enumerate():
        if thread.name.startswith(name):
            thread.join(30)
            assert not thread.is_alive()


@pytest.mark.parametrize("workers", [0, 1])
def test_skipped_batches_are_not_read(uneven: list[VolumeInfo], workers: int) -> None:
    class Unreadable(SliceDataset):
        forbidden: frozenset[int] = frozenset()

        def __getitem__(self, item: int) -> Slice:
            assert item not in self.forbidden
            return super().__getitem__(item)

    dataset = Unreadable(uneven, train=True, acceleration=4, center_fraction=0.08)
    loader = Loader(dataset, True, 1, batch_size=2, workers=workers)
    whole = names(Loader(make(uneven, train=True), True, 1, batch_size=2).epoch(3))
    starts = {volume.name: dataset.items_of(number)[0] for number, volume in enumerate(uneven)}
    dataset.forbidden = frozenset(starts[name] + index for batch in whole[:3] for name, index in batch)
    assert names(loader.epoch(3, skip=3)) == whole[3:]
    assert names(loader.epoch(3, skip=len(loader))) == []


@pytest.mark.parametrize("shuffle", [False, True])
def test_processes_share_out_the_batches_of_one(uneven: list[VolumeInfo], shuffle: bool) -> None:
    dataset = make(uneven, train=True)
    together = Loader(dataset, shuffle, 3, batch_size=4)
    ranks = [Loader(dataset, shuffle, 3, batch_size=2, rank=rank, world_size=2) for rank in (0, 1)]
    assert len(ranks[0]) == len(ranks[1]) == len(together)
    for whole, *shares in zip_longest(
        *(names(loader.epoch(1)) for loader in (together, *ranks)), fillvalue=[]
    ):
        assert set(shares[0]) | set(shares[1]) == set(whole)
        if shuffle:  # training: one process must not wait for another
            assert len(shares[0]) == len(shares[1]) <= 2
        else:  # evaluation: nothing may count twice
            assert len(shares[0]) + len(shares[1]) == len(whole)


def test_more_processes_than_slices(volumes: list[VolumeInfo]) -> None:
    dataset = make(volumes[:1], train=True)
    for shuffle, expected in ((True, [1] * 5), (False, [1, 1, 0, 0, 0])):
        ranks = [Loader(dataset, shuffle, rank=rank, world_size=5) for rank in range(5)]
        assert [len(list(loader.epoch())) for loader in ranks] == expected


def test_epochs_differ_where_they_should(volumes: list[VolumeInfo]) -> None:
    loader = Loader(make(volumes), shuffle=False)
    first, second = list(loader.epoch(0)), list(loader.epoch(1))
    assert all(torch.equal(a.mask, b.mask) for a, b in zip(first, second, strict=True))
    of_one = [batch.mask for batch in first if batch.volume[0] == volumes[0].name]
    assert all(torch.equal(a, b) for a, b in pairwise(of_one))
