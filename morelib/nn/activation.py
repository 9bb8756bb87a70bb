"""What stands after each convolution of the U-Nets: optional instance norm, leaky ReLU; in place, for any device."""

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from morelib.routing.rows import as_maps, per_channel, rows

try:
    from morelib.nn import norm_kernel as kernel
except ImportError:  # PyTorch for processors comes without Triton
    kernel = None  # type: ignore[assignment]

Norm = Literal["none", "instance"]
SLOPE, EPS = 0.2, 1e-5


class Activation(nn.Module):
    """Leaky ReLU (0.2), after instance norm (without affine part) where `norm` says so. Overwrites its input."""

    def __init__(self, norm: Norm) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        """(batch, channels, y, x), the output of a convolution, which is lost.

        With `skip` (batch, skip_channels, y, x) it is joined behind the channels of x, as it is: what is kept for the
        gradient then is the joined tensor only.
        """
        if torch.compiler.is_compiling():  # it fuses the plain form, and cannot look into what stands below
            x = F.leaky_relu(F.instance_norm(x, eps=EPS) if self.norm == "instance" else x, SLOPE)
            return x if skip is None else torch.cat([x, skip], 1)
        if skip is None and self.norm == "none":
            return F.leaky_relu_(x, SLOPE)
        activation = _LeakyReLU if self.norm == "none" else _InstanceNormLeakyReLU
        out: Tensor = activation.apply(x, skip)
        return out


class _LeakyReLU(torch.autograd.Function):
    """leaky_relu(x) and the skip behind it. An operation in place on part of a tensor would copy its gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, skip: Tensor) -> Tensor:
        out = torch.cat([F.leaky_relu_(x, SLOPE), skip], 1)
        ctx.channels = x.shape[1]
        ctx.save_for_backward(out)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        (out,), n = ctx.saved_tensors, ctx.channels
        return torch.ops.aten.leaky_relu_backward(grad[:, :n], out[:, :n], SLOPE, True), grad[:, n:]


class _InstanceNormLeakyReLU(torch.autograd.Function):
    """leaky_relu((x - mean) / sqrt(var + eps)), mean and variance over (y, x), in the memory of x or before the skip.

    Its gradient needs the output and one number per channel, nothing else: leaky ReLU can be undone. The output is
    what the next convolution keeps anyway, so normalisation costs no memory (Rota Bulo 2018, arXiv 1712.02616).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, skip: Tensor | None) -> Tensor:
        if kernel and kernel.usable(x):
            out, rstd = _by_kernel(x, skip)
        else:
            out = x.contiguous(memory_format=torch.channels_last)
            pixels = rows(out)
            pixels.sub_(per_channel(_mean(out), out))
            rstd = (_mean(out * out) + EPS).rsqrt()
            F.leaky_relu_(pixels.mul_(per_channel(rstd, out)), SLOPE)
            if skip is not None:
                out = torch.cat([out, skip], 1)
        if out is x:
            ctx.mark_dirty(x)
        ctx.save_for_backward(out, rstd)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None]:
        out, rstd = ctx.saved_tensors
        n = rstd.shape[1]
        skip = grad[:, n:] if out.shape[1] > n else None
        grad, out = grad[:, :n], out[:, :n]
        if kernel and kernel.usable(out):
            return kernel.gradient(out, grad, rstd, SLOPE), skip
        grads, pixels = rows(grad), rows(out)
        # Leaky ReLU scales the gradient by what it scales the normalised x by, so their products need no undoing.
        slope = _mean(as_maps(grads * pixels, out))
        grads = torch.ops.aten.leaky_relu_backward(grads, pixels, SLOPE, True)
        normalised = F.leaky_relu(pixels, 1 / SLOPE)
        # d/dx: rstd (g - mean(g) - x mean(g x)), x normalised
        offset = per_channel(-rstd * _mean(as_maps(grads, out)), out)
        torch.addcmul(offset, grads, per_channel(rstd, out), out=grads)
        return as_maps(grads.addcmul_(normalised, per_channel(-rstd * slope, out)), out), skip


def _by_kernel(x: Tensor, skip: Tensor | None) -> tuple[Tensor, Tensor]:
    """The output, with the skip joined if there is one, and 1 / sqrt(var + eps)."""
    out, n = x, x.shape[1]
    if skip is not None:
        shape = (len(x), n + skip.shape[1], *x.shape[2:])
        out = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
        out[:, n:] = skip
    return out, kernel.normalise(x, out[:, :n], SLOPE, EPS)


def _mean(x: Tensor) -> Tensor:
    """Over (y, x): (batch, channels, 1, 1), in float32 at least, as short formats cannot add up so many numbers."""
    return x.mean((-2, -1), keepdim=True, dtype=torch.promote_types(x.dtype, torch.float32))
