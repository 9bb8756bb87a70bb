"""Running only the chosen experts, and mixing what they return."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def mix_experts(
    experts: Sequence[Callable[[list[Tensor]], Tensor]],
    inputs: list[Tensor],
    weights: Tensor,
    selected: Tensor,
) -> Tensor:
    """Eq. 6: the sum over the chosen experts of weight times output, at the cost of the chosen experts.

    Args:
        experts: callables from a list of batched tensors to a batched tensor, for example decoders of one shape.
        inputs: batched tensors, for example the skip features of a shared encoder.
        weights: (batch, n_experts); only the entries at `selected` are used.
        selected: int64 (batch, k).

    Each expert runs once, on the samples that chose it. An expert that nobody chose does not run and receives no
    gradient at all (None, not zero), so that an optimiser can leave it alone.
    """
    output: Tensor | None = None
    for index in selected.unique().tolist():
        rows = (selected == index).any(-1).nonzero().squeeze(-1)
        chosen = inputs if len(rows) == len(selected) else [level[rows] for level in inputs]
        part = experts[index](chosen)
        # Eq. 6: g_i Dec_i
        part = weights[rows, index].reshape(-1, *[1] * (part.ndim - 1)) * part
        if output is None:
            output = part.new_zeros(len(selected), *part.shape[1:])
        output = output.index_add(0, rows, part)
    assert output is not None  # select_top_k always chooses at least one expert
    return output


def mix_all_experts(
    experts: Sequence[Callable[[list[Tensor]], Tensor]],
    inputs: list[Tensor],
    weights: Tensor,
    selected: Tensor,
) -> Tensor:
    """The same sum computed the plain way: every expert runs on every sample. The reference for tests."""
    outputs = torch.stack([expert(inputs) for expert in experts], 1)
    chosen = torch.zeros_like(weights).scatter(-1, selected, 1.0)
    factor = (weights * chosen).reshape(*weights.shape, *[1] * (outputs.ndim - 2))
    return (factor * outputs).sum(1)
