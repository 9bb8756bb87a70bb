"""Two processes train as one does: the same losses, the same stops, nobody waits for ever, and the run resumes."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from morelib.data.dataset import Slice, SliceDataset
from morelib.data.readers import read_info
from morelib.data.volume import VolumeInfo
from morelib.errors import UserError
from morelib.training import TrainConfig, load_run, train
from morelib.training.fit import validation_loss
from morelib.training.step import Diverged
from tests.pair import Pair

SMALL: dict[str, Any] = {"cascades": 2, "widths": (4, 6), "sens_widths": (2, 4)}
ROUTED = SMALL | {"n_experts": 3, "top_k": 1, "cached_inputs": 0}
PIXELS = {
    "cascades": 1,
    "blocks": 1,
    "width": 8,
    "state": 2,
    "drop_path": 0.0,
    "dropout": 0.0,
    "sens_widths": (2, 4),
}
CONFIG = TrainConfig(epochs=3, lr=1e-2, checkpoint_steps=1, tau=(0.0, 0.0), patience=10, workers=0)
Volumes = list[VolumeInfo]


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory, write_file: Callable[..., Path]) -> Volumes:
    """Four brains of 2 slices, two knees of 2, and one of each with 3, which two processes cannot share evenly."""
    folder, knee = tmp_path_factory.mktemp("volumes"), {"coils": 3, "phase": 33, "size": 25}
    kinds = (
        [("AXT2", {})] * 4
        + [("CORPD_FBK", knee)] * 2
        + [("AXT2", {"slices": 3}), ("CORPD_FBK", knee | {"slices": 3})]
    )
    return [
        read_info(write_file(folder / f"{number}.h5", kind, f"{number}", seed=number, **sizes))
        for number, (kind, sizes) in enumerate(kinds)
    ]


class Killed(BaseException):
    """Like Ctrl-C, but not confused with one."""


class DiesAt(SliceDataset):
    """Raises when slice number `die_after` is read."""

    die_after = 1000

    def __getitem__(self, item: int) -> Slice:
        if self.die_after == 0:
            raise Killed
        self.die_after -= 1
        return super().__getitem__(item)


class Poisoned(SliceDataset):
    """Its targets are not numbers, and its volumes say so."""

    def __getitem__(self, item: int) -> Slice:
        good = super().__getitem__(item)
        return replace(good, target=torch.full_like(good.target, torch.nan), volume=f"poisoned {good.volume}")


def run(
    rank: int, volumes: Volumes, folder: Path, config: TrainConfig, name: str = "more",
    options: dict[str, Any] = ROUTED, die_after: int = 1000, poisoned: int | None = None,
) -> list[dict[str, Any]]:  # fmt: skip
    """Train on all volumes but the last two, validate on those; the lines of the log."""
    settings = {"acceleration": 3, "center_fraction": 0.2}
    kind = Poisoned if rank == poisoned else DiesAt
    train_set = kind(volumes[:-2], train=True, **settings)  # type: ignore[arg-type]
    train_set.die_after = die_after  # type: ignore[union-attr]
    train(
        name, options, train_set, SliceDataset(volumes[-2:], **settings), config, folder, show_progress=False
    )  # type: ignore[arg-type]
    return log(folder)


def log(folder: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    for line in lines:
        line.pop("seconds")
    return lines


def flat(value: Any) -> list[float]:
    if isinstance(value, dict):
        value = list(value.values())
    return [number for item in value for number in flat(item)] if isinstance(value, list) else [value]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("e2e_varnet", SMALL),
        ("more", ROUTED),
        ("more", ROUTED | {"top_k": 2, "cached_inputs": 4, "checkpointing": True}),
        ("hifi_mamba_v2", PIXELS | {"blocks": 2, "checkpointing": True}),
    ],
    ids=["dense", "routed", "cached and checkpointed", "pixels, checkpointed"],
)
def test_two_processes_are_one_with_twice_the_batch(
    name: str, options: dict[str, Any], pair: Pair, volumes: Volumes, tmp_path: Path
) -> None:
    config = replace(CONFIG, lr=1e-3)
    together = pair(run, volumes, tmp_path / "two", config, name, options)
    alone = run(0, volumes, tmp_path / "one", replace(config, batch_size=2), name, options)
    assert together[0] == together[1] == log(tmp_path / "two")
    assert [line["step"] for line in alone] == [6, 12, 18]  # 8 brain slices and 4 of knees, two at a time
    for line, expected in zip(together[0], alone, strict=True):
        assert line.keys() == expected.keys()
        assert flat(line) == pytest.approx(flat(expected), rel=1e-5, abs=1e-7)


def test_the_validation_loss_is_that_of_the_weights_that_are_kept(
    pair: Pair, volumes: Volumes, tmp_path: Path
) -> None:
    """Also where running statistics of the router are among them: those of one process."""
    lines = pair(run, volumes, tmp_path, CONFIG, "more", ROUTED | {"crop": "pool", "standardise": True})[0]
    val = SliceDataset(volumes[-2:], acceleration=3, center_fraction=0.2)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the two have it; other sums round otherwise
    try:
        alone = validation_loss(load_run(tmp_path)[0], val)
    finally:
        torch.set_num_threads(threads)
    assert alone == pytest.approx(min(line["val_ssim_loss"] for line in lines), rel=1e-9)


def test_experts_that_nobody_chose_are_left_alone(pair: Pair, volumes: Volumes, tmp_path: Path) -> None:
    # Gates start equal, and ties go to the first expert: in one step the others are not run.
    config, few = replace(CONFIG, epochs=1), [volumes[0], *volumes[-2:]]
    pair(run, few, tmp_path / "two", config)
    run(0, few, tmp_path / "one", replace(config, batch_size=2))
    two, one = (load_file(tmp_path / folder / "resume" / "rank0.safetensors") for folder in ("two", "one"))
    assert two.keys() == one.keys()
    moved = {key for key in two if key.startswith("optimizer.exp_avg.")}
    assert any(".experts.0." in key for key in moved) and not any(".experts.2." in key for key in moved)


def test_an_expert_that_one_process_did_not_choose_is_not_waited_for(
    pair: Pair, volumes: Volumes, tmp_path: Path
) -> None:
    config = replace(CONFIG, tau=(10.0, 10.0))  # each process draws noise of its own
    lines = pair(run, volumes, tmp_path, config)[0]
    assert len(lines) == 3
    assert all(0 < share < 1 for line in lines for loads in line["load"] for share in loads)


@pytest.mark.parametrize("die_after", [2, 8])
def test_resumed_equals_uninterrupted(die_after: int, pair: Pair, volumes: Volumes, tmp_path: Path) -> None:
    config, options = replace(CONFIG, tau=(1.0, 0.01), epochs=2), ROUTED | {"cached_inputs": 4}
    whole = pair(run, volumes, tmp_path / "whole", config, "more", options)
    ends = pair(run, volumes, tmp_path / "parts", config, "more", options, die_after)
    assert all(isinstance(end, Killed) for end in ends)
    with pytest.raises(UserError, match=r"written by 2 processes, not 1; start as many"):
        run(0, volumes, tmp_path / "parts", config, "more", options)
    assert pair(run, volumes, tmp_path / "parts", config, "more", options) == whole
    assert len(list((tmp_path / "parts" / "resume").iterdir())) == 2
    assert run(0, volumes, tmp_path / "parts", config, "more", options) == whole[0]  # finished: only loaded
    a, b = (load_file(tmp_path / folder / "weights.safetensors") for folder in ("whole", "parts"))
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_all_stop_when_one_diverges_and_name_its_slice(pair: Pair, volumes: Volumes, tmp_path: Path) -> None:
    first, second = pair(run, volumes, tmp_path, CONFIG, "more", ROUTED, 1000, 1)
    assert isinstance(first, Diverged) and isinstance(second, Diverged)
    assert str(first) == str(second)
    assert str(second).startswith("loss nan, gradient norm nan on poisoned ")
    alone = pair(run, volumes, tmp_path / "other", replace(CONFIG, epochs=1))
    assert len(alone[0]) == 1  # the processes still understand each other


def test_both_stop_early_at_the_same_epoch(pair: Pair, volumes: Volumes, tmp_path: Path) -> None:
    config = replace(CONFIG, epochs=30, lr=0.3, patience=1)  # far too large a step: it cannot keep improving
    first, second = pair(run, volumes, tmp_path, config, "e2e_varnet", SMALL)
    assert first == second
    assert len(first) < 30
