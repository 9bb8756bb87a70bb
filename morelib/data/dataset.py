"""Undersampled slices for training and evaluation, one HDF5 read at a time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from morelib.data.volume import VolumeInfo, read_mask, read_slice, volume_max
from morelib.errors import UserError
from morelib.physics.masks import Mask, make_mask, seed_of

# The convention of fastMRI's public multi-coil masks.
MASK_KINDS: Mapping[str, str] = {"brain": "equispaced", "knee": "random"}


@dataclass(frozen=True)
class Slice:
    """One undersampled slice. `target` is zeros where the file has none; `max_value`: volume maximum."""

    kspace: Tensor  # (coil, y, x) complex64, zero where not sampled
    mask: Tensor  # (1, 1, x) bool
    n_acs: int
    target: Tensor  # (h, w) float32
    max_value: float
    volume: str  # file name
    index: int
    acquisition: str
    patient: str
    net_acceleration: float


@dataclass(frozen=True)
class Batch:
    """Stacked slices: the fields of `Slice`, tensors with a leading batch axis, the others as tuples."""

    kspace: Tensor  # (batch, coil, y, x) complex64
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


class SliceDataset(Dataset[Slice]):
    """Every slice of some volumes, undersampled.

    `mask_kind` is one kind of `morelib.physics.masks.MASKS` or one per anatomy. At evaluation a volume's mask
    follows from its file name alone, as in fastMRI; in training it is drawn anew from (seed, epoch, slice).
    Files that are already undersampled keep their own mask. `cache` keeps what was read in memory, for small
    data only. Raises UserError for no volumes, masks that cannot be drawn, and training volumes without a target.
    """

    def __init__(
        self,
        volumes: Sequence[VolumeInfo],
        mask_kind: str | Mapping[str, str] = MASK_KINDS,
        acceleration: float = 8,
        center_fraction: float = 0.04,
        train: bool = False,
        seed: int = 0,
        cache: bool = False,
    ) -> None:
        if not volumes:
            raise UserError("data: no volumes to read; make some with `morelib phantom` or check the split")
        self.volumes = tuple(volumes)
        kinds = {"brain": mask_kind, "knee": mask_kind} if isinstance(mask_kind, str) else dict(mask_kind)
        for volume in volumes:
            if volume.anatomy not in kinds:
                raise UserError(
                    f"mask_kind: has no entry for {volume.anatomy} ({volume.name}); it has {sorted(kinds)}"
                )
            if train and not volume.has_target:
                raise UserError(
                    f"{volume.path}: undersampled file without a target; leave it out of training"
                )
        self.mask_kind: Mapping[str, str] = kinds
        self.acceleration, self.center_fraction = acceleration, center_fraction
        self.train, self.seed, self.epoch = train, seed, 0
        self._entries = [(volume, index) for volume in volumes for index in range(volume.n_slices)]
        self._cache: dict[int, tuple[Tensor, Tensor | None]] | None = {} if cache else None
        for number in range(len(self.volumes)):
            self.mask(
                self.items_of(number)[0]
            )  # a mask that cannot be drawn is an error here, not an hour into training

    def __len__(self) -> int:
        return len(self._entries)

    def items_of(self, number: int) -> range:
        """The items that are the slices of `volumes[number]`."""
        start = sum(volume.n_slices for volume in self.volumes[:number])
        return range(start, start + self.volumes[number].n_slices)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose training masks are drawn; call it before iterating a loader."""
        self.epoch = epoch

    def mask(self, item: int) -> Mask:
        """The mask of slice number `item`."""
        volume, _ = self._entries[item]
        if volume.undersampled:
            return read_mask(volume)
        seed = (self.seed, self.epoch, item) if self.train else seed_of(volume.name)
        kind = self.mask_kind[volume.anatomy]
        return make_mask(kind, volume.phase, self.acceleration, self.center_fraction, seed, volume.padding)

    def __getitem__(self, item: int) -> Slice:
        volume, index = self._entries[item]
        kspace, target = self._read(item)
        mask = self.mask(item)
        return Slice(
            kspace=torch.where(mask.mask, kspace, 0),
            mask=mask.mask[None, None],
            n_acs=mask.n_acs,
            target=torch.zeros(volume.recon) if target is None else target,
            max_value=volume_max(volume),
            volume=volume.name,
            index=index,
            acquisition=volume.acquisition,
            patient=volume.patient,
            net_acceleration=mask.acceleration,
        )

    def _read(self, item: int) -> tuple[Tensor, Tensor | None]:
        if self._cache is None:
            return read_slice(*self._entries[item])
        if item not in self._cache:
            self._cache[item] = read_slice(*self._entries[item])
        return self._cache[item]


def collate(slices: Sequence[Slice]) -> Batch:
    """Stack slices. Raises UserError where shapes or ACS widths differ: such slices cannot share a batch."""
    shapes = {(tuple(item.kspace.shape), tuple(item.target.shape), item.n_acs) for item in slices}
    if len(shapes) > 1:
        names = ", ".join(sorted({item.volume for item in slices}))
        raise UserError(f"{names}: slices of different shapes cannot be stacked; use a batch size of 1")

    def all_of(name: str) -> Any:
        return tuple(getattr(item, name) for item in slices)

    return Batch(
        kspace=torch.stack(all_of("kspace")),
        mask=torch.stack(all_of("mask")),
        n_acs=slices[0].n_acs,
        target=torch.stack(all_of("target")),
        max_value=torch.tensor(all_of("max_value"), dtype=torch.float32),
        volume=all_of("volume"),
        index=all_of("index"),
        acquisition=all_of("acquisition"),
        patient=all_of("patient"),
        net_acceleration=all_of("net_acceleration"),
    )


def loader(
    dataset: SliceDataset, shuffle: bool, seed: int = 0, epoch: int = 0, batch_size: int = 1, workers: int = 0
) -> DataLoader[Slice]:
    """One epoch of `Batch`es. Their order follows from (seed, epoch): compared networks see the same."""
    dataset.set_epoch(epoch)
    order = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    return DataLoader(dataset, batch_size, shuffle, generator=order, collate_fn=collate, num_workers=workers)
