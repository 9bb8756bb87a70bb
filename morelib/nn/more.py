"""MoRE: E2EVarNet whose U-Nets share one encoder among N expert decoders, chosen per sample by a router."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from copy import deepcopy
from typing import Any, Literal, TypeVar

from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from morelib.nn.activation import Norm
from morelib.nn.checkpointing import run
from morelib.nn.complex_io import Door
from morelib.nn.sensitivity import SensitivityNetwork, SensResolution
from morelib.nn.unet import Decoder, Encoder
from morelib.nn.unrolled import Consistency, Context, Denoised, Unrolled
from morelib.routing import Router, RoutingRecord, SampleRouting
from morelib.routing.dispatch import mix_experts
from morelib.routing.moe import GateScale, NoiseOn
from morelib.routing.router import Crop

T = TypeVar("T")

PRESETS: dict[str, dict[str, Any]] = {
    # Eqs. 3 to 8 as printed. These are the defaults; the name makes a configuration say so.
    "paper": {},
    # What kept small runs from collapsing in our own trials; see the chapter on load balancing.
    "robust": {"crop": "pool", "standardise": True},
}


class MoreDenoiser(nn.Module):
    """Eq. 6: D(x) = sum over the chosen experts of g_i Dec_i(Enc(x)).

    Args:
        encoder: shared by all experts; the bottleneck belongs to it.
        experts: N decoders of one shape.
        router: may be the same module in several cascades.
        routing: selection, weights, cached inputs; one per cascade.
        restore_mean, checkpointing: see `e2e_varnet`.
    """

    def __init__(
        self,
        encoder: Encoder,
        experts: Sequence[Decoder],
        router: Router,
        routing: SampleRouting,
        restore_mean: bool = False,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.experts = nn.ModuleList(experts)
        self.router = router
        self.routing = routing
        self.restore_mean = restore_mean
        self.checkpointing = checkpointing

    def forward(self, image: Tensor, context: Context) -> Denoised:
        """Complex image (batch, y, x) to the denoised image and what the router did."""
        channels, door = Door.enter(image)
        routed: list[tuple[Tensor, RoutingRecord]] = []

        def denoise(channels: Tensor) -> Tensor:
            features = self.encoder(channels)
            if not routed:
                # When checkpointing runs this again, the routing is replayed: no new noise, no second entry in the
                # cache. So what the router keeps for its own gradient must outlive the first run.
                with saved_tensors_hooks(_keep, _keep) if self.checkpointing else nullcontext():
                    routed.append(self.routing(self.router, features, self.training))
            weights, record = routed[0]
            # Eq. 6
            return mix_experts(list(self.experts), features, weights, record.selected)

        mixed = run(self.checkpointing, denoise, channels)
        return Denoised(door.leave(mixed, self.restore_mean), routed[0][1])


def _keep(tensor: Tensor) -> Tensor:
    return tensor


def more(
    cascades: int = 12,
    widths: Sequence[int] = (16, 20, 24, 28),
    n_experts: int = 4,
    top_k: int = 2,
    sens_widths: Sequence[int] = (8, 16, 32, 64, 128),
    norm: Norm = "none",
    zero_init: bool = True,
    restore_mean: bool = False,
    consistency: Consistency = "kspace",
    sens_resolution: SensResolution = "full",
    checkpointing: bool = False,
    expert_init: Literal["independent", "copies"] = "independent",
    shared_router: bool = False,
    gate_scale: GateScale = "paper",
    gate_gradient: bool = True,
    noise_on: NoiseOn = "gates",
    crop: Crop = "centre",
    embedding: int = 64,
    reduction: int = 4,
    router_width: int | None = None,
    standardise: bool = False,
    cached_inputs: int = 16,
    cache_window: Sequence[int] = (40, 40),
) -> Unrolled:
    """MoRE as printed in Eqs. 3 to 8; each option is a decision that the paper leaves open.

    A step that trains on a GPU gives experts that nobody chose a gradient of zeros, on a processor none: see
    `mix_experts`. `drop_idle_gradients` makes the two alike, and AdamW leaves idle experts alone.

    With N = 8, K = 1 a step at the paper's size takes some 1.5 times that of `e2e_varnet` on a processor, because of
    the cached inputs: less than 1.1 times without any, or with all of them at `router_width=16`. A forward pass takes
    at most 1.1 times. On a GPU they are 1.4, 1.2, 1.3 and 1.1: a router is many operations, however small. Held
    against a dense network of as many active parameters the step takes 0.4 times the time, with `router_width=16` 0.9
    times.

    Args:
        cascades, widths, sens_widths, norm, zero_init, restore_mean, consistency, sens_resolution: as for `e2e_varnet`.
        checkpointing: as for `e2e_varnet`. Encoder, decoder and router run twice; noise is drawn, inputs are cached
            and experts are counted once.
        n_experts, top_k: N and K; the paper gives neither.
        expert_init: `independent` draws, or `copies` of the first expert.
        shared_router: one router for all cascades instead of one each.
        gate_scale, gate_gradient, noise_on, crop, cached_inputs, cache_window: see `SampleRouting`.
        embedding, reduction, router_width, standardise: see `Router`.
    """

    def new_router() -> Router:
        return Router(sum(widths), n_experts, embedding, reduction, router_width, standardise, checkpointing)

    def new_experts() -> list[Decoder]:
        first = Decoder(2, widths, norm, zero_init)
        if expert_init == "copies":
            return [first, *(deepcopy(first) for _ in range(n_experts - 1))]
        return [first, *(Decoder(2, widths, norm, zero_init) for _ in range(n_experts - 1))]

    shared = new_router() if shared_router else None
    denoisers = (
        MoreDenoiser(
            Encoder(2, widths, norm),
            new_experts(),
            shared or new_router(),
            SampleRouting(
                top_k,
                gate_scale,
                noise_on,
                gate_gradient,
                crop,
                cached_inputs,
                (cache_window[0], cache_window[1]),
            ),
            restore_mean,
            checkpointing,
        )
        for _ in range(cascades)
    )
    sensitivity = SensitivityNetwork(sens_widths, norm, sens_resolution, checkpointing)
    return Unrolled(denoisers, sensitivity, consistency)


def routings(model: nn.Module) -> list[SampleRouting]:
    """The routing of each cascade that has one, in order: where a trainer sets tau and stores the cached inputs."""
    return [denoiser.routing for denoiser in denoisers_of(model)]


def expert_parameters(model: nn.Module) -> list[list[list[nn.Parameter]]]:
    """The parameters of every expert of every cascade that has some."""
    return [[list(expert.parameters()) for expert in each.experts] for each in denoisers_of(model)]


def drop_idle_gradients(
    experts: Sequence[Sequence[Sequence[nn.Parameter]]], counts: Sequence[Sequence[float]]
) -> None:
    """Make the gradients of experts that no sample chose None, so that AdamW leaves them alone on every device.

    Args:
        experts: what `expert_parameters` gives.
        counts: how often each expert was chosen in this step, by all processes together: one row per cascade.
    """
    for cascade, row in zip(experts, counts, strict=True):
        for parameters, count in zip(cascade, row, strict=True):
            if not count:
                for parameter in parameters:
                    parameter.grad = None


def denoisers_of(model: nn.Module) -> list[MoreDenoiser]:
    """MoRE's denoisers in `model`, in the order of its cascades; none in another network."""
    return [module for module in model.modules() if isinstance(module, MoreDenoiser)]


def dense_state(state: Mapping[str, T]) -> dict[str, T]:
    """The entries of a one-expert MoRE under the names that `e2e_varnet` gives them, the router's left out.

    With one expert the gate is one, and MoRE is the dense network. Takes a state dict, gradients, anything by name.
    """
    return {
        name.replace("denoiser.encoder", "denoiser.unet.encoder").replace("experts.0", "unet.decoder"): value
        for name, value in state.items()
        if ".router." not in name
    }
