"""Arithmetic with one number per channel, on maps (batch, channels, y, x) that lie channels-last in memory.

PyTorch runs over the innermost axis at one go. Where that is 8 channels, most of the time goes into starting over. Here
it is a whole row, its pixels' channels one after the other, and the numbers are repeated for each pixel: four times as
fast on a processor. With `AT_ONCE` channels, or on a GPU, there is nothing to win, and maps stay maps.
"""

import torch
from torch import Tensor

AT_ONCE = 16  # numbers that a processor computes at a time


def rows(maps: Tensor) -> Tensor:
    """Maps with few channels as (batch, y, x * channels): a view if they lie channels-last, else a copy."""
    return maps if _stay(maps) else maps.movedim(1, -1).flatten(2)


def as_maps(result: Tensor, like: Tensor) -> Tensor:
    """What `rows` made of maps of the shape of `like`, as maps again."""
    return result if _stay(like) else result.unflatten(2, (like.shape[3], like.shape[1])).movedim(-1, 1)


def per_channel(numbers: Tensor, like: Tensor) -> Tensor:
    """Numbers (batch, channels, 1, 1), to be used with the `rows` of maps of the shape of `like`."""
    return numbers if _stay(like) else numbers.flatten(1).repeat(1, like.shape[3]).unsqueeze(1)


def line_sums(maps: Tensor) -> Tensor:
    """The sum over y, (batch, x, channels), of lines taken as one axis each: five times as fast with 20 channels."""
    lines = maps.movedim(1, -1)
    return lines.flatten(2).sum(1).view_as(lines[:, 0])


def pixel_sums(maps: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """The sum over (y, x), (batch, channels)."""
    if maps.is_cuda or len(maps) > 1:
        return maps.sum((-2, -1), dtype=dtype)
    return line_sums(maps).sum(1, dtype=dtype)


def _stay(maps: Tensor) -> bool:
    return maps.is_cuda or maps.shape[1] >= AT_ONCE
