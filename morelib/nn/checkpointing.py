"""Activation checkpointing: less memory in training, paid for with a second forward pass."""

from collections.abc import Callable
from typing import TypeVar

import torch
from torch.utils.checkpoint import checkpoint

T = TypeVar("T")


def run(checkpointing: bool, function: Callable[..., T], *inputs: object) -> T:
    """`function(*inputs)`; with `checkpointing` its activations are forgotten and computed again for the gradient.

    An unrolled network of 12 cascades keeps the activations of 12 U-Nets until the backward pass. Checkpointed, each
    cascade keeps its inputs only, and the backward pass holds the activations of one cascade at a time.

    The second run must see what the first one saw. So nothing that `function` reads may be changed in place after it
    was read: a list that every cascade extends would show the recomputation its final contents, and the gradients
    would be wrong without a word, because the forward pass is right. Hand tuples on, never lists. Random numbers are
    safe: PyTorch puts their state back before the second run.
    """
    if not (checkpointing and torch.is_grad_enabled()):  # nothing to forget where nothing is kept
        return function(*inputs)
    return checkpoint(function, *inputs, use_reentrant=False)
