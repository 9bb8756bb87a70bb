"""Choosing the one weight of a classical system, on validation data."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch

from morelib.data.dataset import SliceDataset
from morelib.errors import UserError
from morelib.evaluation.evaluate import Model, evaluate


class Tuning(NamedTuple):
    """The weight of the highest mean PSNR, and what each was tried with: weight to mean PSNR over volumes, in dB.

    A best weight at an end of the curve asks for a wider grid.
    """

    weight: float
    curve: dict[float, float]


def tune(
    make: Callable[[float], Model],
    weights: Sequence[float],
    dataset: SliceDataset,
    device: torch.device | str = "cpu",
) -> Tuning:
    """Try `make(weight)`, such as `CgSense`, on the volumes of `dataset` for every weight.

    `dataset` holds validation volumes, never those that results are reported on, and at evaluation's masks: raises
    ValueError for a training dataset, UserError for no weights and what `evaluate` raises.
    """
    if not weights:
        raise UserError("tune: no weights to try; give at least one")
    curve = {
        weight: float(np.mean([score.psnr for score in evaluate(make(weight), dataset, device)]))
        for weight in weights
    }
    return Tuning(max(curve, key=lambda weight: curve[weight]), curve)
