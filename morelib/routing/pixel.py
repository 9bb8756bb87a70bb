"""Routing of single pixels: one expert each, at the cost of one expert, and what keeps all experts in use."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

from morelib.routing.losses import selection_share


class PixelChoice(NamedTuple):
    """What the router of one block did: gates, softmax, (batch, y, x, experts); selected, int64 (batch, y, x)."""

    gates: Tensor
    selected: Tensor


class PixelRouting(NamedTuple):
    """What the routers of one cascade did, pixel by pixel of the feature grid (one pixel per image patch).

    gates: softmax, (blocks, batch, y, x, experts). selected: int64 (blocks, batch, y, x). balance: the balance loss,
    mean over blocks, a scalar that carries gradients to the routers: 1 if all experts are used equally, up to the
    number of experts if one does everything.
    """

    gates: Tensor
    selected: Tensor
    balance: Tensor


def stack_routings(blocks: Sequence[PixelChoice]) -> PixelRouting:
    """What the blocks chose as one record of a cascade.

    The balance loss is computed here, not in the blocks: checkpointing runs those again, and processes that train
    together would exchange their counts again.
    """
    gates, selected = (torch.stack(field) for field in zip(*blocks, strict=True))
    return PixelRouting(gates, selected, balance_loss(gates.flatten(1, -2), selected.flatten(1)))


def choose(logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Logits (n, experts) to gates of that shape, and the largest gate and its expert of each token, (n,)."""
    # Experts first: PyTorch's softmax along a last axis of four costs 20 times as much on a processor.
    gates = logits.T.contiguous().softmax(0)
    weight, selected = gates.max(0)
    return gates.T, weight, selected


def balance_loss(gates: Tensor, selected: Tensor) -> Tensor:
    """N sum_e p_e g_e (Switch Transformer, Fedus 2021): p the share of pixels, g the mean gate, N experts.

    1 at uniform use, whatever N. (The published code divides the sum over its 6 groups by the number of its modules,
    12, of which 6 have no router: its loss reads 0.5 at uniform use, and its coefficient means half of ours.)

    Args:
        gates: (pixels, experts), or (blocks, pixels, experts) for the mean over blocks.
        selected: int64, the same shape without the last axis.
    """
    n_experts = gates.shape[-1]
    share = selection_share(selected.unsqueeze(-1), n_experts).to(gates.dtype)
    return n_experts * (share * gates.mean(-2)).sum(-1).mean()


def dispatch(
    experts: Sequence[Any] | nn.ModuleList, tokens: Tensor, selected: Tensor, weight: Tensor
) -> Tensor:
    """weight times what its own expert makes of each token, at the cost of one expert.

    Tokens are sorted by expert, so that each expert sees one contiguous block: one gather, a few matrix products, one
    scatter. An expert without tokens does not run, and its gradient stays None.

    Args:
        experts: modules from (n, channels) to (n, channels).
        tokens: (n, channels).
        selected: int64 (n,).
        weight: (n,).
    """
    order = selected.argsort(stable=True)
    inverse = torch.empty_like(order)
    inverse[order] = torch.arange(len(order), device=order.device)
    counts = torch.bincount(selected, minlength=len(experts)).tolist()
    gathered: Tensor = _Gather.apply(tokens, order, inverse)
    blocks = zip(experts, gathered.split(counts), strict=True)
    outputs = torch.cat([run(block) for run, block in blocks if len(block)])
    scattered: Tensor = _Scatter.apply(outputs, weight.to(outputs.dtype), order, inverse)
    return scattered


def dispatch_densely(
    experts: Sequence[Any] | nn.ModuleList, tokens: Tensor, selected: Tensor, weight: Tensor
) -> Tensor:
    """The same, the plain way: every expert runs on every token. The reference for tests and for timing."""
    outputs = torch.stack([run(tokens) for run in experts], 1)
    return weight.unsqueeze(-1) * outputs[torch.arange(len(tokens), device=tokens.device), selected]


class _Gather(torch.autograd.Function):
    """x[order], `order` a permutation. Its gradient is another gather; PyTorch, not knowing that, would add up."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
        ctx.save_for_backward(inverse)
        return x.index_select(0, order)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:
        (inverse,) = ctx.saved_tensors  # type: ignore[attr-defined]
        return grad.index_select(0, inverse), None, None


class _Scatter(torch.autograd.Function):
    """weight * x[inverse]: sorted tokens back in their places, weighed there: half of the memory traffic is saved."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, weight: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight, order, inverse)
        return x.index_select(0, inverse).mul_(weight.unsqueeze(-1))

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, order, inverse = ctx.saved_tensors  # type: ignore[attr-defined]
        gathered = grad.index_select(0, order)
        grad_weight = (gathered.unsqueeze(1) @ x.unsqueeze(2)).flatten().index_select(0, inverse)
        return gathered.mul_(weight.index_select(0, order).unsqueeze(-1)), grad_weight, None, None
