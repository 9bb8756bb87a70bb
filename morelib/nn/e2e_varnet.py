"""E2EVarNet (Sriram 2020, arXiv 2004.06688): the dense network that MoRE starts from."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from morelib.nn.activation import Norm
from morelib.nn.checkpointing import run
from morelib.nn.complex_io import Door
from morelib.nn.sensitivity import SensitivityNetwork, SensResolution
from morelib.nn.unet import UNet
from morelib.nn.unrolled import Consistency, Context, Denoised, Unrolled

PRESETS: dict[str, dict[str, Any]] = {
    # fastMRI's published network: 29,936,966 parameters.
    "fastmri": {
        "widths": (18, 36, 72, 144, 288),
        "norm": "instance",
        "zero_init": False,
        "restore_mean": True,
    },
    # As the MoRE paper trains it.
    "paper": {"widths": (16, 20, 24, 28)},
}


class UNetDenoiser(nn.Module):
    """D of Eq. 2 as one U-Net. Complex image (batch, y, x) in and out; it records no routing."""

    def __init__(
        self,
        widths: Sequence[int],
        norm: Norm,
        zero_init: bool,
        restore_mean: bool,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.unet = UNet(2, 2, widths, norm, zero_init)
        self.restore_mean = restore_mean
        self.checkpointing = checkpointing

    def forward(self, image: Tensor, context: Context) -> Denoised:
        channels, door = Door.enter(image)
        return Denoised(door.leave(run(self.checkpointing, self.unet, channels), self.restore_mean))


def e2e_varnet(
    cascades: int = 12,
    widths: Sequence[int] = (16, 20, 24, 28),
    sens_widths: Sequence[int] = (8, 16, 32, 64, 128),
    norm: Norm = "none",
    zero_init: bool = True,
    restore_mean: bool = False,
    consistency: Consistency = "kspace",
    sens_resolution: SensResolution = "full",
    checkpointing: bool = False,
) -> Unrolled:
    """E2EVarNet with a U-Net of the given widths in each cascade.

    Args:
        cascades: how many times Eq. 2 is unrolled.
        widths: U-Net widths, finest first; the last is the bottleneck.
        sens_widths: widths of the sensitivity network.
        norm: `none` (the paper's baseline has no normalisation layers) or `instance` (as published).
        zero_init: see `morelib.nn.unet.Decoder`.
        restore_mean: add the image's mean to each correction, as fastMRI does. A correction that starts at zero then
            starts at the mean instead, and every cascade takes it away and puts it back.
        consistency: see `morelib.nn.unrolled.Unrolled`.
        sens_resolution: see `SensitivityNetwork`.
        checkpointing: train in less memory and more time, see `morelib.nn.checkpointing`.
    """
    denoisers = (UNetDenoiser(widths, norm, zero_init, restore_mean, checkpointing) for _ in range(cascades))
    sensitivity = SensitivityNetwork(sens_widths, norm, sens_resolution, checkpointing)
    return Unrolled(denoisers, sensitivity, consistency)
