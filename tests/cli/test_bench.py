"""`morelib bench`: a table, a file with a run card, and one line for what cannot be measured."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from morelib import cli
from morelib.companion.bench import consistency
from morelib.companion.bench.result import FASTER, Row

TINY = ["--size", "48x40x2"]


def test_a_benchmark_prints_its_rows_and_writes_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "consistency-here.json"
    assert cli.run(["bench", "consistency", *TINY, "--device", "cpu", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "hybrid space" in printed and str(out) in printed
    content = json.loads(out.read_text())
    assert {"device", "commit", "versions", "wall_s"} <= set(content["run_card"])
    assert content["setting"]["size"] == [48, 40, 2]
    assert len(content["rows"]) == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["model", "--size", "640x320"],
            "--size 640x320: give readout x phase x coils, such as 640x320x4, at",
        ),
        (["model", "--size", "0x320x4"], "--size 0x320x4: give"),
        (["growth", "--size", "640x16x4"], "--size 640x16x4: give"),
        (["data", "--size", "large"], "--size large: give"),
        (["model", "--device", "tpu"], "--device tpu: there is none; give cpu or cuda"),
        (["consistency", "--repeats", "4"], "repeats"),
        (["scale", "--files", "0"], "files"),
    ],
)
def test_bad_options_are_one_line(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["bench", *options]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ") and message in line


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["bench", "model", "--device", "cuda"]) == 2
    assert capsys.readouterr().err.startswith("error: --device cuda: PyTorch sees no GPU; give cpu")


def test_after_an_interruption_the_rows_so_far_are_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: Any, **__: Any) -> Iterator[Row]:
        yield Row("one that was measured", "another", FASTER, 2.0)
        raise KeyboardInterrupt

    monkeypatch.setattr(consistency, "bench_consistency", interrupted)
    out = tmp_path / "out.json"
    assert cli.run(["bench", "consistency", "--out", str(out)]) == 1
    captured = capsys.readouterr()
    assert "one that was measured" in captured.out
    assert captured.err.splitlines()[-1].startswith("error: interrupted")
    assert not out.exists()
