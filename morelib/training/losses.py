"""The reconstruction loss: one minus SSIM, as fastMRI trains its VarNet."""

import torch
import torch.nn.functional as F
from torch import Tensor

from morelib.physics.fourier import centre_crop

WINDOW = 7


def ssim_loss(image: Tensor, target: Tensor, data_range: Tensor) -> Tensor:
    """1 - mean SSIM over 7x7 uniform windows that lie inside the image; a scalar.

    Args:
        image, target: real (batch, y, x); the larger is cropped about its centre to the smaller, axis by axis.
        data_range: (batch,), the maximum of each sample's *volume*. Zero (an empty volume) is taken as one.

    Equal to `fastmri.losses.SSIMLoss`. Source: Wang 2004, K1 = 0.01, K2 = 0.03, unbiased covariance.
    """
    height, width = min(image.shape[-2], target.shape[-2]), min(image.shape[-1], target.shape[-1])
    # Dividing first keeps k-space of 1e-5 well inside float32's range when it is squared.
    scale = torch.where(data_range > 0, data_range, 1.0)[:, None, None, None]
    x = centre_crop(image, (height, width)).unsqueeze(1) / scale
    y = centre_crop(target, (height, width)).unsqueeze(1) / scale
    mean_x, mean_y, mean_xx, mean_yy, mean_xy = (
        F.avg_pool2d(value, WINDOW, stride=1) for value in (x, y, x * x, y * y, x * y)
    )
    unbiased = WINDOW**2 / (WINDOW**2 - 1)
    var_x, var_y = unbiased * (mean_xx - mean_x**2), unbiased * (mean_yy - mean_y**2)
    covariance = unbiased * (mean_xy - mean_x * mean_y)
    c1, c2 = 0.01**2, 0.03**2
    ssim = ((2 * mean_x * mean_y + c1) * (2 * covariance + c2)) / (
        (mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2)
    )
    return 1 - ssim.mean()
