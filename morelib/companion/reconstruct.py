"""One file in, one file and one picture out: what `morelib reconstruct` does."""

from pathlib import Path

import h5py
import numpy as np

from morelib.companion.figures.images import Panel, image_grid
from morelib.companion.figures.style import system_name
from morelib.data import SliceDataset, read_info
from morelib.data.dataset import MASK_KINDS
from morelib.errors import UserError
from morelib.evaluation import ZeroFilled, best_device, reconstruct_volume
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
    """Reconstruct the volume `source`, in any known layout, with the network of the run folder `run`.

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
    seen = dataset.seen_by(model)
    prediction, target = reconstruct_volume(model, (seen[index] for index in range(len(seen))), best_device())
    middle, net = info.n_slices // 2, dataset.mask(0).acceleration
    zero_filled, _ = reconstruct_volume(ZeroFilled(), [dataset[middle]])
    about = {
        "acquisition": info.acquisition,
        "model": config["model"]["name"],
        "run": str(run),
        "net_acceleration": net,
        "max": float(prediction.max()),
        "note": "research use only, not for clinical use",
    }
    with atomic_path(out) as temporary, h5py.File(temporary, "w") as file:
        file.create_dataset("reconstruction", data=prediction)
        file.attrs.update(about)
    picture = out.with_suffix(".png")
    grey = float(np.percentile(target[middle] if info.has_target else prediction[middle], 99.5))
    panels = [
        Panel(zero_filled[0], f"zero-filled, {net:.1f}×", grey),
        Panel(prediction[middle], f"{system_name(about['model'])}, slice {middle}", grey),
    ]
    if info.has_target:
        error = np.abs(prediction[middle] - target[middle])
        panels += [
            Panel(target[middle], "target", grey),
            Panel(error, f"error × {ERROR_GAIN}", grey / ERROR_GAIN, "inferno"),
        ]
    figure = image_grid([panels])
    with atomic_path(picture) as temporary:
        figure.savefig(temporary, dpi=120)
    return picture
