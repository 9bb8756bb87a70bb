"""CUDA graphs: what a GPU does for a batch, recorded once and replayed for every other batch of its shape.

An unrolled network is thousands of small operations. A GPU has done each before Python asks for the next, and waits
for Python most of the time; a recorded graph is started by one call.
"""

from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

MOST = 64  # recordings: each keeps its kernels' arguments, inputs and outputs on the GPU


class Replayed:
    """`function(*tensors, **settings)`, recorded for each shape of its inputs and each setting, then replayed.

    A shape is recorded when it comes a second time: one that comes once is not worth it, and a first call prepares
    what may not happen while recording. Of more than `MOST` shapes the later ones just run. What is replayed are
    kernels, not Python: so `function` may not look at values of tensors, and what it reads or changes beside its inputs
    (weights, cached inputs) must be tensors that stay where they are in memory.

    Args:
        function: GPU tensors in, any tree of tensors out.
        place: a number that changes when what `function` reads has moved in memory; recordings are then made anew.

    What a call returns is valid until the next call: `copied` keeps it.
    """

    def __init__(self, function: Callable[..., Any], place: Callable[[], Hashable] = lambda: None) -> None:
        self.function, self.place = function, place
        self._at: Hashable = None
        self._seen: set[Hashable] = set()
        self._recordings: dict[Hashable, _Recording] = {}
        self._pool: Any = None

    def __call__(self, *inputs: Tensor, **settings: Hashable) -> Any:
        if (at := self.place()) != self._at:
            self._at = at
            self._seen.clear()
            self._recordings.clear()
            self._pool = None  # its memory went with the last of them
        key = (*((x.shape, x.dtype) for x in inputs), *sorted(settings.items()), torch.is_grad_enabled())
        if key not in self._recordings:
            if key not in self._seen or len(self._recordings) == MOST:
                self._seen.add(key)
                return self.function(*inputs, **settings)
            self._pool = self._pool or torch.cuda.graph_pool_handle()
            self._recordings[key] = _Recording(lambda *x: self.function(*x, **settings), inputs, self._pool)
        return self._recordings[key].replay(inputs)


class _Recording:
    def __init__(self, function: Callable[..., Any], inputs: tuple[Tensor, ...], pool: Any) -> None:
        self.inputs = [x.clone() for x in inputs]
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph, pool=pool):
            self.outputs = function(*self.inputs)

    def replay(self, inputs: tuple[Tensor, ...]) -> Any:
        for own, given in zip(self.inputs, inputs, strict=True):
            own.copy_(given)
        self.graph.replay()
        return self.outputs


def copied(tree: Any) -> Any:
    """A tree of tensors with memory of its own."""
    return tree_map_only(Tensor, torch.clone, tree)


def recordable(model: object, device: torch.device | str) -> bool:
    """Whether passes of `model` on `device` can be recorded: on a GPU, if nothing in it waits for a value.

    Not while hooks listen to its modules: they are Python, and would hear nothing.
    """
    if torch.device(device).type != "cuda" or not isinstance(model, nn.Module):
        return False
    return not any(
        getattr(module, "waits_for_values", False) or module._forward_hooks or module._forward_pre_hooks
        for module in model.modules()
    )
