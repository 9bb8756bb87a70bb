"""The loop learns, stops, survives being killed with the same result, and names the slice that broke it."""

import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from morelib.data.dataset import Slice, SliceDataset
from morelib.data.index import find_volumes
from morelib.errors import UserError
from morelib.evaluation import ZeroFilled, evaluate
from morelib.nn.unet import Encoder
from morelib.routing.diagnostics import effective_experts
from morelib.training import TrainConfig, load_run, train
from morelib.training.step import Diverged

OPTIONS: dict[str, Any] = {"cascades": 1, "widths": (4, 6), "sens_widths": (2, 4)}
ROUTED = OPTIONS | {"n_experts": 3, "top_k": 1, "cached_inputs": 3}
CONFIG = TrainConfig(epochs=2, lr=1e-2, checkpoint_steps=3)


@pytest.fixture
def sets(fastmri_files: Path) -> tuple[SliceDataset, SliceDataset]:
    volumes = find_volumes(fastmri_files)
    settings = {"acceleration": 3, "center_fraction": 0.2}
    return SliceDataset(volumes[::3], train=True, **settings), SliceDataset(volumes[1::5], **settings)


def _train(model: str, sets: tuple[SliceDataset, SliceDataset], config: TrainConfig, folder: Path) -> Path:
    options = ROUTED if model == "more" else OPTIONS
    train(model, options, *sets, config, folder, show_progress=False)
    return folder


