"""fastMRI's own VarNet, rebuilt at any widths, as a network like ours."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from fastmri.models.unet import ConvBlock, TransposeConvBlock, Unet
from fastmri.models.varnet import VarNet
from torch import Tensor, nn

from morelib.nn.unrolled import Reconstruction


class FastmriVarNet(nn.Module):
    """`fastmri.models.VarNet` whose U-Nets have these widths, finest first; fastMRI only doubles a first one.

    Maps (kspace, mask, n_acs) to a `Reconstruction`, as our networks do. `varnet` is the network itself.
    """

    waits_for_values = True  # it looks at the mask: no graph can be recorded of it

    def __init__(self, cascades: int, widths: Sequence[int], sens_widths: Sequence[int]) -> None:
        super().__init__()
        self.varnet = VarNet(num_cascades=cascades, sens_chans=2, sens_pools=1, chans=2, pools=1)
        self.varnet.sens_net.norm_unet.unet = _UNet(sens_widths)
        for cascade in self.varnet.cascades:
            cascade.model.unet = _UNet(widths)

    def forward(self, kspace: Tensor, mask: Tensor, n_acs: int | None = None) -> Reconstruction:
        image = self.varnet(torch.view_as_real(kspace), mask[..., None], num_low_frequencies=n_acs)
        return Reconstruction(image, None)


class _UNet(Unet):
    """fastMRI's U-Net, its parts in its order and under its names; two channels in and out."""

    def __init__(self, widths: Sequence[int]) -> None:
        nn.Module.__init__(self)
        down, up = list(pairwise((2, *widths))), list(pairwise(reversed(widths)))
        self.down_sample_layers = nn.ModuleList(ConvBlock(i, o, 0.0) for i, o in down[:-1])
        self.conv = ConvBlock(*down[-1], 0.0)
        self.up_transpose_conv = nn.ModuleList(TransposeConvBlock(i, o) for i, o in up)
        self.up_conv = nn.ModuleList(ConvBlock(2 * o, o, 0.0) for _, o in up)
        self.up_conv[-1] = nn.Sequential(self.up_conv[-1], nn.Conv2d(widths[0], 2, 1))
