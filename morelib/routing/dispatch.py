"""Running only the chosen experts, and mixing what they return."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call

# Runs the expert of choice number b * k + i, the i-th of sample b, on that sample.
Run = Callable[[int, list[Tensor]], Tensor]


def mix_experts(
    experts: Sequence[nn.Module],
    inputs: list[Tensor],
    weights: Tensor,
    selected: Tensor,
    gather: bool | None = None,
) -> Tensor:
    """Eq. 6: the sum over the chosen experts of weight times output, at the cost of the chosen experts.

    Args:
        experts: modules of one shape, without buffers, from a list of batched tensors to a batched tensor: decoders.
        inputs: batched tensors, for example the skip features of a shared encoder.
        weights: (batch, n_experts); only the entries at `selected` are used.
        selected: int64 (batch, k).
        gather: False runs the chosen modules, for which Python must know the choice. True runs the first module with
            the chosen ones' parameters, gathered by index: a GPU copies nothing to its host, and the step can be
            compiled or captured. None does the first where the choice is on the processor anyway.

    Samples go one after the other: on a processor that was at least as fast as one batch for each expert, and twice
    as fast as grouped convolutions. The two ways differ in one thing: an expert that nobody chose gets no gradient
    (None) if modules run and zeros if parameters are gathered, for which AdamW still spends momentum and decay.
    """
    if gather is None:
        gather = selected.device.type != "cpu" or torch.compiler.is_compiling()
    run = _gathered(experts, selected) if gather else _named(experts, selected)
    batch, k = selected.shape
    factors = weights.gather(-1, selected).flatten().split(1)
    samples = zip(*([x] if batch == 1 else x.split(1) for x in inputs), strict=True)
    outputs = []
    for b, sample in enumerate(samples):
        # Eq. 6: g_i Dec_i
        parts = [factors[choice] * run(choice, list(sample)) for choice in range(b * k, b * k + k)]
        outputs.append(sum(parts[1:], parts[0]))
    return outputs[0] if batch == 1 else torch.cat(outputs)


def _named(experts: Sequence[nn.Module], selected: Tensor) -> Run:
    chosen = [experts[index] for index in selected.flatten().tolist()]
    return lambda choice, sample: chosen[choice](sample)


def _gathered(experts: Sequence[nn.Module], selected: Tensor) -> Run:
    shapes = {name: parameter.shape for name, parameter in experts[0].named_parameters()}
    # One row per expert, so that two operations gather all layers; in the order of channels-last kernels.
    rows = torch.cat([_last(parameter).flatten() for expert in experts for parameter in expert.parameters()])
    chosen = rows.view(len(experts), -1).index_select(0, selected.flatten()).unbind()

    def run(choice: int, sample: list[Tensor]) -> Tensor:
        pieces = chosen[choice].split([shape.numel() for shape in shapes.values()])
        parameters = {
            name: _second(piece, shape) for (name, shape), piece in zip(shapes.items(), pieces, strict=True)
        }
        output: Tensor = functional_call(experts[0], parameters, (sample,))
        return output

    return run


def _last(parameter: Tensor) -> Tensor:
    """The second axis of a kernel behind the others: as it lies in memory, if that is channels-last."""
    return parameter.movedim(1, -1) if parameter.ndim > 1 else parameter


def _second(row: Tensor, shape: torch.Size) -> Tensor:
    """A kernel of this shape from what `_last` made of it."""
    return row.view(shape[0], *shape[2:], shape[1]).movedim(-1, 1) if len(shape) > 1 else row


def mix_all_experts(
    experts: Sequence[nn.Module], inputs: list[Tensor], weights: Tensor, selected: Tensor
) -> Tensor:
    """The same sum computed the plain way: every expert runs on every sample. The reference for tests."""
    outputs = torch.stack([expert(inputs) for expert in experts], 1)
    chosen = torch.zeros_like(weights).scatter(-1, selected, 1.0)
    factor = (weights * chosen).reshape(*weights.shape, *[1] * (outputs.ndim - 2))
    return (factor * outputs).sum(1)
