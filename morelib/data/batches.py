"""Slices in batches: which belong together, in which order, and read ahead by worker processes."""

from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from morelib.data.dataset import Slice, SliceDataset
from morelib.errors import UserError


@dataclass(frozen=True)
class Batch:
    """Stacked slices: the fields of `Slice`, tensors with a leading batch axis, the others as tuples."""

    kspace: Tensor  # (batch, coil, y, x) complex64; with neighbours (batch, adjacent, coil, y, x)
    mask: Tensor  # (batch, 1, 1, x) bool
    n_acs: int
    target: Tensor  # (batch, h, w) float32
    max_value: Tensor  # (batch,) float32
    volume: tuple[str, ...]
    index: tuple[int, ...]
    acquisition: tuple[str, ...]
    patient: tuple[str, ...]
    net_acceleration: tuple[float, ...]

    def to(self, device: torch.device | str) -> Self:
        """The same batch with its tensors on `device`."""
        moved = {name: getattr(self, name).to(device) for name in ("kspace", "mask", "target", "max_value")}
        return replace(self, **moved)


def collate(slices: Sequence[Slice]) -> Batch:
    """Stack slices. Raises UserError where shapes or ACS widths differ: such slices cannot share a batch."""
    shapes = {(tuple(item.kspace.shape), tuple(item.target.shape), item.n_acs) for item in slices}
    if len(shapes) > 1:
        names = ", ".join(sorted({item.volume for item in slices}))
        raise UserError(f"{names}: slices of different shapes cannot be stacked; use a batch size of 1")

    def all_of(name: str) -> Any:
        return tuple(getattr(item, name) for item in slices)

    # PyTorch's own collation stacks straight into shared memory where it runs in a worker process.
    kspaces = all_of("kspace")
    return Batch(
        kspace=default_collate(kspaces) if len(kspaces) > 1 else kspaces[0][None],  # one needs no copy
        mask=default_collate(all_of("mask")),
        n_acs=slices[0].n_acs,
        target=default_collate(all_of("target")),
        max_value=torch.tensor(all_of("max_value"), dtype=torch.float32),
        volume=all_of("volume"),
        index=all_of("index"),
        acquisition=all_of("acquisition"),
        patient=all_of("patient"),
        net_acceleration=all_of("net_acceleration"),
    )


class Loader:
    """The batches of a data set, epoch by epoch.

    Slices of one batch have equal shapes and ACS widths; where those run out, a batch is smaller. Every slice comes
    once an epoch. Order and masks follow from the seeds and the epoch alone, whatever the number of `workers`:
    compared networks see the same. Worker processes read ahead and live as long as the loader; keep one loader for
    all epochs. Of `world_size` processes each gets its share of the same batches, `batch_size` slices at most; some
    slices come twice where a batch does not divide.
    """

    def __init__(
        self,
        dataset: SliceDataset,
        shuffle: bool,
        seed: int = 0,
        batch_size: int = 1,
        workers: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self._plan = _Plan(dataset, shuffle, seed, batch_size, rank, world_size)
        self._loader = DataLoader(
            _AtEpoch(dataset),
            batch_sampler=self._plan,
            collate_fn=collate,
            num_workers=workers,
            persistent_workers=workers > 0,
            generator=torch.Generator(),  # else each epoch would take a number from the global one
        )

    def __len__(self) -> int:
        """The number of batches in an epoch."""
        return len(self._plan)

    def epoch(self, number: int = 0, skip: int = 0) -> Iterator[Batch]:
        """The batches of epoch `number`, without reading the first `skip`. Finish one epoch before the next."""
        self._plan.epoch, self._plan.skip = number, skip
        return iter(self._loader)


class _AtEpoch(Dataset[Slice]):
    """Items are (epoch, item), so that worker processes need not be told of a new epoch."""

    def __init__(self, dataset: SliceDataset) -> None:
        self.dataset = dataset

    def __getitem__(self, key: tuple[int, int]) -> Slice:
        epoch, item = key
        self.dataset.set_epoch(epoch)
        return self.dataset[item]


class _Plan:
    """Which slices form which batch; iterating gives the batches of `epoch` from number `skip` on."""

    def __init__(
        self, dataset: SliceDataset, shuffle: bool, seed: int, batch_size: int, rank: int, world_size: int
    ) -> None:
        self.shuffle, self.seed, self.rank, self.world_size = shuffle, seed, rank, world_size
        self.together = batch_size * world_size
        self.buckets = _buckets(dataset) if self.together > 1 else [None] * len(dataset)
        self.epoch = self.skip = 0

    def __len__(self) -> int:
        return sum(-(-count // self.together) for count in Counter(self.buckets).values())

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for batch in self._batches()[self.skip :]:
            even = -(-len(batch) // self.world_size) * self.world_size
            share = (batch * self.world_size)[self.rank : even : self.world_size]
            yield [(self.epoch, item) for item in share]

    def _batches(self) -> list[list[int]]:
        """A batch stands where its first slice stands in the order."""
        batches: list[list[int]] = []
        unfinished: dict[Hashable, list[int]] = {}
        for item in self._order():
            batch = unfinished.get(self.buckets[item], [])
            if not batch:
                batches.append(batch)
            batch.append(item)
            unfinished[self.buckets[item]] = batch if len(batch) < self.together else []
        return batches

    def _order(self) -> list[int]:
        if not self.shuffle:
            return list(range(len(self.buckets)))
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        # PyTorch's own shuffling loader takes one number first; with it recorded runs keep their order.
        torch.empty((), dtype=torch.int64).random_(generator=generator)
        return torch.randperm(len(self.buckets), generator=generator).tolist()


def _buckets(dataset: SliceDataset) -> list[Hashable]:
    """For every slice what those of one batch have in common: shapes, and so the target's kind, and ACS width."""
    acs: dict[Hashable, int] = {}
    buckets: list[Hashable] = []
    for number, volume in enumerate(dataset.volumes):
        # Of drawn masks the ACS width follows from the width; a file's own mask is looked at.
        kind = (volume.anatomy, volume.phase, volume.undersampled and volume.path)
        if kind not in acs:
            acs[kind] = dataset.mask(dataset.items_of(number)[0]).n_acs
        kspace = (volume.n_coils, volume.readout, volume.phase)
        bucket = (kspace, volume.recon, volume.stored_target, volume.has_target, acs[kind])
        buckets += [bucket] * volume.n_slices
    return buckets
