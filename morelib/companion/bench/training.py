"""What training has beside its arithmetic: slices to read, and other processes to agree with."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import torch
from lightning_fabric import Fabric

from morelib.companion.bench.network import OnPart
from morelib.companion.bench.noise import noise_files
from morelib.companion.bench.result import DIFFERENCE, TIME, Row
from morelib.companion.profile import load_profile
from morelib.data.batches import Loader
from morelib.data.dataset import SliceDataset
from morelib.data.index import find_volumes
from morelib.data.volume import VolumeInfo
from morelib.nn import build_model
from morelib.training import TrainConfig, train
from morelib.training.step import TrainStep, new_optimizer

STEPS = 6  # of the smallest network, for each number of workers and repeat
SMALLEST = "the smallest network, profile smoke"
SHARED, ALONE = "two processes (gloo), losses of a training of MoRE", "one process, twice the batch"


def bench_training(repeats: int, on_part: OnPart = lambda part: None) -> Iterator[Row]:
    """Whether training waits for slices, and whether two processes train as one, on files of noise that it writes."""
    with TemporaryDirectory(prefix="morelib-bench-") as name:
        folder = Path(name)
        on_part("training steps")
        yield from waiting(find_volumes(noise_files(folder / "large", STEPS, (640, 320, 4))), repeats)
        on_part("two processes")
        yield together(noise_files(folder / "small", 8, (48, 40, 2)), folder)


def waiting(volumes: list[VolumeInfo], repeats: int) -> Iterator[Row]:
    """By number of workers, how long a training waits for batches after the first. All take turns."""
    for workers, (share, step) in _waiting(volumes, repeats).items():
        what = f"waiting for batches, {workers} workers"
        goal = 0.05 if workers else None  # without one nothing reads ahead
        yield Row(what, f"training of {SMALLEST}", TIME, share, at_most=goal, repeats=repeats,
                  times=(share * step, step))  # fmt: skip


def together(data: Path, folder: Path) -> Row:
    """The largest relative difference between the losses of two processes and of one; both leave a run in `folder`."""
    losses = {}
    for processes in (1, 2):
        out = folder / str(processes)
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
        command += [str(processes), "-m", __name__, str(data), str(out), str(2 // processes)]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"training with {processes} processes failed:\n{done.stderr}")
        lines = map(json.loads, (out / "log.jsonl").read_text(encoding="utf-8").splitlines())
        losses[processes] = [line[name] for line in lines for name in line if "loss" in name]
    pairs = zip(losses[2], losses[1], strict=True)
    return Row(SHARED, ALONE, DIFFERENCE, max(abs(two / one - 1) for two, one in pairs), at_most=1e-5)


def _waiting(volumes: list[VolumeInfo], repeats: int) -> dict[int, tuple[float, float]]:
    """By number of workers: the share of an epoch spent waiting for batches after the first, and a step's seconds."""
    profile = load_profile("smoke")
    torch.manual_seed(0)
    fabric, config = Fabric(), TrainConfig(lr=1e-6)
    model = build_model("e2e_varnet", cascades=profile.model.cascades, widths=profile.model.widths,
                        sens_widths=profile.model.sens_widths)  # fmt: skip
    wrapped, optimizer = fabric.setup(model, new_optimizer(model, config))
    step = TrainStep(fabric, wrapped, optimizer, config)
    slices = SliceDataset(volumes[: -(-STEPS // volumes[0].n_slices)], train=True)
    loaders = {workers: Loader(slices, shuffle=True, workers=workers) for workers in (0, 1, 2)}
    rounds: dict[int, list[tuple[float, float]]] = {workers: [] for workers in loaders}
    for epoch in range(repeats + 1):
        for workers, loader in loaders.items():
            batches, waits, steps = loader.epoch(epoch), [], []
            for _ in range(len(loader)):
                started = perf_counter()
                batch = next(batches)
                arrived = perf_counter()
                step(batch.to(fabric.device), tau=0.0, alpha_aux=0.0)
                waits.append(arrived - started)
                steps.append(perf_counter() - arrived)
            if epoch and len(waits) > 1:
                rounds[workers].append((sum(waits[1:]) / sum(waits[1:] + steps[1:]), median(steps)))
            next(batches, None)
    return {
        workers: (median(w for w, _ in pairs), median(s for _, s in pairs))
        for workers, pairs in rounds.items()
    }


def _train(data: str, out: str, batch_size: str) -> None:
    """What each process of `together` runs: without selection noise, which each draws for itself."""
    volumes = find_volumes(data)
    options: dict[str, Any] = {
        "cascades": 2,
        "widths": (4, 6),
        "sens_widths": (2, 4),
        "n_experts": 3,
        "top_k": 1,
    }
    config = TrainConfig(epochs=3, lr=1e-3, batch_size=int(batch_size), tau=(0.0, 0.0), patience=3)
    slices, val = (
        SliceDataset(part, acceleration=3, center_fraction=0.2) for part in (volumes[:6], volumes[6:])
    )
    train("more", options, slices, val, config, Path(out), show_progress=False)


if __name__ == "__main__":
    _train(*sys.argv[1:])
