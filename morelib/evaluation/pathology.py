"""The error inside boxes of pathology beside the error of the whole volume.

A network can score well on the whole volume and still smooth a lesion away: the boxes are a small part of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from morelib.data.dataset import SliceDataset
from morelib.data.pathology import Box, read_boxes
from morelib.data.readers import fastmri
from morelib.errors import UserError
from morelib.evaluation.evaluate import Model, ready, reconstruct_volume
from morelib.evaluation.metrics import Volume, nmse, psnr

WHOLE = "whole volume"


@dataclass(frozen=True)
class RegionError:
    """Error over the pixels of `n_boxes` boxes of one label; none for the whole volume.

    A pixel in several boxes counts once. NMSE is NaN where the target is zero all over the boxes; PSNR (dB) has
    the maximum of the whole volume as its data range, so that it compares with the volume's.
    """

    label: str
    n_boxes: int
    n_pixels: int
    nmse: float
    psnr: float


def region_errors(target: Volume, prediction: Volume, boxes: Sequence[Box]) -> list[RegionError]:
    """Errors of the whole volume first, then of every label, in order of the alphabet.

    Args:
        target: (slices, h, w), not zero everywhere.
        prediction: of the same shape.
        boxes: in pixels of the target, as `read_boxes` gives them.

    Raises:
        ValueError: the volumes do not fit together, or the target is zero everywhere.
        UserError: a box does not lie in the volume.
    """
    whole = RegionError(WHOLE, 0, target.size, nmse(target, prediction), psnr(target, prediction))
    maximum = float(target.max())
    errors = [whole]
    for label in sorted({box.label for box in boxes}):
        chosen = [box for box in boxes if box.label == label]
        inside = np.zeros(target.shape, bool)
        for box in chosen:
            inside[_region(box, target.shape)] = True
        there, found = target[None, None, inside], prediction[None, None, inside]
        # A region may be black; its squared error is still the error, but relative to nothing.
        relative = nmse(there, found) if there.any() else float("nan")
        mse = float(np.mean((there - found) ** 2, dtype=np.float64))
        decibels = 10 * np.log10(maximum**2 / mse) if mse else float("inf")
        errors.append(RegionError(label, len(chosen), int(inside.sum()), relative, float(decibels)))
    return errors


def mean_region_errors(
    model: Model, dataset: SliceDataset, device: torch.device | str = "cpu"
) -> list[RegionError]:
    """The errors of `region_errors`, each averaged over the volumes of `dataset` that have its label.

    Volumes without boxes are left out; `n_boxes` and `n_pixels` are sums. Empty where no volume has boxes.
    """
    dataset = dataset.seen_by(model)
    found: dict[str, list[RegionError]] = {}
    with ready(model, device) as run:
        for number, info in enumerate(dataset.volumes):
            boxes = read_boxes(info.path) if info.layout == fastmri.LAYOUT else []
            if boxes:
                items = (dataset[item] for item in dataset.items_of(number))
                prediction, target = reconstruct_volume(run, items, device)
                for error in region_errors(target, prediction, boxes):
                    found.setdefault(error.label, []).append(error)
    return [
        RegionError(
            label,
            sum(error.n_boxes for error in errors),
            sum(error.n_pixels for error in errors),
            float(np.mean([error.nmse for error in errors])),
            float(np.mean([error.psnr for error in errors])),
        )
        for label, errors in found.items()
    ]


def _region(box: Box, shape: tuple[int, ...]) -> tuple[int, slice, slice]:
    """The box as an index into a volume of `shape`."""
    slices, h, w = shape
    if not (box.slice < slices and box.y + box.height <= h and box.x + box.width <= w):
        raise UserError(
            f"pathology: {box} lies outside a volume of {slices} slices of {h} x {w}; take the boxes and the"
            " volume from the same file"
        )
    return box.slice, slice(box.y, box.y + box.height), slice(box.x, box.x + box.width)
