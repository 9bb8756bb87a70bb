"""The command line: each command once for real, every kind of bad input, and how it ends when it is stopped."""

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from morelib import cli
from morelib.companion.reproduce import Outcome
from morelib.errors import UserError

TINY = """
description: tiny
data: {phantom: {volumes_per_category: 3, size: 32, coils: 2, slices: 1, seed: 0}}
split: {train: 0.34, val: 0.33, test: 0.33, seed: 0}
mask: {brain: equispaced, knee: random, acceleration: 4, center_fraction: 0.1}
model: {cascades: 1, widths: [4, 6], sens_widths: [4, 6]}
models: {e2e_varnet: {}, more: {n_experts: 2, top_k: 1}}
seeds: [0]
training: {epochs: 1}
evaluation: {bootstrap_samples: 100}
"""
Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """21 tiny phantom volumes, made by the command itself."""
    out = tmp_path_factory.mktemp("cli") / "volumes"
    sizes = ["--volumes-per-category", "3", "--size", "32", "--coils", "2", "--slices", "1"]
    assert cli.run(["phantom", str(out), *sizes]) == 0
    assert len(list(out.glob("*.h5"))) == 21
    return out


@pytest.fixture(scope="module")
def run_folder(volumes: Path) -> Path:
    """A network trained for one epoch on them."""
    profile, out = volumes.parent / "tiny.yaml", volumes.parent / "run"
    profile.write_text(TINY)
    where = ["--data-root", str(volumes), "--out", str(out), "--root", str(volumes.parent)]
    assert cli.run(["train", "--profile", str(profile), "--model", "more", "--seed", "3", *where]) == 0
    return out


def one_line(captured: Captured) -> str:
    """What was printed to standard error, which must be one line and no traceback."""
    lines = captured.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    return lines[0]


def test_train_leaves_a_run_folder(run_folder: Path) -> None:
    names = {path.name for path in run_folder.iterdir()}
    assert {"config.yaml", "log.jsonl", "weights.safetensors", "run_card.json"} <= names


def test_evaluate_scores_the_network_and_the_zero_filled_image(run_folder: Path, capsys: Captured) -> None:
    assert cli.run(["evaluate", str(run_folder)]) == 0
    out = capsys.readouterr().out
    assert "zero-filled" in out
    assert "more" in out
    assert (run_folder / "metrics.json").is_file()
    assert (run_folder / "zero_filled.json").is_file()


def test_evaluate_on_the_volumes_of_a_manifest(
    run_folder: Path, volumes: Path, tmp_path: Path, capsys: Captured
) -> None:
    rows = ["file,split,category,patient,scanner,field,coils,matrix,slices"]
    rows += [f"{path.name},test,AXT2,,,,,," for path in sorted(volumes.glob("*AXT2*"))[:2]]
    manifest = tmp_path / "two.csv"
    manifest.write_text("\n".join(rows) + "\n")
    where = ["--data-root", str(volumes), "--manifest", str(manifest)]
    assert cli.run(["evaluate", str(run_folder), *where]) == 0
    scored = json.loads((run_folder / "metrics.json").read_text())
    assert len(scored["volumes"]) == 2
    assert cli.run(["evaluate", str(run_folder), *where, "--split", "val"]) == 2
    assert "the manifest has no such volumes" in capsys.readouterr().err


@pytest.mark.parametrize("options", [[], ["--acceleration", "2", "--center-fraction", "0.2"]])
def test_reconstruct_writes_a_file_and_a_picture(
    run_folder: Path, volumes: Path, tmp_path: Path, options: list[str]
) -> None:
    source, out = next(volumes.glob("*AXT2*")), tmp_path / "new" / "out.h5"
    assert cli.run(["reconstruct", str(source), str(out), "--run", str(run_folder), *options]) == 0
    with h5py.File(out) as file, h5py.File(source) as original:
        image = file["reconstruction"][()]
        assert image.shape == original["reconstruction_rss"].shape
        assert image.dtype == np.float32
        assert np.isfinite(image).all()
        assert 1 < file.attrs["net_acceleration"] <= 4.5
    assert out.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


