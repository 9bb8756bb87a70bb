"""Run folders: config.yaml says what was trained, and is enough to train it again or to load it."""

from pathlib import Path
from typing import Any

import torch
import yaml

from morelib.data.dataset import SliceDataset
from morelib.errors import UserError
from morelib.files import write_text
from morelib.nn import Unrolled, build_model
from morelib.training.checkpoint import load_weights
from morelib.training.config import TrainConfig
from morelib.training.fit import fit
from morelib.training.processes import is_main, launch, main_first


def train(
    model_name: str,
    model_options: dict[str, Any],
    train_set: SliceDataset,
    val_set: SliceDataset,
    config: TrainConfig,
    folder: Path,
    *,
    about: dict[str, Any] | None = None,
    show_progress: bool = True,
) -> Unrolled:
    """Build a network, train it, and leave a run folder that `load_run` understands.

    A folder that holds an unfinished run of the same configuration is continued; a finished one is loaded. Started by
    torchrun or srun, all processes call this, see `fit`.

    Args:
        model_name, model_options: for `build_model`.
        train_set, val_set, config, show_progress: see `fit`.
        about: further plain values for config.yaml, such as masks and data.

    Raises:
        UserError: the folder holds a run of another configuration.
    """
    values = {
        "model": {"name": model_name, "options": _plain(model_options)},
        "training": config.to_dict(),
        **_plain(about or {}),
    }
    launch()
    path = folder / "config.yaml"
    with main_first():
        there = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else values
        if _settings(there) != _settings(values):
            raise UserError(
                f"{path}: this folder holds a run of another configuration; remove it or choose another folder"
            )
        if is_main():
            write_text(path, yaml.safe_dump(values, sort_keys=False))
    torch.manual_seed(config.seed)
    model = build_model(model_name, **model_options)
    fit(model, train_set, val_set, config, folder, show_progress=show_progress)
    return model


def load_run(folder: Path | str) -> tuple[Unrolled, dict[str, Any]]:
    """The trained network of a run folder, in evaluation mode, and its configuration.

    Raises:
        UserError: not a run folder, or one without weights.
    """
    folder = Path(folder)
    path = folder / "config.yaml"
    if not path.is_file():
        raise UserError(f"{folder}: not a run folder (no config.yaml); make one with `morelib train`")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        name, options = values["model"]["name"], values["model"]["options"]
    except (yaml.YAMLError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not the configuration of a run; train it again") from error
    model = build_model(name, **options)
    load_weights(model, folder / "weights.safetensors")
    return model.eval(), values


def _settings(values: Any) -> Any:
    """What a run's result depends on: not on how it is read for and started. A setting that it does not name is new."""
    if not isinstance(values, dict) or not isinstance(values.get("training"), dict):
        return values
    return values | {
        "training": TrainConfig().to_dict() | values["training"] | {"workers": 0, "graphs": False}
    }


def _plain(value: Any) -> Any:
    """Tuples as lists, so that what YAML gives back equals what was written."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
