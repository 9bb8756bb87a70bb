"""HiFi-MambaV2 as a whole: sizes, coils, scale, gradients, parameter counts, routing records, checkpointing."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from morelib.nn import Unrolled
from morelib.nn.count import count_parameters
from morelib.nn.hifi_mamba import PRESETS, hifi_mamba_v2
from morelib.nn.hifi_mamba.experts import SharedRoutedExperts
from morelib.nn.hifi_mamba.layers import DropPath
from morelib.physics.fourier import fft2c, ifft2c
from morelib.physics.masks import acs_columns
from morelib.physics.sense import rss

SMALL = {"cascades": 2, "blocks": 1, "width": 16, "state": 4, "sens_widths": (4, 6), "zero_init": False}
QUIET = {"drop_path": 0.0, "dropout": 0.0}


def _model(**options: object) -> Unrolled:
    torch.manual_seed(0)
    return hifi_mamba_v2(**{**SMALL, **options})  # type: ignore[arg-type]


def _data(batch: int = 1, coils: int = 3, height: int = 30, width: int = 22) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    mask = torch.rand(1, 1, 1, width, generator=generator) < 0.4
    mask = (mask | acs_columns(width, torch.tensor([6]))).expand(batch, -1, -1, -1)
    kspace = torch.randn(batch, coils, height, width, dtype=torch.complex64, generator=generator)
    return 1e-4 * kspace * mask, mask


def _finite_gradients(model: nn.Module) -> bool:
    return all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("size", [(30, 22), (31, 23), (9, 40), (33, 17)])
@pytest.mark.parametrize("coils", [1, 4])
@pytest.mark.parametrize("patch", [1, 2, 3])
def test_image_has_the_size_of_kspace(size: tuple[int, int], coils: int, patch: int) -> None:
    kspace, mask = _data(2, coils, *size)
    image = _model(patch=patch)(kspace, mask).image
    assert image.shape == (2, *size) and image.dtype == torch.float32
    assert torch.isfinite(image).all() and (image >= 0).all()


@pytest.mark.parametrize("case", ["28 coils", "dead coil", "empty slice", "one coil", "empty sample"])
def test_finite_images_and_gradients(case: str) -> None:
    model, (kspace, mask) = _model(), _data(2, {"28 coils": 28, "one coil": 1}.get(case, 3))
    if case == "dead coil":
        kspace[:, 1] = 0
    if case == "empty slice":
        kspace[:] = 0
    if case == "empty sample":
        kspace[1] = 0
    output = model(kspace, mask)
    assert torch.isfinite(output.image).all()
    (output.image.sum() + sum(record.balance for record in output.routing)).backward()
    assert _finite_gradients(model)
    if case == "dead coil":
        assert model.sensitivity(kspace, mask)[:, 1].abs().max() == 0
    if case in ("empty slice", "empty sample"):
        assert output.image[-1].abs().max() == 0


@torch.no_grad()
def test_equivariant_to_the_scale_of_kspace() -> None:
    model, (kspace, mask) = _model().eval(), _data()
    image, scaled = model(kspace, mask).image, model(1e4 * kspace, mask).image
    assert (1e4 * image - scaled).norm() / scaled.norm() < 1e-4


@torch.no_grad()
def test_a_sample_does_not_depend_on_its_neighbours_in_the_batch() -> None:
    model, (kspace, mask) = _model().eval(), _data(batch=3)
    kspace = kspace * torch.tensor([1.0, 30.0, 0.1])[:, None, None, None]
    together = model(kspace, mask).image
    for i in range(3):
        alone = model(kspace[i : i + 1], mask[:1]).image
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-3, atol=1e-3 * alone.max().item())


@torch.no_grad()
def test_measured_kspace_comes_back_exactly() -> None:
    """One coil: the image's k-space has the measured columns, whatever the network made of the others."""
    kspace, mask = _data(coils=1)
    model = _model().eval()
    seen = []
    model.cascades[-1].denoiser.register_forward_hook(lambda _, __, output: seen.append(output.image))
    image = model(kspace, mask).image
    completed = torch.where(mask[:, 0], kspace[:, 0], fft2c(seen[0]))
    torch.testing.assert_close(image, ifft2c(completed).abs())
    assert not torch.allclose(seen[0].abs(), image)


