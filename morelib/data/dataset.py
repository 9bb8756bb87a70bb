"""Undersampled slices for training and evaluation, read one at a time."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from itertools import accumulate
from typing import Self

import torch
from torch import Tensor
from torch.utils.data import Dataset

from morelib.data.readers import read_mask, read_slice, volume_max
from morelib.data.volume import VolumeInfo
from morelib.errors import UserError
from morelib.physics.masks import Mask, make_mask, seed_of

# The convention of fastMRI's public multi-coil masks; OTHER is any anatomy without an entry.
OTHER = "other"
MASK_KINDS: Mapping[str, str] = {"brain": "equispaced", "knee": "random", OTHER: "equispaced"}


@dataclass(frozen=True)
class Slice:
    """One undersampled slice. `target` is zeros where the file has none; `max_value`: volume maximum."""

    kspace: Tensor  # (coil, y, x) complex64, zero where not sampled; with neighbours (adjacent, coil, y, x)
    mask: Tensor  # (1, 1, x) bool
    n_acs: int
    target: Tensor  # (h, w) float32
    max_value: float
    volume: str  # file name
    index: int
    acquisition: str
    patient: str
    net_acceleration: float


class SliceDataset(Dataset[Slice]):
    """Every slice of some volumes, undersampled.

    `mask_kind` is one kind of `morelib.physics.masks.MASKS` or one per anatomy, `OTHER` for the rest. At evaluation
    a volume's mask follows from its name alone, as in fastMRI; in training it is drawn anew from (seed, epoch,
    slice). Files that are already undersampled keep their own mask.

    With `adjacent` above 1 k-space is that of so many neighbouring slices, the slice itself in the middle, the first
    and last of a volume repeated beyond its ends; all of them under the slice's mask. `cache` keeps what was read in
    memory, for small data only. Raises UserError for no volumes, masks that cannot be drawn, an even `adjacent`, and
    training volumes without a target.
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
        adjacent: int = 1,
    ) -> None:
        if not volumes:
            raise UserError("data: no volumes to read; make some with `morelib phantom` or check the split")
        self.volumes = tuple(volumes)
        kinds = {OTHER: mask_kind} if isinstance(mask_kind, str) else dict(mask_kind)
        for volume in volumes:
            if volume.anatomy not in kinds and OTHER not in kinds:
                raise UserError(
                    f"mask_kind: has no entry for {volume.anatomy} ({volume.name}); it has {sorted(kinds)}"
                )
            if train and not volume.has_target:
                raise UserError(
                    f"{volume.path}: undersampled file without a target; leave it out of training"
                )
        self.mask_kind: Mapping[str, str] = kinds
        self.acceleration, self.center_fraction = acceleration, center_fraction
        self.train, self.seed, self.epoch, self.adjacent = train, seed, 0, _odd(adjacent)
        self._starts = [0, *accumulate(volume.n_slices for volume in volumes)]
        self._cache: dict[int, tuple[Tensor, Tensor | None]] | None = {} if cache else None
        self._last_mask: tuple[int, Mask] | None = None  # slices of a volume are mostly read together
        drawn = {(v.anatomy, v.phase, v.padding): i for i, v in enumerate(volumes) if not v.undersampled}
        for number in drawn.values():
            self._draw(number, 0)  # a mask that cannot be drawn is an error here, not an hour into training

    def __len__(self) -> int:
        return self._starts[-1]

    def seen_by(self, model: object) -> Self:
        """The same slices, read with as many neighbours as `model.adjacent` says, alone where it says nothing."""
        adjacent = getattr(model, "adjacent", 1)
        if adjacent == self.adjacent:
            return self
        other = copy(self)
        other.adjacent = _odd(adjacent)
        return other

    def items_of(self, number: int) -> range:
        """The items that are the slices of `volumes[number]`."""
        return range(self._starts[number], self._starts[number + 1])

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose training masks are drawn; a `Loader` does it by itself."""
        self.epoch = epoch

    def mask(self, item: int) -> Mask:
        """The mask of slice number `item`."""
        number, _ = self._find(item)
        volume = self.volumes[number]
        if self.train and not volume.undersampled:
            return self._draw(number, (self.seed, self.epoch, item))
        last = self._last_mask
        if last is None or last[0] != number:
            mask = read_mask(volume) if volume.undersampled else self._draw(number, seed_of(volume.name))
            self._last_mask = last = (number, mask)
        return last[1]

    def __getitem__(self, item: int) -> Slice:
        item = range(len(self))[item]  # IndexError past the end
        number, index = self._find(item)
        volume = self.volumes[number]
        kspace, target = self._read(item)
        mask = self.mask(item)
        if self.adjacent > 1:
            half, last = self.adjacent // 2, volume.n_slices - 1
            near = [min(max(index + step, 0), last) for step in range(-half, half + 1)]
            read = {index: kspace} | {i: self._read(item - index + i)[0] for i in {*near} - {index}}
            kspace = torch.stack([read[i] for i in near])
        return Slice(
            kspace=_keep(kspace, mask.mask),
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

    def _find(self, item: int) -> tuple[int, int]:
        """The number of the volume that a slice belongs to, and its place in it."""
        number = bisect_right(self._starts, item) - 1
        return number, item - self._starts[number]

    def _draw(self, number: int, seed: int | tuple[int, ...]) -> Mask:
        volume = self.volumes[number]
        kind = self.mask_kind.get(volume.anatomy) or self.mask_kind[OTHER]
        return make_mask(kind, volume.phase, self.acceleration, self.center_fraction, seed, volume.padding)

    def _read(self, item: int) -> tuple[Tensor, Tensor | None]:
        """K-space, which the caller may change, and target."""
        number, index = self._find(item)
        if self._cache is None:
            return read_slice(self.volumes[number], index)
        if item not in self._cache:
            self._cache[item] = read_slice(self.volumes[number], index)
        kspace, target = self._cache[item]
        return kspace.clone(), target


def _odd(adjacent: int) -> int:
    if adjacent < 1 or adjacent % 2 == 0:
        raise UserError(f"adjacent is {adjacent}; it must be odd, with the slice itself in the middle")
    return adjacent


def _keep(kspace: Tensor, sampled: Tensor) -> Tensor:
    """`kspace` (..., x) with zeros where not `sampled` (x,), in place.

    As whole numbers, and with all ones or zeros: exact, and a third of the time of `torch.where` into new memory.
    """
    kspace.view(torch.int64).bitwise_and_(torch.where(sampled, -1, 0))
    return kspace
