"""The sensitivity network: coil maps from the fully sampled centre of k-space (E2EVarNet, Sriram 2020)."""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from morelib.nn.activation import Norm
from morelib.nn.checkpointing import run
from morelib.nn.complex_io import Door
from morelib.nn.unet import UNet
from morelib.physics.fourier import crop_kspace
from morelib.physics.hybrid import at_once, coil_images
from morelib.physics.masks import acs_of
from morelib.physics.sense import normalise_maps

SensResolution = Literal["full", "acs"]
LEAST = 32  # points of a cropped axis: two for each of the coarsest level of a U-Net with four poolings


class SensitivityNetwork(nn.Module):
    """One U-Net, applied to each coil's low-resolution image; the maps are scaled to a root sum of squares of one.

    Args:
        widths: U-Net widths; fastMRI's are (8, 16, 32, 64, 128).
        norm: as for the U-Net.
        resolution: `full` looks at the ACS on the grid of the image, as fastMRI does, which can cost half of the
            reconstruction. `acs` crops k-space to a quarter along both axes first: along x nothing is lost as long as
            the ACS is no wider than that. The U-Net runs on a sixteenth of the pixels; its maps are interpolated.
        checkpointing: see `morelib.nn.checkpointing`; the activations of a few coils at a time.
    """

    def __init__(
        self,
        widths: Sequence[int] = (8, 16, 32, 64, 128),
        norm: Norm = "none",
        resolution: SensResolution = "full",
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.unet = UNet(2, 2, widths, norm)
        self.resolution = resolution
        self.checkpointing = checkpointing

    def forward(self, kspace: Tensor, mask: Tensor, n_acs: int | Tensor | None = None) -> Tensor:
        """Masked k-space (batch, coil, y, x) and mask (batch, 1, 1, x) to maps (batch, coil, y, x)."""
        height, width = kspace.shape[-2:]
        acs = torch.where(acs_of(mask, n_acs), kspace, 0.0)
        if self.resolution == "acs":
            acs = crop_kspace(acs, (max(height // 4, LEAST), max(width // 4, LEAST)))
        images = coil_images(acs).flatten(0, 1)
        maps = in_groups(self._maps, images, self.checkpointing).unflatten(0, kspace.shape[:2])
        if self.resolution == "acs":
            maps = interpolate(maps, (height, width))
        return normalise_maps(maps)

    def _maps(self, images: Tensor) -> Tensor:
        channels, door = Door.enter(images)
        return door.leave(self.unet(channels))


def in_groups(function: Callable[[Tensor], Tensor], images: Tensor, checkpointing: bool) -> Tensor:
    """`function` of images (n, ...), a few at a time where that is better: on a processor, whose cache holds few.

    With `checkpointing` everywhere, so that the activations of a few are held at a time.
    """
    few = checkpointing or images.device.type == "cpu"
    n = at_once(images[0]) if few else len(images)
    return torch.cat([run(checkpointing, function, group) for group in images.split(n)])


def interpolate(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Linear interpolation of (..., y, x) on centred grids: index n // 2 stays where it is."""
    for axis, n in zip((-2, -1), size, strict=True):
        m = image.shape[axis]
        position = ((torch.arange(n, device=image.device) - n // 2) * (m / n) + m // 2).clamp(0, m - 1)
        below = position.floor().long().clamp(max=max(m - 2, 0))
        weight = (position - below).to(image.real.dtype)
        weight = weight.unsqueeze(-1) if axis == -2 else weight
        above = (below + 1).clamp(max=m - 1)
        image = torch.lerp(
            image.index_select(axis, below), image.index_select(axis, above), weight.to(image.dtype)
        )
    return image
