"""Volumes are reconstructed slice by slice, scored as fastMRI scores them, and stored with their protocol."""

import json
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from fastmri import evaluate as theirs
from torch import Tensor, nn

from morelib.data.batches import Batch
from morelib.data.dataset import Slice, SliceDataset
from morelib.data.index import find_volumes
from morelib.data.readers import read_info
from morelib.data.volume import CATEGORIES, VolumeInfo
from morelib.errors import UserError
from morelib.evaluation.evaluate import (
    ZeroFilled,
    evaluate,
    protocol,
    reconstruct_volume,
    write_metrics,
)
from morelib.evaluation.scores import VolumeScore
from morelib.nn import Reconstruction
from morelib.physics.fourier import centre_crop, ifft2c
from morelib.training.processes import launch
from tests.pair import Pair


def dataset_of(volumes: list[VolumeInfo], **options: object) -> SliceDataset:
    return SliceDataset(volumes, **{"acceleration": 4, "center_fraction": 0.08} | options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def dataset(fastmri_files: Path) -> SliceDataset:
    return dataset_of(find_volumes(fastmri_files))


class Scaled(nn.Module):
    """A model with one weight: the zero-filled image, scaled."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale))

    def forward(self, kspace: Tensor, mask: Tensor, n_acs: int | None = None) -> Reconstruction:
        assert not self.training
        assert not torch.is_grad_enabled()
        return Reconstruction(self.scale * ZeroFilled()(kspace, mask).image, None)


def test_zero_filled_scores_are_fastmris(dataset: SliceDataset) -> None:
    scores = evaluate(ZeroFilled(), dataset)
    assert [score.volume for score in scores] == [volume.name for volume in dataset.volumes]
    for number, score in enumerate(scores):
        slices = [dataset[item] for item in dataset.items_of(number)]
        target = torch.stack([item.target for item in slices]).numpy()
        images = torch.stack([ifft2c(item.kspace).abs().square().sum(0).sqrt() for item in slices])
        prediction = centre_crop(images, target.shape[1:]).numpy()
        assert score.psnr == pytest.approx(float(theirs.psnr(target, prediction)), abs=1e-6)
        assert score.ssim == pytest.approx(float(theirs.ssim(target, prediction)[0]), abs=1e-6)
        assert score.nmse == pytest.approx(float(theirs.nmse(target, prediction)), abs=1e-6)
        assert score.acceleration == slices[0].net_acceleration
        assert 10 < score.psnr < 40


def test_fully_sampled_zero_filled_is_the_target(dataset: SliceDataset) -> None:
    full = dataset_of(list(dataset.volumes[:1]), acceleration=1, center_fraction=0.5, mask_kind="random")
    prediction, target = reconstruct_volume(ZeroFilled(), full)
    np.testing.assert_allclose(prediction, target, rtol=1e-4, atol=1e-9)


def test_module_runs_in_evaluation_mode_and_comes_back(dataset: SliceDataset) -> None:
    model = Scaled(1.0).train()
    assert evaluate(model, dataset)[0] == evaluate(ZeroFilled(), dataset)[0]
    assert model.training


def test_callbacks_see_every_slice_and_volume(dataset: SliceDataset) -> None:
    seen: list[int] = []
    progress: list[tuple[int, int]] = []

    def on_slice(batch: Batch, output: Reconstruction) -> None:
        assert output.image.shape == (1, *batch.kspace.shape[-2:])
        seen.append(batch.index[0])

    reconstruct_volume(ZeroFilled(), [dataset[item] for item in dataset.items_of(1)], on_slice=on_slice)
    assert seen == list(range(dataset.volumes[1].n_slices))
    evaluate(ZeroFilled(), dataset, progress=lambda done, total: progress.append((done, total)))
    assert progress == [(number, len(dataset.volumes)) for number in range(1, len(dataset.volumes) + 1)]


def test_prediction_that_is_not_finite_names_the_slice(dataset: SliceDataset) -> None:
    name = dataset.volumes[0].name
    with pytest.raises(UserError, match=f"{name}: the reconstruction of slice 0 holds NaN"):
        evaluate(Scaled(float("nan")), dataset)


def test_target_wider_than_kspace_is_cropped_like_fastmri(
    tmp_path: Path, write_file: Callable[..., Path]
) -> None:
    path = write_file(tmp_path / "wide.h5", "AXFLAIR", "anna")
    with h5py.File(path, "a") as file:
        del file["reconstruction_rss"]
        file["reconstruction_rss"] = np.ones((2, 24, 40), np.float32)
    data = dataset_of([read_info(path)])
    prediction, target = reconstruct_volume(ZeroFilled(), data)
    assert prediction.shape == target.shape == (2, 24, 32)


def test_volumes_that_cannot_be_scored(tmp_path: Path, write_file: Callable[..., Path]) -> None:
    dark, masked = (write_file(tmp_path / name, "AXT2", "anna") for name in ("dark.h5", "masked.h5"))
    with h5py.File(dark, "a") as file:
        file["reconstruction_rss"][...] = 0
    with h5py.File(masked, "a") as file:
        del file["reconstruction_rss"]
        file["mask"] = np.ones(32)
    with pytest.raises(UserError, match=r"dark\.h5: the target is zero"):
        evaluate(ZeroFilled(), dataset_of([read_info(dark)]))
    with pytest.raises(UserError, match=r"masked\.h5: undersampled file without a target"):
        evaluate(ZeroFilled(), dataset_of([read_info(masked)]))
    prediction, _ = reconstruct_volume(ZeroFilled(), dataset_of([read_info(masked)]))
    assert prediction.shape == (2, 24, 24)


def test_training_datasets_are_refused(dataset: SliceDataset) -> None:
    with pytest.raises(ValueError, match="train=False"):
        evaluate(ZeroFilled(), dataset_of(list(dataset.volumes), train=True))


def test_metrics_file_round_trip(dataset: SliceDataset, tmp_path: Path) -> None:
    scores = evaluate(ZeroFilled(), dataset)
    described = protocol(dataset, "test")
    write_metrics(tmp_path / "metrics.json", scores, described)
    content = json.loads((tmp_path / "metrics.json").read_text())
    assert content["protocol"] == described
    assert [VolumeScore(**volume) for volume in content["volumes"]] == scores
    assert list(content["means"]) == [*CATEGORIES, "mean"]
    assert content["means"]["AXT2"]["n_volumes"] == 2
    assert described["origin"] == "synthetic"
    assert (described["n_volumes"], described["n_patients"]) == (14, 12)
    assert described["nominal_acceleration"] == 4
    assert 2 < described["mean_net_acceleration"] < 5


class Noting(SliceDataset):
    """Notes the volumes that are read."""

    seen: set[str]

    def __getitem__(self, item: int) -> Slice:
        read = super().__getitem__(item)
        self.seen.add(read.volume)
        return read


def _evaluate(rank: int, volumes: list[VolumeInfo]) -> tuple[list[VolumeScore], set[str]]:
    launch()
    dataset = Noting(volumes, acceleration=4, center_fraction=0.08)
    dataset.seen = set()
    return evaluate(ZeroFilled(), dataset), dataset.seen


def test_processes_share_the_volumes_and_all_have_the_same_scores(pair: Pair, dataset: SliceDataset) -> None:
    volumes = list(dataset.volumes[:5])
    (first, of_first), (second, of_second) = pair(_evaluate, volumes)
    assert first == second == evaluate(ZeroFilled(), dataset_of(volumes))
    assert of_first == {volume.name for volume in volumes[::2]}
    assert of_second == {volume.name for volume in volumes[1::2]}
