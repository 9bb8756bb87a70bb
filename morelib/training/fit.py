"""The training loop: reconstruction loss plus router losses, early stopping, exact resume."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from lightning_fabric import Fabric
from rich.progress import Progress as ProgressBar
from torch import Tensor, nn

from morelib.data.batches import Batch, Loader
from morelib.data.dataset import SliceDataset
from morelib.files import write_text
from morelib.nn.more import routings
from morelib.nn.unrolled import Reconstruction, Record
from morelib.routing import PixelRouting, RoutingRecord
from morelib.routing.diagnostics import effective_experts
from morelib.routing.losses import anneal, mean_losses
from morelib.routing.selection import expert_counts
from morelib.training.checkpoint import Progress, load_checkpoint, load_weights, save_checkpoint, save_weights
from morelib.training.config import TrainConfig
from morelib.training.losses import ssim_loss

OnEpoch = Callable[[dict[str, Any]], None]


class Diverged(RuntimeError):
    """The loss is no longer a number. The message names the volume and the slice it happened on."""


def fit(
    model: nn.Module,
    train: SliceDataset,
    val: SliceDataset,
    config: TrainConfig,
    folder: Path,
    *,
    show_progress: bool = True,
    on_epoch: OnEpoch | None = None,
) -> nn.Module:
    """Train `model` and leave the weights of the best epoch in it and in `folder/weights.safetensors`.

    Args:
        model: maps (kspace, mask, n_acs) to a `Reconstruction`.
        train, val: undersampled slices; no patient in both. Read with as many neighbours as `model.adjacent` says.
        config: epochs, optimiser and router settings.
        folder: receives log.jsonl (one line per epoch), weights.safetensors and resume/. A checkpoint found there is
            continued, and the result is the same as without the interruption.
        show_progress: draw a progress bar.
        on_epoch: called with each log line.

    Raises:
        Diverged: the loss became NaN or infinite.
    """
    fabric = Fabric(precision=config.precision)  # type: ignore[arg-type]
    fabric.launch()
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.lr, weight_decay=config.weight_decay)
    checkpoint = folder / "resume" / f"rank{fabric.global_rank}.safetensors"
    wrapped, optimizer = fabric.setup(model, optimizer)
    progress = load_checkpoint(checkpoint, model, optimizer) if checkpoint.is_file() else Progress()
    log = Log(folder / "log.jsonl", keep=progress.log_lines)
    train, val = train.seen_by(model), val.seen_by(model)
    batches = Loader(
        train, True, config.seed, config.batch_size, config.workers, fabric.global_rank, fabric.world_size
    )
    val_batches = Loader(val, shuffle=False, workers=config.workers)
    steps_per_epoch = len(batches)
    with ProgressBar(disable=not show_progress) as bar:
        task = bar.add_task("training", total=config.epochs * steps_per_epoch, completed=progress.step)
        while not progress.finished:
            started = perf_counter()
            wrapped.train()
            for batch in batches.epoch(progress.epoch, skip=progress.step_in_epoch):
                settings = _anneal_routing(model, config, progress.step / (config.epochs * steps_per_epoch))
                terms = train_step(
                    fabric, wrapped, optimizer, batch.to(fabric.device), config, settings["alpha_aux"]
                )
                _count(progress, terms)
                bar.update(task, completed=progress.step, description=f"epoch {progress.epoch + 1}")
                if progress.step % config.checkpoint_steps == 0 and progress.step_in_epoch < steps_per_epoch:
                    save_checkpoint(checkpoint, model, optimizer, progress)
            line = _log_line(progress, settings, validation_loss(wrapped.eval(), val_batches, fabric.device))
            line["seconds"] = perf_counter() - started
            _finish_epoch(model, config, progress, line["val_ssim_loss"], folder / "weights.safetensors")
            progress.log_lines = log.write(line)
            save_checkpoint(checkpoint, model, optimizer, progress)
            if on_epoch:
                on_epoch(line)
    load_weights(model, folder / "weights.safetensors")
    return model.eval()


def train_step(
    fabric: Fabric, model: nn.Module, optimizer: Any, batch: Batch, config: TrainConfig, alpha_aux: float
) -> dict[str, float]:
    """One optimiser step; returns the unweighted terms of the loss for the log."""
    output: Reconstruction = model(batch.kspace, batch.mask, batch.n_acs)
    reconstruction = ssim_loss(output.image, batch.target, batch.max_value)
    loss, terms = reconstruction, {"train_ssim_loss": reconstruction.detach()}
    records = output.routing or ()
    if losses := [record.losses for record in records if isinstance(record, RoutingRecord) and record.losses]:
        router = mean_losses(losses)
        # Eq. 7 is added to the reconstruction loss; its gradient ends at the routers' detached inputs.
        loss = loss + router.weighted(alpha_aux, config.alpha_sparse, config.alpha_z)
        terms |= {name: term.detach() for name, term in router._asdict().items()}
    if balances := [record.balance for record in records if isinstance(record, PixelRouting)]:
        # HiFi-MambaV2 balances single pixels; as published, this gradient does reach the features.
        balance = torch.stack(balances).mean()
        loss = loss + config.alpha_balance * balance
        terms["balance"] = balance.detach()
    terms |= _usage_terms(records)
    # Experts without samples keep gradient None, and AdamW leaves them alone.
    optimizer.zero_grad(set_to_none=True)
    fabric.backward(loss)
    norm = fabric.clip_gradients(model, optimizer, max_norm=config.clip_norm, error_if_nonfinite=False)
    assert norm is not None
    if not torch.isfinite(loss + norm):
        where = ", ".join(f"{name} slice {i}" for name, i in zip(batch.volume, batch.index, strict=True))
        raise Diverged(
            f"loss {loss.item()}, gradient norm {norm.item()} on {where}; lower lr or clip_norm, or check this file"
        )
    optimizer.step()
    terms["grad_norm"] = norm
    # One transfer from the device, not one per term.
    return dict(zip(terms, torch.stack([value.float() for value in terms.values()]).tolist(), strict=True))


def _usage_terms(records: Sequence[Record]) -> dict[str, Tensor]:
    """Counts of selections and sums of gates, by cascade and expert."""
    terms = {}
    for cascade, record in enumerate(records):
        counts = expert_counts(record.selected, record.gates.shape[-1])
        gates = record.gates.detach().flatten(0, -2).sum(0)
        for expert, (count, gate) in enumerate(zip(counts, gates, strict=True)):
            terms[f"load/{cascade}/{expert}"] = count
            terms[f"gate/{cascade}/{expert}"] = gate
    return terms


def _anneal_routing(model: nn.Module, config: TrainConfig, fraction: float) -> dict[str, float]:
    """Set the selection noise of every router and return the current tau and alpha_1."""
    tau = anneal(config.tau, fraction)
    for routing in routings(model):
        routing.tau = tau
    return {"tau": tau, "alpha_aux": anneal(config.alpha_aux, fraction)}


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
    """Mean 1 - SSIM over the slices of `val`, what early stopping watches. A network must be in evaluation mode."""
    losses = []
    if isinstance(val, SliceDataset):
        val = Loader(val.seen_by(model), shuffle=False)
    for batch in val.epoch():
        batch = batch.to(device)
        losses.append(
            ssim_loss(model(batch.kspace, batch.mask, batch.n_acs).image, batch.target, batch.max_value)
        )
    return float(torch.stack(losses).mean())


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
    if loads := _shares(progress.sums, "load"):
        gates = _shares(progress.sums, "gate")
        line |= settings | {"load": loads, "mean_gate": gates}
        line["effective_experts"] = [effective_experts(torch.tensor(load)) for load in loads]
        line["effective_by_gate"] = [effective_experts(torch.tensor(gate)) for gate in gates]
    return line


def _shares(sums: dict[str, float], kind: str) -> list[list[float]]:
    """The sums named kind/cascade/expert as one list per cascade, each divided by its total."""
    rows: dict[str, list[float]] = {}
    for name, total in sums.items():
        if name.startswith(f"{kind}/"):
            rows.setdefault(name.split("/")[1], []).append(total)
    return [[value / sum(row) for value in row] for row in rows.values()]


def _finish_epoch(
    model: nn.Module, config: TrainConfig, progress: Progress, loss: float, weights: Path
) -> None:
    """Keep the best weights, decide whether to go on, and move to the next epoch."""
    if progress.best_loss is None or loss < progress.best_loss:
        progress.best_loss, progress.best_epoch = loss, progress.epoch
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

    def write(self, line: dict[str, Any]) -> int:
        """Append a line; returns how many there are."""
        self.lines.append(json.dumps(line))
        write_text(self.path, "\n".join(self.lines) + "\n")
        return len(self.lines)