@torch.no_grad()
def test_from_a_zero_start_the_first_image_is_the_zero_filled_one() -> None:
    kspace, mask = _data(coils=1)
    model = _model(zero_init=True)
    torch.testing.assert_close(model(kspace, mask).image, rss(ifft2c(kspace)))


@torch.no_grad()
def test_a_single_coil_has_the_map_one_and_given_maps_replace_the_network() -> None:
    model, (kspace, mask) = _model().eval(), _data(coils=1)
    ones = torch.ones_like(kspace)
    assert torch.equal(model(kspace, mask).image, model(kspace, mask, sens_maps=ones).image)
    kspace, mask = _data()
    maps = model.sensitivity(kspace, mask)
    assert torch.equal(model(kspace, mask).image, model(kspace, mask, sens_maps=maps).image)
    assert not torch.equal(model(kspace, mask).image, model(kspace, mask, sens_maps=maps.roll(1, 1)).image)


@pytest.mark.parametrize("share", [True, False])
def test_gradients_reach_every_parameter_but_those_of_idle_experts(share: bool) -> None:
    model, (kspace, mask) = _model(share_experts_across_depth=share, blocks=2, **QUIET), _data(2)
    output = model(1e4 * kspace, mask)
    output.image.square().mean().backward()
    silent = {name for name, p in model.named_parameters() if p.grad is None or p.grad.abs().max() == 0}
    used = {
        f"{name}.bank.routed.{expert}."
        for name, module in model.named_modules(remove_duplicate=False)
        if isinstance(module, SharedRoutedExperts)
        for expert in _chosen(output, name)
    }
    names = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    assert all(any(prefix in name for name in names) for prefix in used)
    assert all(".bank.routed." in name for name in silent)
    if not share:
        assert not any(name.startswith(tuple(used)) for name in silent)


def _chosen(output: object, name: str) -> list[int]:
    """Experts that were chosen in the block of `cascades.C.denoiser.blocks.B.experts`."""
    parts = name.split(".")
    return output.routing[int(parts[1])].selected[int(parts[4])].unique().tolist()  # type: ignore[attr-defined]


def test_experts_are_shared_across_depth_and_routers_are_not() -> None:
    layers = [m for m in _model(blocks=2).modules() if isinstance(m, SharedRoutedExperts)]
    assert len(layers) == 4 and len({id(layer.bank) for layer in layers}) == 1
    assert len({id(layer.router) for layer in layers}) == 4
    layers = [
        m for m in _model(share_experts_across_depth=False).modules() if isinstance(m, SharedRoutedExperts)
    ]
    assert len({id(layer.bank) for layer in layers}) == 2


def test_parameter_counts_of_the_presets() -> None:
    def denoisers(preset: str) -> int:
        return sum(p.numel() for p in hifi_mamba_v2(**PRESETS[preset]).cascades.parameters())

    official, expert = denoisers("official"), 2 * 128 * 256 + 128 + 256
    assert official == 6_913_996
    assert denoisers("paper") == official - 11 * 5 * expert == 3_288_396
    # What the published code has beside, none of which acts. In 12 blocks: a Linear after the experts, a norm, a route
    # score (its size is not given: 128 to 2 fits), step sizes of the guide, eight of nine taps of a 3x3 kernel on a
    # map of one pixel. And two patch embeddings and a readout; of these one pair is inferred from the totals.
    dead = 12 * (128 * 128 + 128 + 256 + 258 + 4 * 128 + 8 * 128) + 2 * (2 * 4 * 128 + 128 + 256) + 128 * 8
    assert round((official + dead) / 1e6, 3) == 7.141


