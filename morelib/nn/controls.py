"""Controls: what MoRE could owe its result to, apart from choosing among experts.

Two of them are networks of their own. The two others are an `e2e_varnet` with wider layers: as many parameters as MoRE
runs for a slice, and as many as it holds.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from morelib.nn.activation import Norm
from morelib.nn.checkpointing import run
from morelib.nn.complex_io import Door, standardise
from morelib.nn.sensitivity import SensitivityNetwork, SensResolution
from morelib.nn.unet import UNet
from morelib.nn.unrolled import Consistency, Context, Denoised, Reconstruction, Unrolled, check_input
from morelib.physics.fourier import ifft2c
from morelib.physics.sense import rss
from morelib.routing import Router
from morelib.routing.router import router_input


class GatedDenoiser(nn.Module):
    """D(x) = g Dec(Enc(x)): MoRE's router gives one gate g in (0, 1), and there is nothing to choose.

    The gate starts at 1/2; the gates of MoRE's K chosen experts start at K / N together. There are no router losses,
    which act on a distribution over experts, and no routing record. The router's input is detached, as MoRE's is.
    """

    def __init__(self, unet: UNet, router: Router, restore_mean: bool, checkpointing: bool) -> None:
        super().__init__()
        self.unet = unet
        self.router = router
        self.restore_mean = restore_mean
        self.checkpointing = checkpointing

    def forward(self, image: Tensor, context: Context) -> Denoised:
        channels, door = Door.enter(image)
        return Denoised(door.leave(run(self.checkpointing, self._gated, channels), self.restore_mean))

    def _gated(self, channels: Tensor) -> Tensor:
        features = self.unet.encoder(channels)
        # Eqs. 3 to 5 for a single expert, whose softmax would be one: g = sigmoid(z)
        gate = self.router(router_input(features)).logits.sigmoid()
        # Eq. 6
        return gate[..., None, None] * self.unet.decoder(features)


def gated_dense(
    cascades: int = 12,
    widths: Sequence[int] = (16, 20, 24, 28),
    sens_widths: Sequence[int] = (8, 16, 32, 64, 128),
    norm: Norm = "none",
    zero_init: bool = True,
    restore_mean: bool = False,
    consistency: Consistency = "kspace",
    embedding: int = 64,
    reduction: int = 4,
    router_width: int | None = None,
    sens_resolution: SensResolution = "full",
    checkpointing: bool = False,
) -> Unrolled:
    """MoRE with one decoder: its router scales the correction of each cascade, sample by sample.

    If it gains as much over `e2e_varnet` as MoRE does, the gain came from gates that scale, not from experts.

    Args:
        embedding, reduction, router_width: see `Router`.
        The others: as for `e2e_varnet`.
    """
    denoisers = (
        GatedDenoiser(
            UNet(2, 2, widths, norm, zero_init),
            Router(sum(widths), 1, embedding, reduction, router_width),
            restore_mean,
            checkpointing,
        )
        for _ in range(cascades)
    )
    sensitivity = SensitivityNetwork(sens_widths, norm, sens_resolution, checkpointing)
    return Unrolled(denoisers, sensitivity, consistency)


class ImageUNet(nn.Module):
    """A U-Net on the zero-filled magnitude: no coil maps, no phase, no data consistency.

    fastMRI's U-Net baseline (Zbontar 2018, arXiv 1811.08839) with three differences that make it start and train like
    the other networks here: it learns a correction to be subtracted, which may start at zero; nothing is clipped; and
    there is no dropout.
    """

    adjacent = 1

    def __init__(self, unet: UNet) -> None:
        super().__init__()
        self.unet = unet

    def forward(
        self, kspace: Tensor, mask: Tensor, n_acs: int | Tensor | None = None, sens_maps: Tensor | None = None
    ) -> Reconstruction:
        """As `Unrolled.forward`; k-space is all that is used."""
        check_input(kspace, mask, self.adjacent)
        image = rss(ifft2c(kspace))
        # Per slice, as the baseline does.
        x, _, std = standardise(image, (-2, -1))
        correction = self.unet(x.unsqueeze(1)).squeeze(1).to(std.dtype) * std
        return Reconstruction((image - correction).abs(), None)


def image_unet(
    widths: Sequence[int] = (32, 64, 128, 256, 512), norm: Norm = "none", zero_init: bool = True
) -> ImageUNet:
    """A plain image-domain U-Net; fastMRI's baseline has these widths and `norm="instance"`.

    If it comes near `e2e_varnet`, unrolling and the coils are not what the result is owed to.

    Args:
        widths, norm, zero_init: as for `e2e_varnet`.
    """
    return ImageUNet(UNet(1, 1, widths, norm, zero_init))
