"""Weights and resumable state as safetensors: nothing here pickles, and nothing a user hands over is unpickled."""

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from morelib.errors import UserError
from morelib.files import atomic_path
from morelib.nn.more import routings
from morelib.training.processes import wait_for_all


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
    processes: int = 1


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


class Checkpoint:
    """Everything that an exact continuation needs, in `folder`.

    The main process writes it into one file, atomically: two could disagree after a kill between them. What only
    another process has, its cached inputs and its random numbers, it writes before under the number of the step, and
    removes what is older afterwards. So there are always files that belong together.
    """

    def __init__(self, folder: Path, rank: int = 0, processes: int = 1) -> None:
        self.folder, self.rank, self.processes = folder, rank, processes
        self.main = folder / "rank0.safetensors"

    def save(self, model: nn.Module, optimizer: Optimizer, progress: Progress) -> None:
        """Write the state of all processes; each of them must call it."""
        tensors = {
            f"cache.{cascade}.{i}": entry
            for cascade, routing in enumerate(routings(model))
            for i, entry in enumerate(routing.cache.state())
        }
        tensors["rng.cpu"] = torch.get_rng_state()
        if torch.cuda.is_available():
            tensors["rng.cuda"] = torch.cuda.get_rng_state()
        own = self._own(progress.step)
        if self.rank:
            _write(own, tensors)
        wait_for_all()
        if self.rank == 0:
            tensors |= {f"model.{key}": value for key, value in model.state_dict().items()}
            names = [name for name, _ in model.named_parameters()]
            for index, state in optimizer.state_dict()["state"].items():
                tensors |= {f"optimizer.{k}.{names[index]}": torch.as_tensor(v) for k, v in state.items()}
            _write(self.main, tensors, replace(progress, processes=self.processes))
        wait_for_all()
        if self.rank:
            for older in set(self.folder.glob(f"rank{self.rank}-*.safetensors")) - {own}:
                older.unlink()

    def load(self, model: nn.Module, optimizer: Optimizer) -> Progress:
        """Restore what `save` wrote, random state included; the beginning where there is nothing yet.

        UserError for damaged files and those of another number of processes, which cannot be continued exactly.
        """
        if not self.main.is_file():
            return Progress()
        progress, tensors = _read(self.main)
        try:
            model.load_state_dict(_below(tensors, "model."))
        except RuntimeError as error:
            raise _damaged(self.main, error) from error
        if progress.finished:
            return progress
        if progress.processes != self.processes:
            raise UserError(
                f"{self.main}: written by {progress.processes} processes, not {self.processes}; start as many, or"
                " delete the folder to train anew"
            )
        _load_optimizer(optimizer, dict(model.named_parameters()), _below(tensors, "optimizer."))
        if self.rank:
            _, tensors = _read(self._own(progress.step))
        device = next(model.parameters()).device
        for cascade, routing in enumerate(routings(model)):
            entries = _below(tensors, f"cache.{cascade}.")
            routing.cache.load_state([entries[str(i)].to(device) for i in range(len(entries))])
        torch.set_rng_state(tensors["rng.cpu"])
        if "rng.cuda" in tensors and torch.cuda.is_available():
            torch.cuda.set_rng_state(tensors["rng.cuda"])
        return progress

    def _own(self, step: int) -> Path:
        return self.folder / f"rank{self.rank}-{step}.safetensors"


def _write(path: Path, tensors: dict[str, Tensor], progress: Progress | None = None) -> None:
    with atomic_path(path) as temporary:
        save_file(
            _contiguous(tensors), temporary, metadata={"progress": json.dumps(asdict(progress or Progress()))}
        )


def _read(path: Path) -> tuple[Progress, dict[str, Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            progress = Progress(**json.loads(file.metadata()["progress"]))
        return progress, load_file(path)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> UserError:
    return UserError(f"{path}: not a checkpoint of this run ({error}); delete it to start again")


def _load_optimizer(
    optimizer: Optimizer, parameters: dict[str, nn.Parameter], tensors: dict[str, Tensor]
) -> None:
    names, state = list(parameters), dict[int, dict[str, Tensor]]()
    for key, value in tensors.items():
        kind, name = key.split(".", 1)
        if value.shape == parameters[name].shape:
            # As the parameter lies in memory: a fused AdamW goes over both from the first number to the last.
            value = torch.empty_like(parameters[name], dtype=value.dtype, device=value.device).copy_(value)
        state.setdefault(names.index(name), {})[kind] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def _contiguous(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    # safetensors refuses tensors that share memory: a router shared between cascades stands under several names.
    return {key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()}
