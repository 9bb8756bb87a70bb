"""Which phase-encode columns are sampled: fastMRI's masks under names that say what they do.

fastMRI's `equispaced` at a nominal 8x is really 6.2x at 368 columns, because its centre comes on top. Here
every mask carries its net acceleration, and the kinds that overshoot say so in their name.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from fastmri.data import subsample
from torch import Tensor

from morelib.errors import UserError

# our name: (fastMRI's name, fastMRI's class)
MASKS: Final = {
    "random": ("random", subsample.RandomMaskFunc),
    "equispaced": ("equispaced_fraction", subsample.EquispacedMaskFractionFunc),
    "equispaced_plus_acs": ("equispaced", subsample.EquiSpacedMaskFunc),
    "magic": ("magic_fraction", subsample.MagicMaskFractionFunc),
    "magic_plus_acs": ("magic", subsample.MagicMaskFunc),
}


@dataclass(frozen=True)
class Mask:
    """`mask` bool (width,), `n_acs` centre columns, net `acceleration` = acquired / sampled columns."""

    mask: Tensor
    n_acs: int
    acceleration: float
    kind: str


def seed_of(name: str) -> tuple[int, ...]:
    """The seed fastMRI derives from a file name at validation, so that a volume always gets the same mask."""
    return tuple(map(ord, name))


def make_mask(
    kind: str,
    width: int,
    acceleration: float = 8,
    center_fraction: float = 0.04,
    seed: int | tuple[int, ...] = 0,
    padding: tuple[int, int] | None = None,
) -> Mask:
    """Draw the mask that fastMRI draws from the same seed.

    `center_fraction` of `width` columns, rounded, are the fully sampled centre (ACS); `padding` = (left,
    right) are the acquired columns left <= x < right, and all others stay unsampled, as in
    `fastmri.data.transforms.apply_mask`. `magic` may lower the number of ACS columns to keep its
    acceleration; `n_acs` is the number really used.

    Raises UserError for an unknown kind and for numbers that leave no mask (no centre column, or a centre
    that uses up every column the acceleration allows, where fastMRI itself fails, its issue 344).
    """
    if kind not in MASKS:
        names = ", ".join(f"{ours} (fastMRI: {theirs})" for ours, (theirs, _) in MASKS.items())
        raise UserError(f"mask kind {kind!r}: unknown; choose one of {names}")
    left, right = padding or (0, width)
    if not 0 <= left < right <= width:
        raise UserError(f"mask padding {(left, right)}: must be 0 <= left < right <= width {width}")
    if not (acceleration >= 1 and 1 <= round(width * center_fraction) < width):
        raise UserError(
            f"mask {kind!r} on {width} columns: acceleration {acceleration}, centre {center_fraction};"
            f" use acceleration >= 1 and at least one centre column, not all (fraction from {0.6 / width:.4f})"
        )
    if float(acceleration).is_integer():
        acceleration = int(acceleration)
    elif kind.endswith("_plus_acs"):
        raise UserError(f"mask {kind!r}: acceleration {acceleration}; this kind needs a whole number")
    draw = MASKS[kind][1]([center_fraction], [acceleration])
    try:
        drawn, n_acs = draw((1, width, 1), seed=seed)
    except (ValueError, ZeroDivisionError) as error:
        raise UserError(
            f"mask {kind!r} on {width} columns: a centre of {round(width * center_fraction)} columns uses up"
            f" the {width / acceleration:.1f} that acceleration {acceleration} allows; lower center_fraction"
            " or acceleration, or use 'equispaced_plus_acs'"
        ) from error
    columns = drawn.flatten() > 0
    columns[:left] = False
    columns[right:] = False
    return Mask(columns, int(n_acs), _net_acceleration(columns, (left, right)), kind)


def mask_from_columns(columns: np.ndarray, padding: tuple[int, int]) -> Mask:
    """The mask an undersampled file brings along: sampled columns (width,), any numeric or bool type.

    Raises UserError where no column inside `padding` is sampled.
    """
    left, right = padding
    mask = torch.from_numpy(np.asarray(columns).astype(bool))
    mask[:left] = False
    mask[right:] = False
    if not mask.any():
        raise UserError("mask: samples no acquired column; use a file whose mask has sampled columns")
    return Mask(mask, count_acs(mask), _net_acceleration(mask, padding), "file")


def count_acs(mask: Tensor) -> int:
    """Columns of the widest sampled block of a bool mask (width,) that lies where fastMRI places its centre.

    For the mask of a file, once. Unlike `find_acs`, which counts as fastMRI's network does, it keeps odd widths whole;
    at least 1.
    """
    width = mask.shape[-1]
    n_acs = 1
    while n_acs < width:
        start = (width - n_acs) // 2  # the start of a block one wider: (width - (n_acs + 1) + 1) // 2
        if not bool(mask[start : start + n_acs + 1].all()):
            break
        n_acs += 1
    return n_acs


def acs_columns(width: int, n_acs: Tensor) -> Tensor:
    """Bool (batch, 1, 1, width): the central `n_acs` (batch,) columns."""
    first = ((width - n_acs + 1) // 2).unsqueeze(-1)
    column = torch.arange(width, device=n_acs.device)
    return ((column >= first) & (column < first + n_acs.unsqueeze(-1)))[:, None, None]


def find_acs(mask: Tensor) -> Tensor:
    """Number of autocalibration columns of each mask, int64 (batch,), from `mask` bool (batch, 1, 1, x).

    Counts sampled columns outwards from the centre, symmetrically, at least one, as fastMRI's network does: its weights
    expect that. An odd number is therefore found one too small, unlike by `count_acs`: pass `n_acs` where it is known.
    Unlike in fastMRI a full mask counts fully.
    """
    columns = mask[:, 0, 0].to(torch.int64)
    centre = columns.shape[-1] // 2
    left = columns[:, :centre].flip(-1).cumprod(-1).sum(-1)
    right = columns[:, centre:].cumprod(-1).sum(-1)
    symmetric = (2 * torch.minimum(left, right)).clamp(min=1)
    return torch.where(columns.bool().all(-1), columns.shape[-1], symmetric)


def acs_of(mask: Tensor, n_acs: int | Tensor | None) -> Tensor:
    """The autocalibration columns of each mask, bool like `mask` (batch, 1, 1, x); `n_acs` wide, found when None."""
    if n_acs is None:
        counts = find_acs(mask)
    elif isinstance(n_acs, int):  # written there by the device, where a copy would make it wait
        counts = torch.full((len(mask),), n_acs, device=mask.device)
    else:
        counts = n_acs.to(mask.device).expand(len(mask))
    return acs_columns(mask.shape[-1], counts)


def _net_acceleration(columns: Tensor, padding: tuple[int, int]) -> float:
    return (padding[1] - padding[0]) / int(columns.sum())
