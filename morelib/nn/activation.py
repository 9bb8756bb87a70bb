"""What stands after each convolution of the U-Nets: optional instance norm, leaky ReLU; in place, for any device."""

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

Norm = Literal["none", "instance"]
SLOPE, EPS = 0.2, 1e-5


class Activation(nn.Module):
    """Leaky ReLU (0.2), after instance norm (without affine part) where `norm` says so. Overwrites its input."""

    def __init__(self, norm: Norm) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor, channels: int | None = None) -> Tensor:
        """(batch, channels, y, x), the output of a convolution, which is lost; of it the first `channels` or all."""
        if self.norm == "none":
            F.leaky_relu_(x[:, :channels], SLOPE)
            return x
        out: Tensor = _InstanceNormLeakyReLU.apply(x, channels)
        return out


class _InstanceNormLeakyReLU(torch.autograd.Function):
    """leaky_relu((x - mean) / sqrt(var + eps)), mean and variance over (y, x), in the memory of x.

    Its gradient needs the output and one number per channel, nothing else: leaky ReLU can be undone. The output is
    what the next convolution keeps anyway, so normalisation costs no memory (Rota Bulo 2018, arXiv 1712.02616).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, channels: int | None) -> Tensor:
        part = x[:, :channels]
        part.sub_(_mean(part))
        rstd = (_mean(part * part) + EPS).rsqrt()
        F.leaky_relu_(part.mul_(rstd), SLOPE)
        ctx.mark_dirty(x)
        ctx.save_for_backward(x, rstd)
        return x

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        x, rstd = ctx.saved_tensors
        out, grad, rest = x[:, : rstd.shape[1]], grad[:, : rstd.shape[1]], grad[:, rstd.shape[1] :]
        grad = torch.ops.aten.leaky_relu_backward(grad, out, SLOPE, True)
        normalised = F.leaky_relu(out, 1 / SLOPE)
        slope = _mean(grad * normalised)
        # d/dx: rstd (g - mean(g) - x mean(g x)), x normalised
        grad = torch.addcmul(-rstd * _mean(grad), grad, rstd).addcmul_(normalised, -rstd * slope)
        return torch.cat([grad, rest], 1) if rest.shape[1] else grad, None


def _mean(x: Tensor) -> Tensor:
    """Over (y, x): (batch, channels, 1, 1), in float32 at least, as short formats cannot add up so many numbers."""
    return x.mean((-2, -1), keepdim=True, dtype=torch.promote_types(x.dtype, torch.float32))
