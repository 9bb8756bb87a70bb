"""The paper's dummy batch: recent router inputs, kept so that the router losses see more than one sample."""

from collections import deque
from itertools import chain

import torch
from torch import Tensor

from morelib.routing.router import centre_window

Size = tuple[int, ...]  # of one entry: (channels, y, x)


class InputCache:
    """First in, first out store of detached router inputs (Sec. III-B3).

    Entries are cropped about their centre to at most `window`, because images of different size give router inputs of
    different size. They are routed again in each step with the current weights; no decoder runs for them.

    What was pushed last waits in a place of its own until the next step asks for the entries. So the entries may be
    looked at by a backward pass as they are, without a copy; and as long as all have one size, everything stays where
    it is in memory, and a step can be captured as a CUDA graph.

    Args:
        capacity: how many inputs are kept; 0 switches the cache off. The paper calls it K, which is taken by top-K.
        window: largest (y, x) size of an entry.
    """

    def __init__(self, capacity: int = 16, window: tuple[int, int] = (40, 40)) -> None:
        self.capacity = capacity
        self.window = window
        self.moved = 0  # how often the entries went to another place in memory
        self._order: deque[Size] = deque()  # the size of each entry, oldest first
        self._entries: dict[Size, Tensor] = {}  # those of one size, (n, channels, y, x), oldest first
        self._pushed: Tensor | None = None
        self._waiting = False

    def __len__(self) -> int:
        return len(self.state())

    def push(self, inputs: Tensor) -> None:
        """Store each sample of a router batch (batch, channels, y, x)."""
        if not self.capacity:
            return
        self._settle()
        new = centre_window(inputs.detach(), self.window)[-self.capacity :]
        if self._pushed is not None and self._pushed.shape == new.shape:
            self._pushed.copy_(new)
        else:
            # As the router's convolutions want it: entries in another order would be copied in every step.
            self._pushed = new.clone(memory_format=torch.channels_last)
            self.moved += 1
        self._waiting = True

    def batches(self, first: Tensor | None = None) -> list[list[Tensor]]:
        """All entries by size: a list of batches, each a list of (n, channels, y, x) that differ in n only.

        The samples of `first` (batch, channels, y, x), where given, lead the first batch.
        """
        self._settle()
        by_size = {} if first is None else {tuple(first.shape[1:]): [first]}
        for size, entries in self._entries.items():
            by_size.setdefault(size, []).append(entries)
        return list(by_size.values())

    def state(self) -> list[Tensor]:
        """The entries, oldest first, for a checkpoint that resumes exactly."""
        left = {size: iter(entries) for size, entries in self._entries.items()}
        settled = (next(left[size]) for size in self._order)
        waiting = () if self._pushed is None or not self._waiting else self._pushed
        return [*chain(settled, waiting)][-self.capacity :] if self.capacity else []

    def load_state(self, entries: list[Tensor]) -> None:
        """Restore what `state` gave."""
        kept = entries[-self.capacity :] if self.capacity else []
        sizes = [tuple(entry.shape) for entry in kept]
        self._order = deque(sizes)
        self._entries = {
            size: torch.stack([entry for entry in kept if tuple(entry.shape) == size]).contiguous(
                memory_format=torch.channels_last
            )
            for size in dict.fromkeys(sizes)
        }
        self._waiting = False
        self.moved += 1

    def _settle(self) -> None:
        """What waits becomes the youngest entries, and the oldest leave."""
        if not self._waiting:
            return
        assert self._pushed is not None
        self._waiting = False
        new, size = self._pushed, tuple(self._pushed.shape[1:])
        surplus = max(len(self._order) + len(new) - self.capacity, 0)
        leaving = [self._order.popleft() for _ in range(surplus)]
        self._order.extend([size] * len(new))
        for other in {*leaving, size}:
            entries = self._entries.get(other, new[:0])
            kept = entries[leaving.count(other) :]
            if other == size:
                kept = torch.cat([kept, new])
            if kept.shape == entries.shape:
                entries.copy_(kept)
                continue
            self.moved += 1
            if len(kept):
                self._entries[other] = kept
            else:
                del self._entries[other]
