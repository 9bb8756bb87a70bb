"""What every reader does with the k-space it has read: checks that it is finite, makes the target and the mask."""

from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from morelib.data.volume import VolumeInfo
from morelib.errors import UserError
from morelib.physics.fourier import centre_crop, ifft2c
from morelib.physics.masks import Mask, mask_from_columns
from morelib.physics.sense import rss


def require_finite(values: Tensor, path: Path, what: str, index: int) -> None:
    """UserError naming file and slice for NaN or infinite values; `values` are complex or real."""
    real = torch.view_as_real(values) if values.is_complex() else values
    # One fast pass; a sum may overflow where all values are finite, so that is looked at again.
    if not bool(real.sum().isfinite()) and not bool(real.isfinite().all()):
        raise UserError(
            f"{path}: {what} of slice {index} holds NaN or infinite values; download the file again or leave it out"
        )


def rss_target(kspace: Tensor, info: VolumeInfo, index: int) -> Tensor | None:
    """The root sum of squares of the coil images of `kspace` (coil, y, x), cropped; None for undersampled files.

    Raises UserError naming file and slice where the k-space is finite and its image is not.
    """
    if not info.has_target:
        return None
    target = centre_crop(rss(ifft2c(kspace), dim=0), info.recon).contiguous()
    require_finite(target, info.path, "the image", index)
    return target


def own_mask(info: VolumeInfo, columns: NDArray[Any]) -> Mask:
    """The mask of an undersampled file whose sampled columns (width,) are known. Raises UserError naming it."""
    try:
        return mask_from_columns(columns, info.padding)
    except UserError as error:
        raise UserError(f"{info.path}: {error}") from error
