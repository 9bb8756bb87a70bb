"""The training loop: reconstruction loss plus router losses, early stopping, exact resume."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from rich.progress import Progress as ProgressBar
from torch import nn

from morelib.data.batches import Loader
from morelib.data.dataset import SliceDataset
from morelib.files import write_text
from morelib.nn.more import routings
from morelib.nn.unrolled import Reconstruction
from morelib.routing.cache import InputCache
from morelib.routing.diagnostics import effective_experts
from morelib.routing.losses import anneal
from morelib.training.checkpoint import Checkpoint, Progress, load_weights, save_weights
from morelib.training.config import TrainConfig
from morelib.training.losses import ssim_loss
from morelib.training.processes import is_main, launch, mean_over_processes, share_buffers
from morelib.training.step import Diverged, TrainStep, compile_unets, new_optimizer, shares


def fit(
    model: nn.Module,
    train: SliceDataset,
    val: SliceDataset,
    config: TrainConfig,
    folder: Path,
    *,
    show_progress: bool = True,
) -> nn.Module:
    """Train `model` and leave the weights of the best epoch in it and in `folder/weights.safetensors`.

    Started by torchrun or srun, all processes train it together: each takes its share of every batch, gradients and
    losses are averaged, and the main process writes. With the same slices in a batch the result is that of one
    process, up to rounding and to random numbers, which each process draws for itself.

    Args:
        model: maps (kspace, mask, n_acs) to a `Reconstruction`.
        train, val: undersampled slices; no patient in both. Read with as many neighbours as `model.adjacent` says.
        config: epochs, optimiser and router settings.
        folder: receives log.jsonl (one line per epoch), weights.safetensors and resume/. A checkpoint found there is
            continued, and the result is the same as without the interruption. Several nodes must share it.
        show_progress: draw a progress bar.

    Raises:
        Diverged: the loss, of training or validation, became NaN or infinite; in all processes, whichever it happened
            in.
        UserError: the checkpoint is damaged, or was written by another number of processes.
    """
    fabric = launch(
        config.precision, experts=any(".experts." in name for name, _ in model.named_parameters())
    )
    rank, processes = fabric.global_rank, fabric.world_size
    _prepare(model, config, rank, processes)
    wrapped, optimizer = fabric.setup(model, new_optimizer(model, config))
    step = TrainStep(fabric, wrapped, optimizer, config)
    checkpoint = Checkpoint(folder / "resume", rank, processes)
    progress = checkpoint.load(model, optimizer)
    log = Log(folder / "log.jsonl", keep=progress.log_lines)
    train, val = train.seen_by(model), val.seen_by(model)
    batches = Loader(train, True, config.seed, config.batch_size, config.workers, rank, processes)
    val_batches = Loader(val, False, workers=config.workers, rank=rank, world_size=processes)
    steps_per_epoch = len(batches)
    with ProgressBar(disable=not show_progress or rank > 0) as bar:
        task = bar.add_task("training", total=config.epochs * steps_per_epoch, completed=progress.step)
        while not progress.finished:
            started = perf_counter()
            wrapped.train()
            for batch in batches.epoch(progress.epoch, skip=progress.step_in_epoch):
                settings = _annealed(config, progress.step / (config.epochs * steps_per_epoch))
                _count(progress, step(batch.to(fabric.device), **settings))
                bar.update(task, completed=progress.step, description=f"epoch {progress.epoch + 1}")
                if progress.step % config.checkpoint_steps == 0 and progress.step_in_epoch < steps_per_epoch:
                    checkpoint.save(model, optimizer, progress)
            share_buffers(model)
            # Not the wrapped network: it would wait for processes that have fewer slices.
            with fabric.autocast():
                val_loss = validation_loss(model.eval(), val_batches, fabric.device)
            if not math.isfinite(val_loss):  # no later epoch would be better than one without a number
                raise Diverged(
                    f"validation loss {val_loss} after epoch {progress.epoch + 1};"
                    " lower lr or clip_norm, or check the validation files"
                )
            line = _log_line(progress, settings, val_loss)
            line["seconds"] = perf_counter() - started
            _finish_epoch(model, config, progress, val_loss, folder / "weights.safetensors")
            progress.log_lines += 1
            if rank == 0:
                log.write(line)
            checkpoint.save(model, optimizer, progress)
    load_weights(model, folder / "weights.safetensors")
    return model.eval()


def _prepare(model: nn.Module, config: TrainConfig, rank: int, processes: int) -> None:
    """What the settings and the number of processes ask of the network before it is trained."""
    if rank:  # the weights are the main process's; noise that all draw alike would be one draw, not many
        torch.manual_seed(config.seed * 1_000_003 + rank)
    for routing in routings(model) if processes > 1 else ():
        # The dummy batch is shared out, so that together the processes see as many cached inputs as one would.
        routing.cache = InputCache(-(-routing.cache.capacity // processes), routing.cache.window)
    if config.compile:
        compile_unets(model)


def _annealed(config: TrainConfig, fraction: float) -> dict[str, float]:
    """The selection noise tau and alpha_1 after this fraction of all planned steps."""
    return {"tau": anneal(config.tau, fraction), "alpha_aux": anneal(config.alpha_aux, fraction)}


def _count(progress: Progress, terms: dict[str, float]) -> None:
    progress.step += 1
    progress.step_in_epoch += 1
    for name, value in terms.items():
        progress.sums[name] = progress.sums.get(name, 0.0) + value


@torch.no_grad()
def validation_loss(
    model: Callable[..., Reconstruction],
    val: SliceDataset | Loader,
    device: torch.device | str = "cpu",
) -> float:
    """Mean 1 - SSIM over the slices of `val`, what early stopping watches. A network must be in evaluation mode.

    A `Loader` may give each process a share of the slices: the mean is over those of all, and the same in each.
    """
    losses, counts = [], []
    if isinstance(val, SliceDataset):
        val = Loader(val.seen_by(model), shuffle=False)
    for batch in val.epoch():
        batch = batch.to(device)
        image = model(batch.kspace, batch.mask, batch.n_acs).image
        losses.append(ssim_loss(image, batch.target, batch.max_value))
        counts.append(len(batch.index))
    total = sum(loss.item() * count for loss, count in zip(losses, counts, strict=True))
    # The ratio of two means is that of two sums.
    mean, count = mean_over_processes(
        torch.tensor([total, sum(counts)], dtype=torch.float64, device=device)
    ).tolist()
    return float(mean / count)


def _log_line(progress: Progress, settings: dict[str, float], val_loss: float) -> dict[str, Any]:
    """Means over the epoch; of MoRE also the load (share of selections), the mean gates, and what they amount to.

    Under noise a second choice is counted although its gate may be zero: the two kinds of effective experts differ.
    """
    steps = progress.step_in_epoch
    means = {name: total / steps for name, total in progress.sums.items() if "/" not in name}
    line: dict[str, Any] = {
        "epoch": progress.epoch,
        "step": progress.step,
        **means,
        "val_ssim_loss": val_loss,
    }
    if loads := shares(progress.sums, "load"):
        gates = shares(progress.sums, "gate")
        line |= settings | {"load": loads, "mean_gate": gates}
        line["effective_experts"] = [effective_experts(torch.tensor(load)) for load in loads]
        line["effective_by_gate"] = [effective_experts(torch.tensor(gate)) for gate in gates]
    return line


def _finish_epoch(
    model: nn.Module, config: TrainConfig, progress: Progress, loss: float, weights: Path
) -> None:
    """Keep the best weights, decide whether to go on, and move to the next epoch."""
    if progress.best_loss is None or loss < progress.best_loss:
        progress.best_loss, progress.best_epoch = loss, progress.epoch
        if is_main():
            save_weights(model, weights)
    waited = progress.epoch - progress.best_epoch
    progress.epoch += 1
    progress.finished = waited >= config.patience or progress.epoch >= config.epochs
    progress.step_in_epoch, progress.sums = 0, {}


class Log:
    """log.jsonl: one JSON object a line. Lines written after the checkpoint that is being resumed are dropped."""

    def __init__(self, path: Path, keep: int = 0) -> None:
        self.path = path
        self.lines = path.read_text(encoding="utf-8").splitlines()[:keep] if path.is_file() else []

    def write(self, line: dict[str, Any]) -> None:
        """Append a line."""
        self.lines.append(json.dumps(line))
        write_text(self.path, "\n".join(self.lines) + "\n")
