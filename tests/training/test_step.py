"""A step that replays recorded graphs trains as one that runs its passes; what can be recorded, and what cannot."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric

from morelib.data.batches import Batch
from morelib.nn import build_model
from morelib.nn.graphs import Replayed, copied, recordable
from morelib.nn.more import routings
from morelib.physics.masks import acs_columns
from morelib.training.config import TrainConfig
from morelib.training.step import TrainStep, compile_unets, new_optimizer

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a GPU")
SIZES: dict[str, Any] = {"cascades": 2, "widths": (4, 6, 8)}
NETWORKS: dict[str, dict[str, Any]] = {
    "e2e_varnet": {"norm": "instance", "sens_widths": (4, 6)},
    "more": {"n_experts": 4, "top_k": 1, "cached_inputs": 3, "sens_widths": (4, 6)},
    "promptmr_plus": {
        "prompt_widths": (4, 4), "prompt_sizes": (4, 4), "encoder_blocks": (1, 1), "decoder_blocks": (1, 1),
        "bottleneck_blocks": 1,
    },
}  # fmt: skip


def _batch(seed: int, device: str = "cpu", size: tuple[int, int] = (48, 32)) -> Batch:
    generator, one = torch.Generator().manual_seed(seed), ("noise",)
    mask = acs_columns(size[1], torch.tensor([12]))
    kspace = torch.randn(1, 3, *size, dtype=torch.complex64, generator=generator) * mask
    target = torch.rand(1, *size, generator=generator)
    return Batch(kspace, mask, 12, target, target.amax((1, 2)), one, (0,), one, one, (4.0,)).to(device)


def _step(name: str, config: TrainConfig, device: str = "cpu") -> TrainStep:
    torch.manual_seed(0)
    model = build_model(name, **SIZES, **NETWORKS[name])
    fabric = Fabric(accelerator=device, devices=1)
    wrapped, optimizer = fabric.setup(model, new_optimizer(model, config))
    return TrainStep(fabric, wrapped.train(), optimizer, config)


def _train(step: TrainStep, batches: list[Batch]) -> list[dict[str, float]]:
    torch.manual_seed(1)
    return [step(batch, tau=1 / (1 + i), alpha_aux=0.1 / (1 + i)) for i, batch in enumerate(batches)]


def test_a_step_lowers_the_loss_of_its_batch() -> None:
    step, batch = _step("e2e_varnet", TrainConfig(lr=1e-2)), _batch(0)
    terms = _train(step, [batch] * 8)
    assert terms[-1]["train_ssim_loss"] < terms[0]["train_ssim_loss"]
    assert "loss" not in terms[0]


@pytest.mark.filterwarnings(
    "ignore:The .grad attribute of a Tensor that is not"
)  # PyTorch's compiler reads it
@pytest.mark.parametrize("size", [(48, 32), (192, 176)])  # below and above what a processor convolves by hand
@pytest.mark.parametrize("name", NETWORKS)
def test_a_u_net_compiles_to_one_graph_with_the_same_result(name: str, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    model, batch = build_model(name, **SIZES, **NETWORKS[name], zero_init=False), _batch(0, size=size)
    images, gradients = [], []
    for compiled in (False, True):
        if compiled:
            compile_unets(model, backend="eager", fullgraph=True)
        torch.manual_seed(1)  # for the router's noise
        images.append(model(batch.kspace, batch.mask, batch.n_acs).image)
        model.zero_grad()
        images[-1].sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    torch._dynamo.reset()
    torch.testing.assert_close(images[1], images[0], rtol=1e-4, atol=1e-5)
    difference = torch.linalg.vector_norm(gradients[1] - gradients[0])
    assert difference < 1e-3 * torch.linalg.vector_norm(gradients[0])


@pytest.mark.parametrize("name", NETWORKS)
def test_the_optimiser_does_what_plain_adamw_does(name: str) -> None:
    """A fused one goes over weights and moments as they lie in memory: they have to lie alike."""
    config, weights = TrainConfig(lr=1e-3), []
    for plain in (False, True):
        step = _step(name, config)
        if plain:
            step.optimizer.param_groups[0]["fused"] = False
        _train(step, [_batch(seed) for seed in range(3)])
        weights.append(list(step.model.parameters()))
    for fused, plain in zip(*weights, strict=True):
        torch.testing.assert_close(fused, plain, rtol=0, atol=2e-6)


@needs_gpu
@pytest.mark.parametrize("name", NETWORKS)
def test_replayed_steps_train_as_eager_ones(name: str) -> None:
    """Two shapes by turns, noise and weights of the loss that change, a cache that fills up."""
    batches = [_batch(seed, "cuda", (48, 32) if seed % 3 else (40, 32)) for seed in range(12)]
    config, deterministic = TrainConfig(lr=1e-3), torch.backends.cudnn.deterministic
    torch.backends.cudnn.deterministic = True
    try:
        logs, weights = [], []
        for graphs in (False, True):
            step = _step(name, replace(config, graphs=graphs), "cuda")
            logs.append(_train(step, batches))
            weights.append(list(step.model.parameters()))
            if graphs and name != "more":
                assert len(step._replayed._recordings) == 2
    finally:
        torch.backends.cudnn.deterministic = deterministic
    for eager, replayed in zip(*logs, strict=True):
        assert eager == pytest.approx(replayed, rel=2e-3, abs=1e-4)
    for eager_weight, weight in zip(*weights, strict=True):
        torch.testing.assert_close(weight, eager_weight, rtol=1e-2, atol=2e-3)


@needs_gpu
def test_a_full_cache_of_one_size_is_recorded_and_goes_on_moving() -> None:
    batches = [_batch(seed, "cuda") for seed in range(10)]
    caches = []
    for graphs in (False, True):
        step = _step("more", TrainConfig(lr=1e-4, graphs=graphs), "cuda")
        _train(step, batches)
        caches.append([entry for routing in routings(step.model) for entry in routing.cache.state()])
    assert len(step._replayed._recordings) == 1
    for eager, replayed in zip(*caches, strict=True):
        torch.testing.assert_close(replayed, eager, rtol=1e-2, atol=1e-2)


@needs_gpu
@pytest.mark.parametrize("name", NETWORKS)
def test_replayed_reconstructions_are_the_eager_ones_and_see_new_weights(name: str) -> None:
    model = _step(name, TrainConfig(), "cuda").model.eval()
    replayed, kept = Replayed(model), []
    with torch.inference_mode():
        for seed in range(4):
            batch = _batch(seed, "cuda")
            expected = model(batch.kspace, batch.mask, n_acs=batch.n_acs).image
            kept.append((copied(replayed(batch.kspace, batch.mask, n_acs=batch.n_acs)).image, expected))
            if seed == 2:
                next(model.parameters()).mul_(1.5)
    for image, expected in kept:
        torch.testing.assert_close(image, expected, rtol=1e-3, atol=1e-4)


def test_what_runs_python_for_every_batch_is_not_recorded() -> None:
    model = build_model("e2e_varnet", **SIZES, sens_widths=(4, 6))
    assert recordable(model, "cuda") and not recordable(model, "cpu")
    handle = model.sensitivity.register_forward_hook(lambda *_: None)
    assert not recordable(model, "cuda")
    handle.remove()
    assert recordable(model, "cuda")
    assert not recordable(build_model("hifi_mamba_v2", cascades=1, width=8, blocks=1), "cuda")
    assert not recordable(lambda kspace, mask: kspace, "cuda")
