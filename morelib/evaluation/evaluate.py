"""Reconstructing whole volumes, scoring them, and the file `metrics.json` that keeps scores with their protocol."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from morelib.data.batches import Batch, collate
from morelib.data.dataset import Slice, SliceDataset
from morelib.errors import UserError
from morelib.evaluation.metrics import nmse, psnr, ssim
from morelib.evaluation.scores import VolumeScore
from morelib.evaluation.statistics import means_by_category
from morelib.files import write_json
from morelib.nn import Reconstruction
from morelib.nn.graphs import Replayed, copied, recordable
from morelib.physics.fourier import centre_crop, ifft2c
from morelib.physics.sense import rss

Model = Callable[..., Reconstruction]
OnSlice = Callable[[Batch, Reconstruction], None]
Progress = Callable[[int, int], None]


def best_device() -> str:
    """`cuda` where there is a GPU, else `cpu`."""
    return "cuda" if torch.cuda.is_available() else "cpu"


class ZeroFilled:
    """The reconstruction without a network: root sum of squares of the coil images of what was sampled."""

    def __call__(
        self, kspace: Tensor, mask: Tensor, n_acs: int | None = None, sens_maps: Tensor | None = None
    ) -> Reconstruction:
        """K-space (batch, coil, y, x) to `.image` (batch, y, x); the other arguments are those of every model."""
        return Reconstruction(rss(ifft2c(kspace)), None)


def reconstruct_volume(
    model: Model, slices: Iterable[Slice], device: torch.device | str = "cpu", on_slice: OnSlice | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Reconstruct slices of one volume, one at a time: (prediction, target), both float32 (slices, h, w).

    Both are centre-cropped to the smaller size of the two along each axis, as fastMRI does. A module is moved
    to `device` and run in evaluation mode. `on_slice(batch, output)` sees every slice's output, routing records
    included. Raises UserError for a prediction that is not finite, naming the slice.
    """
    predictions, targets = [], []
    with ready(model, device) as run:
        for item in slices:
            batch = collate([item]).to(device)
            output = run(batch.kspace, batch.mask, n_acs=batch.n_acs)
            image = output.image[0].float().cpu()
            if not bool(torch.isfinite(image).all()):
                raise UserError(
                    f"{item.volume}: the reconstruction of slice {item.index} holds NaN or infinite values;"
                    " use other weights, or train again with a lower learning rate"
                )
            if on_slice is not None:
                on_slice(batch, output)
            prediction = centre_crop(image, (item.target.shape[0], item.target.shape[1]))
            predictions.append(prediction.numpy())
            targets.append(centre_crop(item.target, (prediction.shape[0], prediction.shape[1])).numpy())
    return np.stack(predictions), np.stack(targets)


@contextmanager
def ready(model: Model, device: torch.device | str) -> Iterator[Model]:
    """`model` as it reconstructs: a module on `device` in evaluation mode, without gradients, afterwards as it was.

    Where that is possible, passes are recorded as CUDA graphs and replayed, see `morelib.nn.graphs`.
    """
    training = isinstance(model, nn.Module) and model.training
    if isinstance(model, nn.Module):
        model.to(device).eval()
    replayed = Replayed(model) if recordable(model, device) else None
    try:
        with torch.inference_mode():
            yield model if replayed is None else lambda *x, **settings: copied(replayed(*x, **settings))
    finally:
        if isinstance(model, nn.Module):
            model.train(training)


def evaluate(
    model: Model,
    dataset: SliceDataset,
    device: torch.device | str = "cpu",
    *,
    progress: Progress | None = None,
) -> list[VolumeScore]:
    """Score every volume of `dataset`, holding one volume in memory at a time.

    `progress(done, total)` is called after each volume. Where several processes run together (torch.distributed), all
    must call this: each reconstructs its share of the volumes and returns the scores of all. Raises UserError for
    volumes without a usable target and predictions that are not finite, and ValueError for a training dataset, whose
    masks change.
    """
    if dataset.train:
        raise ValueError(
            "evaluate needs SliceDataset(..., train=False): training masks change from slice to slice"
        )
    dataset = dataset.seen_by(model)
    together = dist.is_initialized()
    rank, processes = (dist.get_rank(), dist.get_world_size()) if together else (0, 1)
    share = range(rank, len(dataset.volumes), processes)
    # A row for each volume, zeros where another process fills it in: their sum is exact, and in order.
    numbers = torch.zeros(len(dataset.volumes), 4, dtype=torch.float64)
    with ready(model, device) as run:
        for done, number in enumerate(share, start=1):
            info, items = dataset.volumes[number], dataset.items_of(number)
            if not info.has_target:
                raise UserError(
                    f"{info.path}: undersampled file without a target; use `morelib reconstruct` for it"
                )
            prediction, target = reconstruct_volume(run, (dataset[item] for item in items), device)
            if not target.any():
                raise UserError(
                    f"{info.path}: the target is zero everywhere, nothing to score; leave the file out"
                )
            row = [
                dataset.mask(items[0]).acceleration,
                *(score(target, prediction) for score in (psnr, ssim, nmse)),
            ]
            numbers[number] = torch.tensor(row, dtype=numbers.dtype)
            if progress is not None:
                progress(done, len(share))
    if together:
        numbers = numbers.to("cuda" if dist.get_backend() == "nccl" else "cpu")
        dist.all_reduce(numbers)
    return [
        VolumeScore(
            volume=info.name,
            acquisition=info.acquisition,
            patient=info.patient,
            n_slices=info.n_slices,
            acceleration=row[0],
            psnr=row[1],
            ssim=row[2],
            nmse=row[3],
            origin=info.origin,
        )
        for info, row in zip(dataset.volumes, numbers.tolist(), strict=True)
    ]


def protocol(dataset: SliceDataset, split: str) -> dict[str, Any]:
    """What a reader must know beside the numbers: data, masks, crop, metrics. JSON-ready."""
    net = [dataset.mask(dataset.items_of(number)[0]).acceleration for number in range(len(dataset.volumes))]
    return {
        "split": split,
        "origin": " and ".join(sorted({volume.origin for volume in dataset.volumes})),
        "n_volumes": len(dataset.volumes),
        "n_patients": len({volume.patient for volume in dataset.volumes}),
        "mask": dict(dataset.mask_kind),
        "mask_seed": "file name, as in fastMRI",
        "nominal_acceleration": dataset.acceleration,
        "mean_net_acceleration": float(np.mean(net)),
        "center_fraction": dataset.center_fraction,
        "crop": "centre crop to the target's size, as in fastMRI",
        "metrics": "per volume, data range = maximum of the target volume, SSIM 7x7 uniform, as in fastmri.evaluate",
    }


def write_metrics(path: Path | str, scores: Sequence[VolumeScore], protocol: dict[str, Any]) -> None:
    """Write `metrics.json`: {"protocol", "means" by acquisition, "volumes"}."""
    means = {category: asdict(mean) for category, mean in means_by_category(scores).items()}
    write_json(path, {"protocol": protocol, "means": means, "volumes": [asdict(score) for score in scores]})
