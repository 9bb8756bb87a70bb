"""The door of a U-Net: a complex image becomes two normalised, padded real channels, and comes back."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

# fastMRI pads to multiples of 16 whatever the depth; enough for four poolings.
SIZE_MULTIPLE = 16


@dataclass(frozen=True)
class Door:
    """What `enter` removed from an image and `leave` puts back."""

    mean: Tensor
    std: Tensor
    top: int
    left: int
    size: tuple[int, int]

    @classmethod
    def enter(cls, image: Tensor) -> tuple[Tensor, "Door"]:
        """Complex image (batch, y, x) to normalised real channels (batch, 2, y', x'), zero-padded.

        Real and imaginary part are each brought to zero mean and unit (unbiased) standard deviation per sample: this
        makes a network equivariant to the scale of k-space, which varies by orders of magnitude between scanners.
        A constant part (a dead coil) has no standard deviation; it enters as zeros, but for rounding, and leaves as it
        was, not as NaN.
        """
        return cls.enter_channels(torch.view_as_real(image).permute(0, 3, 1, 2), (-2, -1), SIZE_MULTIPLE)

    @classmethod
    def enter_channels(cls, x: Tensor, axes: tuple[int, ...], multiple: int) -> tuple[Tensor, "Door"]:
        """`enter` for real channels (batch, channels, y, x), standardised over `axes`.

        Zeros are added after that, so that they are the mean brightness: half on each side, the odd one on the right
        and at the bottom, to multiples of `multiple`.
        """
        height, width = x.shape[-2:]
        x, mean, std = standardise(x, axes)
        pad_y, pad_x = -height % multiple, -width % multiple
        top, left = pad_y // 2, pad_x // 2
        if pad_y or pad_x:  # else a copy
            x = F.pad(x, (left, pad_x - left, top, pad_y - top))
        return x, cls(mean, std, top, left, (height, width))

    def leave(self, channels: Tensor, restore_mean: bool = True) -> Tensor:
        """Real channels (batch, 2, y', x') back to a complex image (batch, y, x).

        Without the mean, channels of zero leave as zero: right for a correction that is subtracted from an image.
        """
        x = self.leave_channels(channels, restore_mean)
        return torch.view_as_complex(x.permute(0, 2, 3, 1).contiguous())

    def leave_channels(self, channels: Tensor, restore_mean: bool) -> Tensor:
        """`leave` for channels that stay real, (batch, channels, y, x)."""
        height, width = self.size
        # Under mixed precision the U-Net ends in a short format, which complex numbers do not have.
        channels = channels.to(self.std.dtype)
        x = channels[..., self.top : self.top + height, self.left : self.left + width] * self.std
        return x + self.mean if restore_mean else x


def standardise(x: Tensor, axes: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """x at zero mean and unit (unbiased) standard deviation over `axes`; the mean; the standard deviation.

    Where x is constant to rounding, its standard deviation is zero and what comes out is zero but for rounding.
    """
    mean = x.mean(axes, keepdim=True)
    x = x - mean
    # Not torch.std_mean, which is ten times as slow, nor a vector norm, which loses digits over so many numbers.
    number = x.numel() // mean.numel()
    variance = x.square().sum(axes, keepdim=True) / max(number - 1, 1)
    # The mean of a constant is rounded, and differs from it by a few units in the last place.
    constant = variance <= (32 * torch.finfo(x.dtype).eps * mean).square()
    scale = torch.where(constant, 1.0, variance).sqrt()
    return x / scale, mean, torch.where(constant, 0.0, scale)
