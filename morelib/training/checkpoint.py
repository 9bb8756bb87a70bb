"""Weights and resumable state as safetensors: nothing here pickles, and nothing a user hands over is unpickled."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from morelib.errors import UserError
from morelib.files import atomic_path
from morelib.nn.more import routings


@dataclass
class Progress:
    """Where a run stands. Everything a run needs beside tensors, so that resuming changes nothing."""

    epoch: int = 0
    step_in_epoch: int = 0
    step: int = 0
    best_loss: float | None = None
    best_epoch: int = -1
    sums: dict[str, float] = field(default_factory=dict)  # running sums of the current epoch's log line
    log_lines: int = 0
    finished: bool = False


def save_weights(model: nn.Module, path: Path) -> None:
    """Write the model's parameters and buffers to `path`, atomically."""
    with atomic_path(path) as temporary:
        save_file(_contiguous(model.state_dict()), temporary)


def load_weights(model: nn.Module, path: Path) -> None:
    """Read what `save_weights` wrote. UserError if the file is missing, damaged or of another network."""
    try:
        model.load_state_dict(load_file(path))
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"{path}: cannot be read as safetensors weights ({error}); train the run again"
        ) from error
    except RuntimeError as error:
        raise UserError(
            f"{path}: weights of another network than config.yaml says; train the run again"
        ) from error


def save_checkpoint(path: Path, model: nn.Module, optimizer: Optimizer, progress: Progress) -> None:
    """Write everything that an exact continuation needs into one file, atomically.

    One file, because two could disagree after a kill between them.
    """
    tensors = {f"model.{key}": value for key, value in model.state_dict().items()}
    names = [name for name, _ in model.named_parameters()]
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{key}.{names[index]}": torch.as_tensor(value) for key, value in state.items()}
    for cascade, routing in enumerate(routings(model)):
        tensors |= {f"cache.{cascade}.{i}": entry for i, entry in enumerate(routing.cache.state())}
    tensors["rng.cpu"] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors["rng.cuda"] = torch.cuda.get_rng_state()
    with atomic_path(path) as temporary:
        save_file(_contiguous(tensors), temporary, metadata={"progress": json.dumps(asdict(progress))})


def load_checkpoint(path: Path, model: nn.Module, optimizer: Optimizer) -> Progress:
    """Restore what `save_checkpoint` wrote, random state included. UserError if the file is damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            progress = Progress(**json.loads(file.metadata()["progress"]))
        tensors = load_file(path)
        model.load_state_dict(_below(tensors, "model."))
    except (OSError, SafetensorError, RuntimeError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path}: not a checkpoint of this run ({error}); delete it to start again"
        ) from error
    _load_optimizer(optimizer, [name for name, _ in model.named_parameters()], _below(tensors, "optimizer."))
    for cascade, routing in enumerate(routings(model)):
        entries = _below(tensors, f"cache.{cascade}.")
        device = next(model.parameters()).device
        routing.cache.load_state([entries[str(i)].to(device) for i in range(len(entries))])
    torch.set_rng_state(tensors["rng.cpu"])
    if "rng.cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["rng.cuda"])
    return progress


def _load_optimizer(optimizer: Optimizer, names: list[str], tensors: dict[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        kind, name = key.split(".", 1)
        state.setdefault(names.index(name), {})[kind] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def _contiguous(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    # safetensors refuses tensors that share memory: a router shared between cascades stands under several names.
    return {key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()}
