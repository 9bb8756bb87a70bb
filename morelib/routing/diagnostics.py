"""Numbers that say what a router does: load, effective experts, information, agreement with labels."""

from collections.abc import Sequence

import numpy as np
import torch
from sklearn.metrics import adjusted_mutual_info_score
from torch import Tensor

from morelib.routing.selection import expert_counts


def expert_load(selected: Tensor, n_experts: int) -> Tensor:
    """Share of all selections that went to each expert, (n_experts,), sums to 1. `selected`: int64 (samples, k)."""
    counts = expert_counts(selected, n_experts)
    return counts / counts.sum()


def effective_experts(load: Tensor) -> float:
    """exp of the entropy of the load: N for a balanced router, 1 for a collapsed one."""
    return float(torch.special.entr(load.double()).sum().exp())


def gate_information(gates: Tensor) -> tuple[float, float, float]:
    """(mean sample entropy, entropy of the mean gate, their difference), in nats, of gates (samples, n_experts).

    The difference is the mutual information between sample and expert: what the sparsity and the auxiliary loss of
    Eq. 7 want together.
    """
    gates = gates.double()
    sample = float(torch.special.entr(gates).sum(-1).mean())
    mean = float(torch.special.entr(gates.mean(0)).sum())
    return sample, mean, mean - sample


def usage_by_label(selected: Tensor, labels: Sequence[str], n_experts: int) -> dict[str, list[float]]:
    """For each label the share of its selections that each expert received."""
    names = np.asarray(labels)
    return {
        str(name): expert_load(selected[torch.from_numpy(names == name)], n_experts).tolist()
        for name in dict.fromkeys(names)
    }


def label_agreement(selected: Tensor, labels: Sequence[str]) -> float:
    """Adjusted mutual information between the set of chosen experts and a label: 0 is chance, 1 is identity."""
    routes = [str(sorted(row)) for row in selected.tolist()]
    return float(adjusted_mutual_info_score(list(labels), routes))
