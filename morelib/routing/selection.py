"""Choosing experts: noisy top-K, where noise decides who is chosen and never how much they weigh."""

import torch
from torch import Tensor


def select_top_k(
    gates: Tensor, k: int, tau: float | Tensor = 0.0, generator: torch.Generator | None = None
) -> Tensor:
    """Indices of the K largest entries of gates + tau * eps, eps ~ N(0, 1).

    Args:
        gates: (batch, n_experts), usually softmax probabilities.
        k: how many experts to choose, 1 <= k <= n_experts.
        tau: noise temperature; 0 chooses without noise. A tensor (scalar) is not looked at: noise is drawn always.
        generator: source of the noise; PyTorch's default generator when None.

    Returns:
        int64 (batch, k), best first. Ties go to the lower index, on every device. No gradient passes.

    Source: paper, Eqs. 6 and 8.
    """
    n_experts = gates.shape[-1]
    if not 1 <= k <= n_experts:
        raise ValueError(f"top_k is {k}, but there are {n_experts} experts")
    scores = gates.detach()
    if isinstance(tau, Tensor) or tau > 0:
        noise = torch.randn(scores.shape, generator=generator, dtype=scores.dtype, device=scores.device)
        # Eq. 8: g + tau eps; noise enters the selection only
        scores = scores + tau * noise
    # Eq. 6: TopK. A stable sort breaks ties by index; torch.topk does not promise to.
    return scores.sort(dim=-1, descending=True, stable=True).indices[..., :k]


def expert_counts(selected: Tensor, n_experts: int) -> Tensor:
    """How often each expert was chosen: float (..., n_experts), from int64 `selected` (..., batch, k)."""
    # Not torch.bincount, which makes a GPU's host wait.
    experts = torch.arange(n_experts, device=selected.device)
    return (selected.flatten(-2).unsqueeze(-2) == experts.unsqueeze(-1)).sum(-1).float()
