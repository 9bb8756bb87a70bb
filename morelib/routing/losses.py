"""The three router losses of Eq. 7, and the annealing of their weights and of the selection noise."""

from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from morelib.routing.selection import expert_counts


class RouterLosses(NamedTuple):
    """The unweighted terms of Eq. 7, scalars.

    aux: sum_i p_i g_i; 1/N for uniform routing, up to 1 for collapse. Penalises popular experts.
    sparse: entropy of the gates, mean over samples. Minimising it sharpens each decision.
    z: squared log-sum-exp of the logits, mean over samples. Bounds the logits.
    """

    aux: Tensor
    sparse: Tensor
    z: Tensor

    def weighted(self, alpha_aux: float | Tensor, alpha_sparse: float, alpha_z: float) -> Tensor:
        """Eq. 7 with its three coefficients alpha_1, alpha_2, alpha_3."""
        return alpha_aux * self.aux + alpha_sparse * self.sparse + alpha_z * self.z


def selection_share(selected: Tensor, n_experts: int) -> Tensor:
    """p of Eq. 7: the share of selections each expert received, (..., n_experts), from `selected` (..., batch, k).

    It sums to 1 and carries no gradient.

    In distributed training the counts of all processes are added first. So all of them must come here, equally often
    and in the same order: not in code that activation checkpointing runs again. Each process then takes the mean gates
    of its own samples; averaged over processes, as gradients are, that is the loss of all samples together.
    """
    counts = expert_counts(selected, n_experts)
    if dist.is_initialized() and torch.is_grad_enabled():  # in evaluation processes may see different numbers
        dist.all_reduce(counts)
    return counts / counts.sum(-1, keepdim=True)


def router_losses(logits: Tensor, gates: Tensor, selected: Tensor) -> RouterLosses:
    """The terms of Eq. 7 for one router batch, or for those of all cascades at once: their mean over cascades.

    As a mean, the coefficients mean the same at any depth.

    Args:
        logits: z, (batch, n_experts) or (cascades, batch, n_experts).
        gates: g = softmax(z), of the same shape.
        selected: experts chosen by the noisy top-K, (batch, k) or (cascades, batch, k).

    The paper writes g_i for one sample and p_i for a batch. We take g_i as the batch mean in the first term: per
    sample, at batch size one, p would only repeat the sample's own choice (assumption 8 of the book).
    """
    share = selection_share(selected, gates.shape[-1])
    # Eq. 7, first term (as printed: not multiplied by N as in the Switch Transformer)
    aux = (share.to(gates.dtype) * gates.mean(-2)).sum(-1).mean()
    # Eq. 7, second term: -sum g log g. From the logits, because the slope of g log g at an underflowed g is infinite.
    sparse = -(gates * logits.log_softmax(-1)).sum(-1).mean()
    # Eq. 7, third term
    z = torch.logsumexp(logits, -1).square().mean()
    return RouterLosses(aux, sparse, z)


def anneal(start_end: tuple[float, float], progress: float) -> float:
    """Log-linear path from start to end as `progress` goes from 0 to 1; linear if an end is zero.

    The paper gives end points only: tau 1.0 to 0.01, alpha_1 0.1 to 0.001.
    """
    start, end = start_end
    progress = min(max(progress, 0.0), 1.0)
    if start <= 0 or end <= 0:
        return start + (end - start) * progress
    return float(start * (end / start) ** progress)
