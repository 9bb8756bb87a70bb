"""Slices in batches: which belong together, in which order, and read ahead by threads."""

from collections import Counter, deque
from collections.abc import Hashable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from itertools import islice
from typing import Any, Self

import torch
from torch import Tensor

from morelib.data.dataset import Slice, SliceDataset
from morelib.errors import UserError

AHEAD = 2  # batches that each worker reads ahead


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

    together: dict[str, Any] = {
        field.name: tuple(getattr(item, field.name) for item in slices) for field in fields(Slice)
    }
    kspaces = together["kspace"]
    return Batch(
        **{
            **together,
            "kspace": torch.stack(kspaces) if len(kspaces) > 1 else kspaces[0][None],  # one needs no copy
            "mask": torch.stack(together["mask"]),
            "target": torch.stack(together["target"]),
            "max_value": torch.tensor(together["max_value"], dtype=torch.float32),
            "n_acs": slices[0].n_acs,
        }
    )


class Loader:
    """The batches of a data set, epoch by epoch.

    Slices of one batch have equal shapes and ACS widths; where those run out, a batch is smaller. Order and masks
    follow from the seeds and the epoch alone, whatever the number of `workers`: compared networks see the same.
    Workers are threads that read ahead, a few batches; 0 reads each batch when it is asked for. Threads, not
    processes: reading is system calls and array operations, which run side by side, and nothing is copied between.

    Of `world_size` processes each gets its share of the same batches, `batch_size` slices at most. Shuffled, for
    training, all get equally many, and some slices come twice where a batch does not divide: no process may take a
    step alone. In order, for evaluation, every slice comes once, and a process may get fewer batches than another.
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
        self._dataset, self._workers = dataset, workers
        self._plan = _Plan(dataset, shuffle, seed, batch_size, rank, world_size)

    def __len__(self) -> int:
        """The number of batches in an epoch, of all processes together."""
        return len(self._plan)

    def epoch(self, number: int = 0, skip: int = 0) -> Iterator[Batch]:
        """The batches of epoch `number`, without reading the first `skip`. Finish one epoch before the next."""
        self._dataset.set_epoch(number)
        shares = iter(self._plan.shares(number, skip))
        if not self._workers:
            yield from map(self._read, shares)
            return
        pool = ThreadPoolExecutor(self._workers, thread_name_prefix="read-ahead")
        try:
            ahead = deque(pool.submit(self._read, share) for share in islice(shares, AHEAD * self._workers))
            while ahead:
                batch = ahead.popleft().result()
                ahead.extend(pool.submit(self._read, share) for share in islice(shares, 1))
                yield batch
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _read(self, share: Sequence[int]) -> Batch:
        return collate([self._dataset[item] for item in share])


class _Plan:
    """Which slices form which batch, and which of them this process gets."""

    def __init__(
        self, dataset: SliceDataset, shuffle: bool, seed: int, batch_size: int, rank: int, world_size: int
    ) -> None:
        self.shuffle, self.seed, self.rank, self.world_size = shuffle, seed, rank, world_size
        self.together = batch_size * world_size
        self.buckets = _buckets(dataset) if self.together > 1 else [None] * len(dataset)

    def __len__(self) -> int:
        return sum(-(-count // self.together) for count in Counter(self.buckets).values())

    def shares(self, epoch: int, skip: int) -> Iterator[list[int]]:
        """The items of this process in each batch of `epoch` from number `skip` on."""
        for batch in self._batches(epoch)[skip:]:
            even = -(-len(batch) // self.world_size) * self.world_size if self.shuffle else len(batch)
            if share := (batch * self.world_size)[self.rank : even : self.world_size]:
                yield share

    def _batches(self, epoch: int) -> list[list[int]]:
        """A batch stands where its first slice stands in the order."""
        batches: list[list[int]] = []
        unfinished: dict[Hashable, list[int]] = {}
        for item in self._order(epoch):
            batch = unfinished.get(self.buckets[item], [])
            if not batch:
                batches.append(batch)
            batch.append(item)
            unfinished[self.buckets[item]] = batch if len(batch) < self.together else []
        return batches

    def _order(self, epoch: int) -> list[int]:
        if not self.shuffle:
            return list(range(len(self.buckets)))
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
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