def _log(folder: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    for line in lines:
        line.pop("seconds")
    return lines


class Killed(BaseException):
    """Like Ctrl-C, but not confused with one."""


class DiesAt(SliceDataset):
    """Raises when slice number `die_after` is read."""

    die_after = 0

    def __getitem__(self, item: int) -> Slice:
        if self.die_after == 0:
            raise Killed
        self.die_after -= 1
        return super().__getitem__(item)


@pytest.mark.parametrize("model", ["e2e_varnet", "more"])
def test_training_lowers_the_validation_loss_and_the_run_loads(
    model: str, sets: tuple[SliceDataset, SliceDataset], tmp_path: Path
) -> None:
    folder = _train(model, sets, replace(CONFIG, epochs=4), tmp_path / "run")
    losses = [line["val_ssim_loss"] for line in _log(folder)]
    assert min(losses[1:]) < losses[0]
    loaded, values = load_run(folder)
    assert values["model"]["name"] == model
    assert values["training"]["epochs"] == 4
    assert not loaded.training


@pytest.mark.parametrize("model", ["e2e_varnet", "more"])
@pytest.mark.parametrize("die_after", [1, 5, 13])
def test_resumed_equals_uninterrupted(
    model: str, die_after: int, sets: tuple[SliceDataset, SliceDataset], tmp_path: Path
) -> None:
    whole = _train(model, sets, CONFIG, tmp_path / "whole")
    fragile = DiesAt(sets[0].volumes, train=True, acceleration=3, center_fraction=0.2)
    fragile.die_after = die_after
    with pytest.raises(Killed):
        _train(model, (fragile, sets[1]), CONFIG, tmp_path / "resumed")
    torch.manual_seed(12345)  # a new process starts with other random numbers
    resumed = _train(model, sets, CONFIG, tmp_path / "resumed")
    assert _log(whole) == _log(resumed)
    for (name, value), (_, other) in zip(
        load_run(whole)[0].state_dict().items(), load_run(resumed)[0].state_dict().items(), strict=True
    ):
        assert torch.equal(value, other), name


def test_resuming_batches_of_mixed_shapes_is_exact_too(
    sets: tuple[SliceDataset, SliceDataset], tmp_path: Path
) -> None:
    config = replace(CONFIG, batch_size=3, checkpoint_steps=1)
    whole = _train("more", sets, config, tmp_path / "whole")
    # 4 brain and 6 knee slices: two batches of each shape.
    assert [line["step"] for line in _log(whole)] == [4, 8]
    fragile = DiesAt(sets[0].volumes, train=True, acceleration=3, center_fraction=0.2)
    fragile.die_after = 8
    with pytest.raises(Killed):
        _train("more", (fragile, sets[1]), config, tmp_path / "resumed")
    torch.manual_seed(12345)
    assert _log(_train("more", sets, config, tmp_path / "resumed")) == _log(whole)


def test_reading_ahead_changes_no_number(sets: tuple[SliceDataset, SliceDataset], tmp_path: Path) -> None:
    here = _train("more", sets, replace(CONFIG, workers=0), tmp_path / "here")
    there = _train("more", sets, replace(CONFIG, workers=2), tmp_path / "there")
    assert _log(here) == _log(there)


@pytest.mark.parametrize("model", ["e2e_varnet", "more"])
def test_mixed_precision_stays_close(
    model: str, sets: tuple[SliceDataset, SliceDataset], tmp_path: Path
) -> None:
    config = replace(CONFIG, lr=1e-3, tau=(0.0, 0.0))
    full = _train(model, sets, config, tmp_path / "full")
    mixed = _train(model, sets, replace(config, precision="bf16-mixed"), tmp_path / "mixed")
    for line, expected in zip(_log(mixed), _log(full), strict=True):
        for name in ("train_ssim_loss", "val_ssim_loss"):
            assert line[name] == pytest.approx(expected[name], rel=1e-3)
    weights = load_run(mixed)[0].state_dict().values()
    assert all(value.dtype in (torch.float32, torch.int64) for value in weights)


@pytest.mark.filterwarnings(
    "ignore:The .grad attribute of a Tensor"
)  # PyTorch's own, while it looks at tensors
def test_compiled_networks_train_alike(
    sets: tuple[SliceDataset, SliceDataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Captured, but not made into machine code, which would take minutes."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    config = replace(CONFIG, epochs=1, lr=1e-3, tau=(0.0, 0.0))
    plain = _train("more", sets, config, tmp_path / "plain")
    torch.compiler.reset()
    torch._dynamo.utils.counters.clear()
    compiled = _train("more", sets, replace(config, compile=True), tmp_path / "compiled")
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
    for name in ("train_ssim_loss", "val_ssim_loss"):
        assert _log(compiled)[0][name] == pytest.approx(_log(plain)[0][name], rel=1e-5)
    assert load_run(compiled)[0].state_dict().keys() == load_run(plain)[0].state_dict().keys()


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a processor")
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # PyTorch's own
def test_a_compiled_encoder_gives_the_same() -> None:
    encoder, image = Encoder(2, (4,)), torch.randn(1, 2, 16, 16)
    with torch.no_grad():
        (expected,) = encoder(image)
        encoder.compile()
        torch.testing.assert_close(encoder(image)[0], expected)


def test_a_finished_run_is_loaded_and_not_trained_again(
    sets: tuple[SliceDataset, SliceDataset], tmp_path: Path
) -> None:
    folder = _train("more", sets, CONFIG, tmp_path / "run")
    before = (folder / "weights.safetensors").read_bytes()
    fragile = DiesAt(sets[0].volumes, train=True)
    _train("more", (fragile, sets[1]), CONFIG, folder)
    assert (folder / "weights.safetensors").read_bytes() == before


def test_patience_stops_and_the_best_weights_are_kept(
    sets: tuple[SliceDataset, SliceDataset], tmp_path: Path
) -> None:
    config = replace(CONFIG, epochs=30, lr=0.3, patience=2)  # far too large a step: it cannot keep improving
    folder = _train("e2e_varnet", sets, config, tmp_path / "run")
    losses = [line["val_ssim_loss"] for line in _log(folder)]
    assert len(losses) < 30
    assert losses.index(min(losses)) == len(losses) - 1 - 2


def test_the_log_tells_the_annealing_and_the_load(
    sets: tuple[SliceDataset, SliceDataset], tmp_path: Path
) -> None:
    first, last = _log(_train("more", sets, CONFIG, tmp_path / "run"))
    assert first["tau"] > last["tau"] and first["alpha_aux"] > last["alpha_aux"]
    assert sum(last["load"][0]) == pytest.approx(1)
    loads = torch.tensor(last["load"])
    assert last["effective_experts"] == pytest.approx([effective_experts(load) for load in loads])
    assert last["grad_norm"] > 0


def test_another_configuration_in_the_same_folder_is_refused(
    sets: tuple[SliceDataset, SliceDataset], tmp_path: Path
) -> None:
    _train("e2e_varnet", sets, CONFIG, tmp_path)
    with pytest.raises(UserError, match="another configuration"):
        _train("e2e_varnet", sets, replace(CONFIG, lr=1e-3), tmp_path)
    _train("e2e_varnet", sets, replace(CONFIG, workers=0), tmp_path)  # changes no result
    path = tmp_path / "config.yaml"
    path.write_text(path.read_text().replace("  compile: false\n", ""))  # before there was this setting
    _train("e2e_varnet", sets, CONFIG, tmp_path)


class Poisoned(SliceDataset):
    def __getitem__(self, item: int) -> Slice:
        return replace(super().__getitem__(item), target=torch.full((24, 24), torch.nan))


def test_a_loss_that_is_no_number_names_the_slice(
    sets: tuple[SliceDataset, SliceDataset], tmp_path: Path
) -> None:
    with pytest.raises(Diverged, match=r"loss nan, .* on file.*\.h5 slice \d"):
        _train("e2e_varnet", (Poisoned(sets[0].volumes, train=True), sets[1]), CONFIG, tmp_path)


def test_a_validation_loss_that_is_no_number_stops_and_is_not_kept_as_the_best(
    sets: tuple[SliceDataset, SliceDataset], tmp_path: Path
) -> None:
    with pytest.raises(Diverged, match=r"^validation loss nan after epoch 1; "):
        _train("e2e_varnet", (sets[0], Poisoned(sets[1].volumes)), CONFIG, tmp_path)
    assert not (tmp_path / "weights.safetensors").exists()


@pytest.mark.parametrize("spoil", ["missing", "truncated", "foreign"])
def test_damaged_weights_are_a_clear_line(
    spoil: str, sets: tuple[SliceDataset, SliceDataset], tmp_path: Path
) -> None:
    folder = _train("e2e_varnet", sets, replace(CONFIG, epochs=1), tmp_path)
    weights = folder / "weights.safetensors"
    if spoil == "missing":
        weights.unlink()
    else:
        weights.write_bytes(weights.read_bytes()[:100] if spoil == "truncated" else b"no weights at all")
    with pytest.raises(UserError, match="train the run again"):
        load_run(folder)


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"not a run folder"):
        load_run(tmp_path)


def test_configuration_errors_name_the_key() -> None:
    with pytest.raises(UserError, match=r"training.epochs is 0"):
        TrainConfig(epochs=0)
    with pytest.raises(UserError, match=r"training.workers is -1"):
        TrainConfig(workers=-1)
    with pytest.raises(UserError, match=r"training.precision is '16-true'; choose 32-true or bf16-mixed"):
        TrainConfig(precision="16-true")


def test_a_network_of_several_slices_is_trained_and_scored_on_them(
    sets: tuple[SliceDataset, SliceDataset], tmp_path: Path
) -> None:
    small = {"encoder_blocks": (1,), "decoder_blocks": (1,), "bottleneck_blocks": 1, "n_prompts": 2}
    options = {
        "cascades": 1,
        "widths": (4, 6),
        "prompt_widths": (2,),
        "prompt_sizes": (4,),
        "adjacent": 3,
    } | small
    model = train("promptmr_plus", options, *sets, CONFIG, tmp_path, show_progress=False)
    first, last = _log(tmp_path)
    assert last["train_ssim_loss"] < first["train_ssim_loss"]
    scores = {
        system: evaluate(reconstruct, sets[1])
        for system, reconstruct in (("net", model), ("zero", ZeroFilled()))
    }
    assert [s.volume for s in scores["net"]] == [s.volume for s in scores["zero"]]
    assert sets[1].adjacent == 1
