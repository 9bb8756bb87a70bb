"""One file in, one file and one picture out: what `morelib reconstruct` does."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from matplotlib.figure import Figure

from morelib.data import SliceDataset, read_info
from morelib.data.dataset import MASK_KINDS
from morelib.errors import UserError
from morelib.evaluation import ZeroFilled, reconstruct_volume
from morelib.files import atomic_path
from morelib.training import load_run

ERROR_GAIN = 5  # errors are small: the last panel shows them this much brighter


def reconstruct_file(
    source: Path,
    out: Path,
    run: Path,
    *,
    acceleration: float | None = None,
    center_fraction: float | None = None,
) -> Path:
    """Reconstruct the fastMRI-layout file `source` with the network of the run folder `run`.

    A fully sampled file is undersampled first, with the mask of the training run unless `acceleration` or
    `center_fraction` are given; an undersampled one keeps its own. `out` receives the dataset `reconstruction`
    (slices, h, w) float32 in the units of k-space, and its attributes say how it was made.

    Returns:
        The picture beside `out`: zero-filled, reconstruction and, where `source` has a target, target and error
        of the middle slice.

    Raises:
        UserError: a file or run folder is missing or unusable, or `out` would overwrite `source`.
    """
    if source.resolve() == out.resolve():
        raise UserError(f"{out}: is the input file; choose another output")
    info = read_info(source)
    model, config = load_run(run)
    trained_with = config.get("mask", {})
    dataset = SliceDataset(
        [info],
        {anatomy: trained_with.get(anatomy, kind) for anatomy, kind in MASK_KINDS.items()},
        acceleration or trained_with.get("acceleration", 8),
        center_fraction or trained_with.get("center_fraction", 0.04),
    )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    slices = [dataset[index] for index in range(len(dataset))]
    prediction, target = reconstruct_volume(model, slices, device)
    middle = len(slices) // 2
    zero_filled, _ = reconstruct_volume(ZeroFilled(), slices[middle : middle + 1])
    about = {
        "acquisition": info.acquisition,
        "model": config["model"]["name"],
        "run": str(run),
        "net_acceleration": slices[0].net_acceleration,
        "max": float(prediction.max()),
        "note": "research use only, not for clinical use",
    }
    with atomic_path(out) as temporary, h5py.File(temporary, "w") as file:
        file.create_dataset("reconstruction", data=prediction)
        file.attrs.update(about)
    picture = out.with_suffix(".png")
    panels = {"zero-filled": zero_filled[0], f"{about['model']}": prediction[middle]}
    if info.has_target:
        panels["target"] = target[middle]
        panels[f"error × {ERROR_GAIN}"] = ERROR_GAIN * np.abs(prediction[middle] - target[middle])
    figure = _panels(
        panels, f"{info.name}, slice {middle}, net acceleration {slices[0].net_acceleration:.1f}"
    )
    with atomic_path(picture) as temporary:
        figure.savefig(temporary)
    return picture


def _panels(images: dict[str, Any], title: str) -> Figure:
    """Images side by side on one grey scale."""
    figure = Figure(figsize=(3 * len(images), 3.4), dpi=120, layout="constrained")
    reference = images.get("target", next(iter(images.values())))
    brightest = float(np.quantile(reference, 0.999)) or 1.0
    for axes, (name, image) in zip(figure.subplots(1, len(images)), images.items(), strict=True):
        axes.imshow(image, cmap="gray", vmin=0, vmax=brightest)
        axes.set_title(name, fontsize=10)
        axes.set_axis_off()
    figure.suptitle(title, fontsize=9)
    return figure
