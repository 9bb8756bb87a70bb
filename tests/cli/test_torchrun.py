"""The commands under torchrun: two processes train and score like one, and Ctrl-C ends them all."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from morelib import cli
from morelib.data.phantom import make_phantom

TINY = """
description: tiny
data: {phantom: {volumes_per_category: 3, size: 32, coils: 2, slices: 1, seed: 0}}
split: {train: 0.34, val: 0.33, test: 0.33, seed: 0}
mask: {brain: equispaced, knee: random, acceleration: 4, center_fraction: 0.1}
model: {cascades: 1, widths: [4, 6], sens_widths: [4, 6]}
models: {more: {n_experts: 2, top_k: 1}}
seeds: [0]
training: {epochs: 2, patience: 1000}
evaluation: {bootstrap_samples: 100}
"""
BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("torchrun")
    (folder / "tiny.yaml").write_text(TINY)
    make_phantom(folder / "volumes", volumes_per_category=3, size=32, coils=2, slices=1)
    return folder


def train(folder: Path, name: str, *more: str) -> list[str]:
    data = ["--data-root", str(folder / "volumes"), "--root", str(folder), "--out", str(folder / name)]
    return ["train", "--profile", str(folder / "tiny.yaml"), *data, *more]


def torchrun(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    command = [
        BIN / "torchrun",
        "--standalone",
        "--nproc-per-node",
        "2",
        "--no-python",
        BIN / "morelib",
        *arguments,
    ]
    variables = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""} | environment
    return subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_training_and_evaluation_under_torchrun(folder: Path) -> None:
    out, error = (process := torchrun(*train(folder, "run"))).communicate(timeout=300)
    assert process.returncode == 0, error
    assert out.splitlines()[-1] == str(folder / "run") and out.count("\n" + str(folder)) == 1  # said once
    run = folder / "run"
    assert len((run / "log.jsonl").read_text().splitlines()) == 2
    out, error = (process := torchrun("evaluate", str(run))).communicate(timeout=300)
    assert process.returncode == 0, error
    assert out.count("zero-filled") == 1
    together = {name: (run / name).read_bytes() for name in ("metrics.json", "zero_filled.json")}
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # as torchrun's processes have it; other sums round otherwise
    try:
        assert cli.run(["evaluate", str(run)]) == 0
    finally:
        torch.set_num_threads(before)
    assert {name: (run / name).read_bytes() for name in together} == together


@pytest.mark.skipif(not Path("/proc/self/environ").is_file(), reason="looks for processes in /proc")
def test_interrupted_no_process_is_left_and_the_run_goes_on(folder: Path) -> None:
    log = folder / "long" / "log.jsonl"
    process = torchrun(*train(folder, "long", "--epochs", "1000"), MORELIB_TEST=str(log))
    wait_until(lambda: log.is_file() or process.poll() is not None)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=300)
    assert process.returncode != 0
    assert "interrupted; what was finished is kept" in error
    wait_until(lambda: not processes_with(f"MORELIB_TEST={log}"))
    lines = len(log.read_text().splitlines())
    process = torchrun(*train(folder, "long", "--epochs", "1000"), MORELIB_TEST=str(log))
    wait_until(lambda: len(log.read_text().splitlines()) > lines or process.poll() is not None)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=300)
    epochs = [json.loads(line)["epoch"] for line in log.read_text().splitlines()]
    assert epochs == list(range(len(epochs)))


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 300
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def processes_with(variable: str) -> list[int]:
    """The processes that have `variable` in their environment."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if variable.encode() in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
        except OSError:  # ended meanwhile
            pass
    return found
