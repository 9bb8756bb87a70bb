"""The selective scan of Mamba (Gu & Dao 2023, arXiv 2312.00752) in plain PyTorch.

A state h of `state` numbers per channel walks along the sequence, forgets at a rate that each token chooses, and takes
up what each token offers:

    h_t = exp(dt_t A) h_{t-1} + dt_t B_t u_t,    y_t = C_t h_t + D u_t.

Written as a loop this is one small step per token, thousands of steps for an image. Here the sequence is cut into
chunks of 16 tokens that all take their 16 steps side by side, each starting from zero. How a chunk ends depends on how
the one before ended, which is the same recurrence over a sequence 16 times shorter: it is solved the same way, and its
result is added to every chunk, faded by the decays since the chunk began. 10,000 tokens take about 60 steps.

Only products of decays occur, never quotients: each is in [0, 1], and one that underflows is rightly zero.
"""

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from morelib.nn.hifi_mamba.kernel import cuda_kernel

CHUNK = 16
# State numbers in memory at a time, by device: what fits a processor's cache, and what keeps a GPU busy. So what the
# scan needs beside its inputs does not grow with the image.
STATES_HELD = {"cpu": 2**19, "cuda": 2**25}


def selective_scan(
    u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, segment: int | None = None
) -> Tensor:
    """y of the equations above, with gradients for all six tensors.

    Args:
        u, dt: input and step size, (batch, length, channels); dt >= 0.
        A: (channels, state), <= 0.
        B, C: input and output weights of each token, (batch, length, state).
        D: (channels,).
        segment: tokens whose states are held at a time; chosen for the device when None.

    Returns:
        (batch, length, channels), at least float32, also under autocast: decays close to one need the digits.

    For the gradient only the inputs and one state per segment are kept; the states are computed again, a segment at a
    time. The kernel of the package `mamba_ssm` replaces all this where it is installed, on CUDA, and agrees.
    """
    with torch.autocast(u.device.type, enabled=False):
        dtype = torch.promote_types(u.dtype, torch.float32)
        u, dt, A, B, C, D = (tensor.to(dtype) for tensor in (u, dt, A, B, C, D))
        kernel = cuda_kernel(u.device, dtype, plain_scan)
        return kernel(u, dt, A, B, C, D) if kernel else plain_scan(u, dt, A, B, C, D, segment)