def test_active_parameters_leave_out_the_experts_a_pixel_does_not_choose() -> None:
    own = _model(share_experts_across_depth=False)
    expert = 2 * 16 * 32 + 16 + 32
    total, active = count_parameters(own)
    assert total == sum(p.numel() for p in own.parameters())
    assert total - active == 2 * 3 * expert
    # Two blocks that share four experts may choose two of them.
    total, active = count_parameters(_model())
    assert total - active == 2 * expert


def test_records_say_what_each_pixel_chose() -> None:
    output = _model(blocks=2, n_experts=3)(*_data(2, 3, 31, 22))
    assert len(output.routing) == 2
    for record in output.routing:
        assert record.gates.shape == (2, 2, 16, 11, 3) and record.selected.shape == (2, 2, 16, 11)
        torch.testing.assert_close(record.gates.sum(-1), torch.ones(2, 2, 16, 11))
        assert 1 <= record.balance < 3


def test_drop_path_grows_from_zero_to_its_value() -> None:
    layers = [m.probability for m in _model(cascades=3, drop_path=0.2).modules() if isinstance(m, DropPath)]
    assert layers == [0.0, 0.1, 0.2]


def test_checkpointing_keeps_less_and_changes_no_gradient() -> None:
    """With drop path and dropout on: the second run must draw what the first drew."""
    kspace, mask = _data(2)
    gradients, kept = [], []
    for checkpointing in (False, True):
        model, sizes = _model(blocks=2, checkpointing=checkpointing), []
        torch.manual_seed(3)
        with torch.autograd.graph.saved_tensors_hooks(_noting(sizes), lambda tensor: tensor):
            output = model(kspace, mask)
        (output.image.mean() + sum(record.balance for record in output.routing)).backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
        kept.append(sum(sizes))
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient)
    assert kept[1] < 0.3 * kept[0]


@pytest.mark.parametrize("checkpointing", [False, True])
def test_processes_exchange_counts_once_per_cascade(
    checkpointing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What runs again in the backward pass exchanges nothing: the others would not be there."""
    exchanged: list[Tensor] = []
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    monkeypatch.setattr("torch.distributed.all_reduce", exchanged.append)
    output = _model(blocks=2, checkpointing=checkpointing)(*_data())
    sum(record.balance for record in output.routing).backward()
    assert len(exchanged) == SMALL["cascades"]


def _noting(sizes: list[int]) -> Callable[[Tensor], Tensor]:
    def note(tensor: Tensor) -> Tensor:
        sizes.append(tensor.numel())
        return tensor

    return note


def test_mixed_precision() -> None:
    model, (kspace, mask) = _model(**QUIET), _data()
    expected = model(kspace, mask).image
    with torch.autocast("cpu", torch.bfloat16):
        output = model(kspace, mask)
        (output.image.mean() + output.routing[0].balance).backward()
    assert output.image.dtype == torch.float32
    assert (output.image - expected).norm() / expected.norm() < 0.1
    assert _finite_gradients(model)


def test_a_small_network_learns_a_small_batch_by_heart() -> None:
    torch.manual_seed(0)
    y, x = torch.meshgrid(torch.linspace(-1, 1, 40), torch.linspace(-1, 1, 24), indexing="ij")
    target = (
        ((x**2 + y**2 < 0.7) * (1 + 0.5 * torch.sin(12 * x * y))).to(torch.complex64).expand(1, 1, 40, 24)
    )
    _, mask = _data(width=24)
    # Noise, as data have: where an error is exactly zero, rounding would choose the sign of the first step's gradient.
    noise = torch.randn(target.shape, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    kspace, target = (fft2c(target) + 1e-3 * noise) * mask, target[:, 0].abs()
    model = hifi_mamba_v2(cascades=3, blocks=1, width=32, state=4, sens_widths=(4, 6), **QUIET)
    optimizer = torch.optim.Adam(model.parameters(), lr=8e-3)
    losses = []
    for _ in range(45):
        output = model(kspace, mask)
        losses.append((output.image - target).abs().mean())
        optimizer.zero_grad()
        (losses[-1] + 1e-3 * sum(record.balance for record in output.routing) / 3).backward()
        optimizer.step()
    assert losses[-1] < 0.5 * losses[0]
