"""The sensitivity network: coil maps from the fully sampled centre of k-space (E2EVarNet, Sriram 2020)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from morelib.nn.complex_io import Door
from morelib.nn.unet import Norm, UNet
from morelib.physics.fourier import ifft2c
from morelib.physics.masks import acs_columns
from morelib.physics.sense import normalise_maps


def find_acs(mask: Tensor) -> Tensor:
    """Number of autocalibration columns of each mask, int64 (batch,), from `mask` bool (batch, 1, 1, x).

    Counts sampled columns outwards from the centre, symmetrically, at least one, as fastMRI does. An odd number is
    therefore found one too small: pass `n_acs` where it is known. Unlike in fastMRI a full mask counts fully.
    """
    columns = mask[:, 0, 0].to(torch.int64)
    centre = columns.shape[-1] // 2
    left = columns[:, :centre].flip(-1).cumprod(-1).sum(-1)
    right = columns[:, centre:].cumprod(-1).sum(-1)
    symmetric = (2 * torch.minimum(left, right)).clamp(min=1)
    return torch.where(columns.bool().all(-1), columns.shape[-1], symmetric)


def acs_of(mask: Tensor, n_acs: int | Tensor | None) -> Tensor:
    """The autocalibration columns of each mask, bool like `mask` (batch, 1, 1, x); `n_acs` wide, found when None."""
    counts = find_acs(mask) if n_acs is None else torch.as_tensor(n_acs, device=mask.device).expand(len(mask))
    return acs_columns(mask.shape[-1], counts)


class SensitivityNetwork(nn.Module):
    """One U-Net, applied to each coil's low-resolution image; the maps are scaled to a root sum of squares of one.

    Args:
        widths: U-Net widths; fastMRI's are (8, 16, 32, 64, 128).
        norm: as for the U-Net.
    """

    def __init__(self, widths: Sequence[int] = (8, 16, 32, 64, 128), norm: Norm = "none") -> None:
        super().__init__()
        self.unet = UNet(2, 2, widths, norm)

    def forward(self, kspace: Tensor, mask: Tensor, n_acs: int | Tensor | None = None) -> Tensor:
        """Masked k-space (batch, coil, y, x) and mask (batch, 1, 1, x) to maps (batch, coil, y, x)."""
        images = ifft2c(torch.where(acs_of(mask, n_acs), kspace, 0.0))
        channels, door = Door.enter(images.flatten(0, 1))
        return normalise_maps(door.leave(self.unet(channels)).unflatten(0, kspace.shape[:2]))
