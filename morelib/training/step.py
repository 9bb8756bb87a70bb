"""One optimiser step: reconstruction loss, router losses of Eq. 7, gradients, clipping, AdamW."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from morelib.data.batches import Batch
from morelib.nn.graphs import Replayed, recordable
from morelib.nn.more import drop_idle_gradients, expert_parameters, routings
from morelib.nn.prompt_unet import PromptUNet
from morelib.nn.unet import Decoder, Encoder
from morelib.nn.unrolled import Reconstruction, Record
from morelib.routing import PixelRouting, RoutingRecord, losses_of
from morelib.routing.selection import expert_counts
from morelib.training.config import TrainConfig
from morelib.training.losses import ssim_loss
from morelib.training.processes import mean_over_processes


class Diverged(RuntimeError):
    """The loss is no longer a number. In training the message names the volume and the slice it happened on."""


class TrainStep:
    """`step(batch, tau, alpha_aux)` trains `model` on one batch and gives the terms of the loss for the log.

    On one GPU the forward and the backward pass of each shape of batch are recorded and replayed, where
    `config.graphs` says so and the network allows it: see `morelib.nn.graphs`.

    Args:
        fabric: has set up the model and the optimiser.
        model: as `fabric.setup` returned it.
        optimizer: likewise.
        config: weights of the router losses, clipping, graphs, compilation.
    """

    def __init__(self, fabric: Fabric, model: nn.Module, optimizer: Any, config: TrainConfig) -> None:
        self.fabric, self.model, self.optimizer, self.config = fabric, model, optimizer, config
        self._routings = routings(model)
        self._parameters, self._experts = list(model.parameters()), expert_parameters(model)
        self._replays = config.graphs and fabric.world_size == 1 and recordable(model, fabric.device)
        self._replayed = Replayed(self._passes, lambda: tuple(each.cache.moved for each in self._routings))

    def __call__(self, batch: Batch, tau: float, alpha_aux: float) -> dict[str, float]:
        """Raises Diverged, in all processes, if the loss of one is not finite. The terms are unweighted.

        Args:
            batch: on the device of the model.
            tau: noise of the selection, Eq. 8.
            alpha_aux: alpha_1 of Eq. 7.
        """
        tensors = batch.kspace, batch.mask, batch.target, batch.max_value
        if self._replays:  # numbers would be recorded as they are now
            changing = (torch.full((), value, device=self.fabric.device) for value in (tau, alpha_aux))
            names, values, gradients = self._replayed(*tensors, *changing, n_acs=batch.n_acs)
        else:
            names, values, gradients = self._passes(*tensors, tau, alpha_aux, n_acs=batch.n_acs)
        for parameter, gradient in zip(self._parameters, gradients, strict=True):
            parameter.grad = gradient
        # One transfer from the device, not one per term, and one between processes.
        numbers = dict(zip(names, mean_over_processes(values).tolist(), strict=True))
        if not math.isfinite(numbers["loss"] + numbers["grad_norm"]):
            self._stop(batch, values[names.index("loss")], numbers["grad_norm"])
        del numbers["loss"]
        if self._experts:  # on a GPU those without samples have a gradient all the same
            drop_idle_gradients(self._experts, shares(numbers, "load"))
        self.optimizer.step()
        return numbers

    def _passes(
        self,
        kspace: Tensor,
        mask: Tensor,
        target: Tensor,
        max_value: Tensor,
        tau: float | Tensor,
        alpha_aux: float | Tensor,
        n_acs: int,
    ) -> tuple[list[str], Tensor, list[Tensor | None]]:
        """Names and values of the terms, and the clipped gradients."""
        for routing in self._routings:
            routing.tau = tau
        output: Reconstruction = self.model(kspace, mask, n_acs)
        reconstruction = ssim_loss(output.image, target, max_value)
        loss, terms = reconstruction, {"train_ssim_loss": reconstruction.detach()}
        records = output.routing or ()
        if routed := [record for record in records if isinstance(record, RoutingRecord)]:
            router = losses_of(routed)
            # Eq. 7 is added to the reconstruction loss; its gradient ends at the routers' detached inputs.
            loss = loss + router.weighted(alpha_aux, self.config.alpha_sparse, self.config.alpha_z)
            terms |= {name: term.detach() for name, term in router._asdict().items()}
        if balances := [record.balance for record in records if isinstance(record, PixelRouting)]:
            # HiFi-MambaV2 balances single pixels; as published, this gradient does reach the features.
            balance = torch.stack(balances).mean()
            loss = loss + self.config.alpha_balance * balance
            terms["balance"] = balance.detach()
        terms |= _usage_terms(records)
        # Experts without samples keep gradient None, and AdamW leaves them alone.
        self.optimizer.zero_grad(set_to_none=True)
        self.fabric.backward(loss)
        norm = self.fabric.clip_gradients(
            self.model, self.optimizer, max_norm=self.config.clip_norm, error_if_nonfinite=False
        )
        assert norm is not None
        terms |= {"grad_norm": norm, "loss": loss.detach()}
        values = torch.stack([value.float() for value in terms.values()])
        return list(terms), values, [parameter.grad for parameter in self._parameters]

    def _stop(self, batch: Batch, loss: Tensor, norm: float) -> NoReturn:
        """Raise `Diverged` in all processes with the message of the one whose loss it was, if there is one."""
        where = ", ".join(f"{name} slice {i}" for name, i in zip(batch.volume, batch.index, strict=True))
        message = (
            f"loss {loss.item()}, gradient norm {norm} on {where}; lower lr or clip_norm, or check this file"
        )
        sick = torch.as_tensor(self.fabric.all_gather((~torch.isfinite(loss)).int()))
        raise Diverged(self.fabric.broadcast(message, src=int(sick.argmax())))


def _usage_terms(records: Sequence[Record]) -> dict[str, Tensor]:
    """Counts of selections and sums of gates, by cascade and expert."""
    terms = {}
    for cascade, record in enumerate(records):
        counts = expert_counts(record.selected.flatten(0, -2), record.gates.shape[-1])
        gates = record.gates.detach().flatten(0, -2).sum(0)
        for expert, (count, gate) in enumerate(zip(counts, gates, strict=True)):
            terms[f"load/{cascade}/{expert}"] = count
            terms[f"gate/{cascade}/{expert}"] = gate
    return terms


def shares(sums: Mapping[str, float], kind: str) -> list[list[float]]:
    """The sums named kind/cascade/expert as one list per cascade, each divided by its total."""
    rows: dict[str, list[float]] = {}
    for name, total in sums.items():
        if name.startswith(f"{kind}/"):
            rows.setdefault(name.split("/")[1], []).append(total)
    return [[value / sum(row) for value in row] for row in rows.values()]


def new_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """AdamW, each parameter updated at one go: on a processor three times as fast as operation by operation."""
    return torch.optim.AdamW(model.parameters(), lr=config.lr, weight_decay=config.weight_decay, fused=True)


def compile_unets(model: nn.Module, **options: Any) -> None:
    """Compile the U-Nets of `model` by `torch.compile` with its options, in place: names of parameters stay."""
    # Sizes, widths and modes meet in the same few functions; beyond the limit they would quietly not be compiled.
    torch._dynamo.config.recompile_limit = 64
    for module in model.modules():
        if isinstance(module, Encoder | Decoder | PromptUNet):
            module.compile(**options)
