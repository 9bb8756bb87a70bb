"""A router trained by its own losses alone (Eq. 7), on frozen encoder features: the smallest test for collapse."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from morelib.data.batches import Batch, collate
from morelib.data.dataset import SliceDataset
from morelib.nn.complex_io import Door
from morelib.nn.unrolled import Unrolled
from morelib.physics.fourier import centre_crop
from morelib.physics.sense import SenseOperator
from morelib.routing.cache import InputCache
from morelib.routing.diagnostics import effective_experts, expert_load, gate_information, label_agreement
from morelib.routing.losses import anneal, router_losses
from morelib.routing.router import Crop, Router, route, router_input
from morelib.routing.selection import select_top_k


@dataclass(frozen=True)
class Arm:
    """One way to train the router. Pairs are (start, end) of the annealing; the defaults are the paper's."""

    crop: Crop = "centre"
    standardise: bool = False
    tau: tuple[float, float] = (1.0, 0.01)
    alpha_aux: tuple[float, float] = (0.1, 0.001)
    alpha_sparse: float = 0.005
    alpha_z: float = 0.001
    cached_inputs: int = 16


ARMS: Mapping[str, Arm] = {
    "as printed": Arm(),
    "no noise": Arm(tau=(0.0, 0.0)),
    "no auxiliary loss": Arm(alpha_aux=(0.0, 0.0)),
    "no sparsity loss": Arm(alpha_sparse=0.0),
    "no z-loss": Arm(alpha_z=0.0),
    "no cached inputs": Arm(cached_inputs=0),
    "robust": Arm(crop="pool", standardise=True),
}


@dataclass(frozen=True)
class FrozenInputs:
    """Router inputs (1, channels, y, x) of some slices in either crop, ordered by size, and the slices' categories."""

    by_crop: Mapping[Crop, list[Tensor]]
    labels: list[str]


@dataclass(frozen=True)
class RouterState:
    """What a router does with a set of slices, without noise.

    load: share of selections of each expert. effective: exp of its entropy. entropy: mean entropy of a slice's gates,
    in nats. information: between slice and expert, in nats. agreement: of the choice with the categories (AMI).
    """

    load: list[float]
    effective: float
    entropy: float
    information: float
    agreement: float


@dataclass(frozen=True)
class RouterRun:
    """One training: `history[i]` is the state after `steps[i]` steps."""

    steps: list[int]
    history: list[RouterState]

    @property
    def final(self) -> RouterState:
        return self.history[-1]


def encoder_features(model: Unrolled, batch: Batch) -> list[Tensor]:
    """E_1 .. E_L of the first cascade for the zero-filled image, cropped to the target's field of view.

    The readout is oversampled by two: what the crop takes away is air, and half of the router's work.
    """
    sens_maps = model.sensitivity(batch.kspace, batch.mask, batch.n_acs)
    image = SenseOperator(sens_maps, batch.mask).H(batch.kspace)
    height, width = batch.target.shape[-2:]
    channels, _ = Door.enter(centre_crop(image, (height, width)))
    features: list[Tensor] = model.cascades[0].denoiser.encoder(channels)  # type: ignore[operator]
    return features


@torch.no_grad()
def frozen_inputs(model: Unrolled, dataset: SliceDataset, limit: int = 280) -> FrozenInputs:
    """Router inputs of at most `limit` slices of `dataset`, spread evenly over it. `model` routes, as MoRE does."""
    device = next(model.parameters()).device
    step = max(len(dataset) / limit, 1)
    rows = []
    for number in range(min(limit, len(dataset))):
        batch = collate([dataset[int(number * step)]]).to(device)
        features = encoder_features(model, batch)
        rows.append((router_input(features, "centre"), router_input(features, "pool"), batch.acquisition[0]))
    rows.sort(key=lambda row: row[0].shape)  # so that neighbours can be stacked
    centre, pool, labels = (list(column) for column in zip(*rows, strict=True))
    return FrozenInputs({"centre": centre, "pool": pool}, labels)


def stacks(inputs: Sequence[Tensor]) -> list[list[Tensor]]:
    """`inputs` in their order, neighbours of equal size in one batch, as `route` takes them."""
    return [list(group) for _, group in groupby(inputs, key=lambda x: x.shape)]


