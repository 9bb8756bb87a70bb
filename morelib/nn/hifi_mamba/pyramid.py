"""SF-Lap, the separable frequency-consistent Laplacian pyramid: features split into a smooth and a sharp part."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BINOMIAL = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)


class LaplacianPyramid(nn.Module):
    """One level: low = what survives being blurred, halved and enlarged again; high = the rest, exactly.

    Halving without blurring would fold high frequencies onto low ones (aliasing), and undersampled images are full of
    those. The binomial filter [1, 4, 6, 4, 1] / 16 along each axis takes them out first: it is zero at the frequency
    that halving folds onto the mean, and nearly zero around it. Enlarging is bilinear. The filters are fixed, not
    learned, so the two streams keep their meaning through the depth of the network.

    `forward` maps features (batch, channels, y, x), y and x at least 3, odd or even, to (low, high) of the same shape,
    with low + high = features.

    Note: the coarse grid is sampled at even pixels, and bilinear enlargement (`align_corners=False`, as in the
    published code) takes it to lie between pixels. So low lags by half a pixel, and high holds what that takes away:
    half a pixel's slope on a ramp. Nothing is lost, since high is the residual.
    """

    kernel: Tensor

    def __init__(self) -> None:
        super().__init__()
        taps = torch.tensor(BINOMIAL)
        self.register_buffer("kernel", torch.outer(taps, taps)[None, None], persistent=False)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        height, width = features.shape[-2:]
        enlarged = F.interpolate(self.reduce(features), scale_factor=2, mode="bilinear", align_corners=False)
        # An odd size comes back one larger.
        low = enlarged[..., :height, :width]
        return low, features - low

    def reduce(self, features: Tensor) -> Tensor:
        """Blur and keep every second pixel, beginning with the first: (batch, channels, ceil(y / 2), ceil(x / 2))."""
        channels = features.shape[1]
        padded = F.pad(features, (2, 2, 2, 2), "reflect")
        kernel = self.kernel.to(features.dtype).expand(channels, -1, -1, -1)
        return F.conv2d(padded, kernel, stride=2, groups=channels)
