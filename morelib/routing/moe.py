"""Routing as a network uses it: route the samples (and, in training, the cached inputs), choose, weigh, record."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from morelib.routing.cache import InputCache
from morelib.routing.losses import RouterLosses, router_losses
from morelib.routing.router import Crop, Router, RouterOutput, route, router_input
from morelib.routing.selection import select_top_k

GateScale = Literal["paper", "renormalise", "n_over_k"]
NoiseOn = Literal["gates", "logits"]


class RouterBatch(NamedTuple):
    """What the router losses see: the samples and, after them, the cached inputs.

    logits, gates: (router batch, n_experts). selected: int64 (router batch, k).
    """

    logits: Tensor
    gates: Tensor
    selected: Tensor


class RoutingRecord(NamedTuple):
    """What a router did with one batch. `router_batch` is set in training only.

    logits, gates: (batch, n_experts). selected: int64 (batch, k), best first. embedding: F_r, (batch, embedding).
    """

    logits: Tensor
    gates: Tensor
    selected: Tensor
    embedding: Tensor
    router_batch: RouterBatch | None = None


def losses_of(records: Sequence[RoutingRecord]) -> RouterLosses:
    """The terms of Eq. 7 of a pass in training, mean over its cascades.

    Of all cascades at once: a few operations, and one exchange between processes, instead of some for each cascade.
    """
    batches = [record.router_batch for record in records if record.router_batch]
    return router_losses(*(torch.stack(field) for field in zip(*batches, strict=True)))


class SampleRouting:
    """Eqs. 3 to 8 around one router: everything between encoder features and expert weights.

    Holds no parameters (the router may be shared between cascades), but the input cache and the current noise level.

    Args:
        top_k: K.
        gate_scale: `paper` uses the softmax weights as they are (Eq. 6); `renormalise` makes the chosen ones sum to
            one (at K = 1 this cuts the router off the reconstruction loss); `n_over_k` multiplies by N / K, so that
            uniform gates sum to one.
        noise_on: `gates` as printed in Eq. 8, or `logits`.
        gate_gradient: let the reconstruction loss train the router through the weights. The paper detaches the
            router's inputs only, so this is on.
        crop: see `router_input`.
        cached_inputs: size of the dummy batch.
        cache_window: largest size of a cached input.
    """

    def __init__(
        self,
        top_k: int = 2,
        gate_scale: GateScale = "paper",
        noise_on: NoiseOn = "gates",
        gate_gradient: bool = True,
        crop: Crop = "centre",
        cached_inputs: int = 16,
        cache_window: tuple[int, int] = (40, 40),
    ) -> None:
        self.top_k = top_k
        self.gate_scale = gate_scale
        self.noise_on = noise_on
        self.gate_gradient = gate_gradient
        self.crop = crop
        self.cache = InputCache(cached_inputs, cache_window)
        self.tau: float | Tensor = 0.0

    def __call__(
        self, router: Router, features: Sequence[Tensor], training: bool
    ) -> tuple[Tensor, RoutingRecord]:
        """Route a batch of encoder features.

        Returns:
            weights (batch, n_experts), to be used at the selected experts, and the record.
        """
        inputs = router_input(features, self.crop)
        if not training:
            output = router(inputs)
            selected = self._select(output, tau=0.0)
            return self._weights(output.gates, selected), RoutingRecord(
                output.logits, output.gates, selected, output.embedding
            )
        batch = len(inputs)
        # Dummy batch (Sec. III-B3): the cached inputs join the router batch; only the router losses see them.
        everything = route(router, self.cache.batches(first=inputs))
        selected = self._select(everything, tau=self.tau)
        self.cache.push(inputs)
        own = RouterOutput(*[field[:batch] for field in everything])
        seen = RouterBatch(everything.logits, everything.gates, selected)
        record = RoutingRecord(own.logits, own.gates, selected[:batch], own.embedding, seen)
        return self._weights(own.gates, selected[:batch]), record

    def _select(self, output: RouterOutput, tau: float | Tensor) -> Tensor:
        scores = output.gates if self.noise_on == "gates" else output.logits
        # Eq. 6: the set K, with the noise of Eq. 8
        return select_top_k(scores, self.top_k, tau)

    def _weights(self, gates: Tensor, selected: Tensor) -> Tensor:
        # Eq. 6: g_i, what the chosen experts weigh
        weights = gates if self.gate_gradient else gates.detach()
        if self.gate_scale == "renormalise":
            return weights / weights.gather(-1, selected).sum(-1, keepdim=True)
        if self.gate_scale == "n_over_k":
            return weights * (gates.shape[-1] / self.top_k)
        return weights