def test_reconstruct_takes_an_undersampled_file_without_a_target(
    run_folder: Path, volumes: Path, tmp_path: Path
) -> None:
    source, out = tmp_path / "scan.h5", tmp_path / "out.h5"
    with h5py.File(next(volumes.glob("*CORPD_*"))) as full, h5py.File(source, "w") as file:
        mask = np.arange(full["kspace"].shape[-1]) % 3 == 1
        mask[14:18] = True
        file["kspace"], file["mask"] = full["kspace"][()] * mask, mask
        file["ismrmrd_header"] = full["ismrmrd_header"][()]
        file.attrs["acquisition"] = "CORPD_FBK"
    assert cli.run(["reconstruct", str(source), str(out), "--run", str(run_folder)]) == 0
    assert out.is_file()
    assert out.with_suffix(".png").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["train", "--profile", "huge"],
            "profile 'huge': there is none; the profiles are cpu, gpu, paper, smoke",
        ),
        (
            ["train", "--profile", "{tiny}", "--model", "unet9", "--data-root", "{volumes}"],
            "unknown model 'unet9'",
        ),
        (["train", "--data-root", "{empty}"], "holds no .h5 files"),
        (["train", "--data-root", "{empty}/none"], "no such folder"),
        (["train", "--profile", "paper"], "set MORE_DATA_ROOT"),
        (["train", "--data-root", "{volumes}", "--manifest", "huge"], "manifest 'huge': there is none"),
        (["train", "--epochs", "0"], "--epochs"),
        (["train", "--epochs", "many"], "--epochs"),
        (["train", "--layers", "3"], "--layers"),
        (["evaluate", "{empty}"], "not a run folder"),
        (["evaluate", "{run}", "--split", "dev"], "choose train, val, test or all"),
        (["evaluate", "{run}", "--data-root", "{empty}"], "holds no .h5 files"),
        (["reconstruct", "{empty}/none.h5", "{empty}/out.h5", "--run", "{run}"], "no such file"),
        (["reconstruct", "{text}", "{empty}/out.h5", "--run", "{run}"], "not a readable HDF5 file"),
        (["reconstruct", "{volume}", "{volume}", "--run", "{run}"], "is the input file"),
        (["reconstruct", "{volume}", "{empty}/out.h5", "--run", "{empty}"], "not a run folder"),
        (["reproduce", "--profile", "huge"], "there is none"),
        (["reproduce", "--only", "99_none", "--root", "{empty}"], "chapter '99_none': there is none"),
        (["reproduce", "--root", "{empty}"], "no such notebook"),
        (["phantom", "{empty}/x", "--size", "33"], "is odd"),
        (["phantom", "{text}"], "cannot be made a folder"),
        (["dance"], "No such command 'dance'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_gives_exit_code_2_and_one_line(
    arguments: list[str], message: str, volumes: Path, run_folder: Path, tmp_path: Path, capsys: Captured,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.delenv("MORE_DATA_ROOT", raising=False)
    monkeypatch.chdir(tmp_path)
    empty, text = tmp_path / "empty", tmp_path / "text.h5"
    empty.mkdir()
    text.write_text("not HDF5")
    places = {
        "empty": empty, "text": text, "volumes": volumes, "run": run_folder, "volume": next(volumes.glob("*AXT2*")),
        "tiny": volumes.parent / "tiny.yaml",
    }  # fmt: skip
    assert cli.run([argument.format(**places) for argument in arguments]) == 2
    assert message in one_line(capsys)
    assert not list(empty.iterdir())  # nothing half-written


def test_disk_full_and_forbidden_folders_give_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    for number, code in ((errno.ENOSPC, 1), (errno.EACCES, 2)):
        error = OSError(number, os.strerror(number), str(tmp_path / "file.h5"))
        monkeypatch.setattr("morelib.data.phantom.make_phantom", _raiser(error))
        assert cli.run(["phantom", str(tmp_path)]) == code
        assert "file.h5" in one_line(capsys)
    monkeypatch.setattr(
        "morelib.data.phantom.make_phantom", _raiser(OSError("h5py: No space left on device"))
    )
    assert cli.run(["phantom", str(tmp_path)]) == 1
    assert "no space left" in one_line(capsys)


def test_interruption_gives_130_and_a_long_message_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.setattr("morelib.data.phantom.make_phantom", _raiser(KeyboardInterrupt()))
    assert cli.run(["phantom", str(tmp_path)]) == 130
    assert "interrupted" in one_line(capsys)
    monkeypatch.setattr("morelib.data.phantom.make_phantom", _raiser(UserError("file.h5: two\nlines")))
    assert cli.run(["phantom", str(tmp_path)]) == 2
    assert one_line(capsys) == "error: file.h5: two lines"


def test_a_bug_is_not_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("morelib.data.phantom.make_phantom", _raiser(ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        cli.run(["phantom", str(tmp_path)])


def test_reproduce_ends_with_the_path_of_the_book_and_1_if_a_chapter_has_no_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    page, partial = tmp_path / "index.html", tmp_path / "01_a.ipynb"
    outcomes = [Outcome("01_a", "done", 1.0)]
    monkeypatch.setattr("morelib.companion.reproduce.reproduce", lambda *_, **__: (outcomes, page))
    assert cli.run(["reproduce"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(page)
    outcomes.append(Outcome("02_b", "failed", 1.0, "ValueError: broken\n\nsource", partial))
    assert cli.run(["reproduce"]) == 1
    captured = capsys.readouterr()
    assert captured.out.splitlines()[-1] == str(page)
    assert captured.err == f"error: 02_b failed: ValueError: broken; the notebook up to there is {partial}\n"


@pytest.mark.parametrize(
    "command", ["", "phantom", "train", "evaluate", "reconstruct", "reproduce", "data", "bench"]
)
def test_help(command: str, capsys: Captured) -> None:
    assert cli.run([*filter(None, [command]), "--help"]) == 0
    assert "Usage: morelib" in capsys.readouterr().out


def test_help_starts_without_torch_and_the_entry_point_sets_the_exit_code() -> None:
    code = "import sys; from morelib.cli import run; run(['--help']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0
    code = "import sys; sys.argv = ['morelib', 'evaluate', 'none']; from morelib.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def _raiser(error: BaseException) -> Callable[..., None]:
    def raise_it(*_: object, **__: object) -> None:
        raise error

    return raise_it