@torch.no_grad()
def state(router: Router, inputs: Sequence[Tensor], labels: Sequence[str], top_k: int) -> RouterState:
    """Measure `router` in evaluation mode; it is left in training mode."""
    gates = route(router.eval(), stacks(inputs)).gates.cpu()
    router.train()
    return _measure(gates, select_top_k(gates, top_k), labels)


def _measure(gates: Tensor, selected: Tensor, labels: Sequence[str]) -> RouterState:
    load = expert_load(selected, gates.shape[-1])
    entropy, _, information = gate_information(gates)
    return RouterState(
        load.tolist(), effective_experts(load), entropy, information, label_agreement(selected, labels)
    )


def train_router(
    data: FrozenInputs,
    arm: Arm,
    *,
    steps: int,
    seed: int,
    n_experts: int = 4,
    top_k: int = 1,
    width: int | None = None,
    lr: float = 1e-3,
    measurements: int = 6,
) -> RouterRun:
    """Train one router at batch size 1 for `steps` steps of AdamW, with gradients clipped to norm 1.

    `seed` sets the weights, the order of the slices and the noise; the caller's random numbers are left alone.
    """
    inputs = data.by_crop[arm.crop]
    window = (max(x.shape[-2] for x in inputs), max(x.shape[-1] for x in inputs))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        router = Router(inputs[0].shape[1], n_experts, width=width, standardise=arm.standardise).to(
            inputs[0].device
        )
        optimizer = torch.optim.AdamW(router.parameters(), lr=lr, weight_decay=0.01)
        cache, history, at = InputCache(arm.cached_inputs, window), [], []
        for step in range(steps + 1):
            if step % max(steps // measurements, 1) == 0 or step == steps:
                history.append(state(router, inputs, data.labels, top_k))
                at.append(step)
            if step == steps:
                break
            if step % len(inputs) == 0:
                order = torch.randperm(len(inputs)).tolist()
            own, progress = inputs[order[step % len(inputs)]], step / steps
            # Sec. III-B3: the current input and the cached ones make one router batch.
            output = route(router, cache.batches(first=own))
            selected = select_top_k(output.gates, top_k, anneal(arm.tau, progress))  # Eq. 8
            losses = router_losses(output.logits, output.gates, selected)
            # Eq. 7
            loss = losses.weighted(anneal(arm.alpha_aux, progress), arm.alpha_sparse, arm.alpha_z)
            cache.push(own)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(router.parameters(), 1.0)
            optimizer.step()
    return RouterRun(at, history)


def untrained_router(
    data: FrozenInputs, *, seed: int, n_experts: int = 4, top_k: int = 1, width: int | None = None
) -> RouterState:
    """Control: a router that never trained. Its gate is drawn at random, since equal gates would choose nothing."""
    inputs = data.by_crop["centre"]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        router = Router(inputs[0].shape[1], n_experts, width=width)
        torch.nn.init.normal_(router.gate.weight)
    return state(router.to(inputs[0].device), inputs, data.labels, top_k)


def random_choice(data: FrozenInputs, *, seed: int, n_experts: int = 4, top_k: int = 1) -> RouterState:
    """Control: gates drawn at random for each slice, whatever it shows."""
    generator = torch.Generator().manual_seed(seed)
    gates = torch.randn(len(data.labels), n_experts, generator=generator).softmax(-1)
    return _measure(gates, select_top_k(gates, top_k), data.labels)


@torch.no_grad()
def common_share(
    data: FrozenInputs, *, crop: Crop, standardise: bool, width: int | None = None, seed: int = 0
) -> float:
    """How much of an untrained router's embedding F_r is the same for all slices: |mean F_r|^2 / mean |F_r|^2.

    Near 1 all slices look alike to the linear gate, and whatever it learns moves them together.
    """
    inputs = data.by_crop[crop]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        router = Router(inputs[0].shape[1], 2, width=width, standardise=standardise).to(inputs[0].device)
    embedding = route(
        router, stacks(inputs)
    ).embedding  # in training mode: standardised over these very slices
    return float(embedding.mean(0).square().sum() / embedding.square().sum(-1).mean())
