"""The paper's dummy batch: recent router inputs, kept so that the router losses see more than one sample."""

from collections import deque

import torch
from torch import Tensor

from morelib.routing.router import centre_window


class InputCache:
    """First in, first out store of detached router inputs (Sec. III-B3).

    Entries are cropped about their centre to at most `window`, because images of different size give router inputs of
    different size. They are routed again in each step with the current weights; no decoder runs for them.

    Args:
        capacity: how many inputs are kept; 0 switches the cache off. The paper calls it K, which is taken by top-K.
        window: largest (y, x) size of an entry.
    """

    def __init__(self, capacity: int = 16, window: tuple[int, int] = (40, 40)) -> None:
        self.capacity = capacity
        self.window = window
        self.entries: deque[Tensor] = deque(maxlen=capacity)

    def push(self, inputs: Tensor) -> None:
        """Store each sample of a router batch (batch, channels, y, x)."""
        for sample in centre_window(inputs.detach(), self.window):
            self.entries.append(sample.clone())

    def batches(self, first: Tensor | None = None) -> list[Tensor]:
        """All entries, stacked by equal size, oldest first: a list of (n, channels, y, x).

        The samples of `first` (batch, channels, y, x), where given, lead the first batch.
        """
        by_size: dict[tuple[int, ...], list[Tensor]] = {}
        for entry in (*(() if first is None else first), *self.entries):
            by_size.setdefault(tuple(entry.shape), []).append(entry)
        return [torch.stack(group) for group in by_size.values()]

    def state(self) -> list[Tensor]:
        """The entries, oldest first, for a checkpoint that resumes exactly."""
        return list(self.entries)

    def load_state(self, entries: list[Tensor]) -> None:
        """Restore what `state` gave."""
        self.entries = deque(entries, maxlen=self.capacity)