def plain_scan(
    u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, segment: int | None = None
) -> Tensor:
    """`selective_scan` without a kernel."""
    if segment is None:
        held = STATES_HELD.get(u.device.type, STATES_HELD["cuda"])
        segment = max(held // (len(u) * A.numel()), CHUNK**2)
    y: Tensor = _Scan.apply(dt * u, dt, A, B, C, segment)
    return y + D * u


def linear_recurrence(decay: Tensor, drive: Tensor) -> None:
    """Turn `drive` x into the states h_t = a_t h_{t-1} + x_t, h_{-1} = 0, in place; `decay` a is used up.

    Both (length, ...), contiguous.
    """
    length = len(drive)
    done = 1
    if length >= 2 * CHUNK:
        done = length // CHUNK * CHUNK
        a, h = (tensor[:done].unflatten(0, (-1, CHUNK)) for tensor in (decay, drive))
        for step in range(1, CHUNK):
            h[:, step].addcmul_(a[:, step], h[:, step - 1])
            a[:, step].mul_(a[:, step - 1])  # now the product of decays since the chunk began
        ends = h[:, -1].clone()
        linear_recurrence(a[:, -1].clone(), ends)
        h[1:].addcmul_(a[1:], ends[:-1].unsqueeze(1))
    for step in range(done, length):
        drive[step].addcmul_(decay[step], drive[step - 1])


class _Scan(torch.autograd.Function):
    """The recurrence and the readout, x = dt u given. Inside, time comes first: (length, batch, state, channels)."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, segment: int
    ) -> Tensor:
        rate = A.T.contiguous()
        h = x.new_zeros(len(x), *rate.shape)
        starts, y = [], torch.empty_like(x)
        for span in _spans(x.shape[1], segment):
            starts.append(h)
            x_t, dt_t, B_t, C_t = (_time_first(tensor[:, span]) for tensor in (x, dt, B, C))
            states = _states(torch.exp(dt_t.unsqueeze(2) * rate), x_t, B_t, h)
            y[:, span] = _weighted_sum(C_t, states).transpose(0, 1)
            h = states[-1].clone()
        ctx.segment = segment  # type: ignore[attr-defined]
        ctx.save_for_backward(x, dt, A, B, C, torch.stack(starts))
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad_y: Tensor) -> tuple[Tensor | None, ...]:
        """Back in time with g_t = dL/dh_t = C_t dL/dy_t + a_{t+1} g_{t+1}, the same recurrence reversed."""
        x, dt, A, B, C, starts = ctx.saved_tensors  # type: ignore[attr-defined]
        rate = A.T.contiguous()
        grads = [torch.empty_like(tensor) for tensor in (x, dt, B, C)]
        grad_rate = torch.zeros_like(rate)
        later = torch.zeros_like(starts[0])  # a_{t+1} g_{t+1} from the segment behind
        spans = _spans(x.shape[1], ctx.segment)  # type: ignore[attr-defined]
        for span, start in reversed(list(zip(spans, starts, strict=True))):
            inputs = (_time_first(tensor[:, span]) for tensor in (x, dt, B, C, grad_y))
            x_t, dt_t, B_t, C_t, grad_y_t = inputs
            decay = torch.exp(dt_t.unsqueeze(2) * rate)
            states = _states(decay.clone(), x_t, B_t, start)
            # The decay from a step to the next one belongs to the later step: reversed, it moves on by one.
            g = C_t.flip(0).unsqueeze(3) * grad_y_t.flip(0).unsqueeze(2)
            g[0] += later
            linear_recurrence(torch.cat([decay[:1], decay[1:].flip(0)]), g)
            g = g.flip(0)
            later = decay[0] * g[0]
            # From here on `decay` is dL/d(dt A) = g_t a_t h_{t-1}.
            decay[1:] *= states[:-1]
            decay[0] *= start
            decay *= g
            grad_rate += (decay * dt_t.unsqueeze(2)).sum((0, 1))
            parts = (
                _weighted_sum(B_t, g),
                (decay * rate).sum(2),
                _over_channels(g, x_t),
                _over_channels(states, grad_y_t),
            )
            for grad, part in zip(grads, parts, strict=True):
                grad[:, span] = part.transpose(0, 1)
        grad_x, grad_dt, grad_B, grad_C = grads
        return grad_x, grad_dt, grad_rate.T, grad_B, grad_C, None


def _states(decay: Tensor, x: Tensor, B: Tensor, start: Tensor) -> Tensor:
    """All states of a segment, (length, batch, state, channels); uses `decay` up."""
    states = B.unsqueeze(3) * x.unsqueeze(2)
    states[0].addcmul_(decay[0], start)
    linear_recurrence(decay, states)
    return states


def _weighted_sum(weights: Tensor, states: Tensor) -> Tensor:
    """Over the states: weights (length, batch, state), states (length, batch, state, channels)."""
    return (weights.unsqueeze(2) @ states).squeeze(2)


def _over_channels(states: Tensor, x: Tensor) -> Tensor:
    """Sum over the channels of states (length, batch, state, channels) times x (length, batch, channels)."""
    return (states @ x.unsqueeze(3)).squeeze(3)


def _time_first(x: Tensor) -> Tensor:
    return x.transpose(0, 1).contiguous()


def _spans(length: int, segment: int) -> list[slice]:
    return [slice(start, min(start + segment, length)) for start in range(0, length, segment)]
