"""The solvers find the minimisers they are named for; the systems are called like networks and beat zero-filled."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from morelib.data.dataset import SliceDataset
from morelib.data.index import find_volumes
from morelib.data.phantom import make_phantom
from morelib.errors import UserError
from morelib.evaluation.classical import CgSense, TvSense, tune
from morelib.evaluation.classical.solvers import (
    cg_sense,
    conjugate_gradients,
    gradient,
    gradient_adjoint,
    shrink,
    tv_sense,
)
from morelib.evaluation.evaluate import ZeroFilled, evaluate
from morelib.physics.fourier import fft2c
from morelib.physics.hybrid import HybridSense
from morelib.physics.sense import SenseOperator, normalise_maps

SYSTEMS = [CgSense(0.01), TvSense(0.003, iterations=5)]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def _random(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.complex128)


def _problem(batch: int) -> tuple[SenseOperator, HybridSense, Tensor]:
    """A in two forms, and measured y of a box seen by three random coils."""
    height, width = 5, 6
    mask = torch.tensor([True, False, True, True, False, True]).expand(batch, 1, 1, width)
    maps = normalise_maps(_random(batch, 3, height, width))
    image = torch.zeros(batch, height, width, dtype=torch.complex128)
    image[:, 1:4, 1:4] = 1 + 0.5j
    operator = SenseOperator(maps, mask)
    return operator, HybridSense(maps, mask), operator(image) + 0.02 * mask * _random(batch, 3, height, width)


def _dense_gram(operator: SenseOperator) -> Tensor:
    """A^H A of a batch of one as a matrix."""
    shape = operator.sens_maps.shape[-2:]
    pixels = torch.eye(shape.numel(), dtype=torch.complex128)
    return torch.stack([operator.gram(p.reshape(1, *shape)).flatten() for p in pixels], dim=1)


@pytest.mark.parametrize("weight", [0.01, 1.0])
def test_cg_sense_is_the_dense_solution(weight: float) -> None:
    operator, sense, kspace = _problem(batch=1)
    rhs = operator.H(kspace)
    gram = _dense_gram(operator)
    exact = torch.linalg.solve(gram + weight * torch.eye(len(gram)), rhs.flatten())
    torch.testing.assert_close(cg_sense(sense, rhs, weight, 60).flatten(), exact, rtol=0, atol=1e-8)


def test_samples_of_a_batch_are_solved_on_their_own() -> None:
    operator, sense, kspace = _problem(batch=2)
    rhs = operator.H(kspace) * torch.tensor([1.0, 100.0])[:, None, None]
    for solve in (cg_sense, tv_sense):
        both = solve(sense, rhs, 0.05, 4)
        for n in range(2):
            alone = HybridSense(operator.sens_maps[n : n + 1], operator.mask[n : n + 1])
            torch.testing.assert_close(both[n : n + 1], solve(alone, rhs[n : n + 1], 0.05, 4))


def test_cg_stays_at_the_solution() -> None:
    rhs = torch.randn(2, 4, 5, dtype=torch.complex64)
    torch.testing.assert_close(conjugate_gradients(lambda x: 2 * x, rhs, 50), rhs / 2)
    assert torch.equal(conjugate_gradients(lambda x: 2 * x, 0 * rhs, 3), 0 * rhs)
    torch.testing.assert_close(conjugate_gradients(lambda x: 2 * x, rhs, 1, start=rhs), rhs / 2)


@pytest.mark.parametrize("shape", [(1, 4, 4), (2, 5, 7), (1, 1, 3)])
def test_gradient_adjoint(shape: tuple[int, int, int]) -> None:
    image, differences = _random(*shape), _random(shape[0], 2, *shape[1:])
    ours = torch.vdot(differences.flatten(), gradient(image).flatten())
    theirs = torch.vdot(gradient_adjoint(differences).flatten(), image.flatten())
    assert abs(ours - theirs) < 1e-10


def _total_variation(image: Tensor) -> Tensor:
    return gradient(image).abs().square().sum(1).sqrt().sum((-2, -1))


def test_total_variation_of_a_box_is_about_its_outline() -> None:
    image = torch.zeros(1, 8, 9, dtype=torch.complex128)
    image[:, 2:5, 3:7] = 3j
    # Backward differences: 2 * (3 + 4) edges, one corner where both differ.
    assert _total_variation(image).item() == pytest.approx(3 * (2 * 7 - 2 + 2**0.5))


def test_shrink_is_the_proximal_operator() -> None:
    start = _random(1, 2, 3, 4).requires_grad_()
    short = shrink(start, 0.7).detach().requires_grad_()
    moved = short.abs().square().sum(1).sqrt() > 0
    value = 0.5 * (short - start.detach()).abs().square().sum()
    value = value + 0.7 * (short.abs().square().sum(1) + 1e-300).sqrt().sum()
    (slope,) = torch.autograd.grad(value, short)
    assert (slope.abs().sum(1) * moved).max() < 1e-10
    assert (start.abs().square().sum(1).sqrt()[~moved] <= 0.7).all()


def _objective(operator: SenseOperator, kspace: Tensor, weight: float, image: Tensor) -> Tensor:
    misfit = 0.5 * (operator(image) - kspace).abs().square().sum((1, 2, 3))
    return misfit + weight * _total_variation(image)


def test_tv_sense_converges_to_the_minimiser() -> None:
    """The reference is slow and shares no step: primal-dual gradient steps (Condat 2013), thousands of them."""
    operator, sense, kspace = _problem(batch=1)
    rhs, weight, sigma = operator.H(kspace), 0.05, 1 / 16
    image, dual = torch.zeros_like(rhs), torch.zeros_like(gradient(rhs))
    for _ in range(8000):
        new = image - 1 / (0.5 + 8 * sigma) * (operator.gram(image) - rhs + gradient_adjoint(dual))
        dual = dual + sigma * gradient(2 * new - image)
        dual = dual - shrink(dual, weight)  # onto vectors no longer than the weight
        image = new
    torch.testing.assert_close(tv_sense(sense, rhs, weight, 600), image, rtol=0, atol=1e-5)
    values = [
        _objective(operator, kspace, weight, tv_sense(sense, rhs, weight, n)).item() for n in (1, 5, 25, 125)
    ]
    assert values == sorted(values, reverse=True)
    assert values[-1] == pytest.approx(_objective(operator, kspace, weight, image).item(), rel=1e-4)


def _sampled(coils: int, shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
    image = torch.zeros(1, coils, *shape, dtype=torch.complex64)
    image[..., shape[0] // 4 : -(shape[0] // 4), shape[1] // 4 : -(shape[1] // 4)] = (
        torch.randn(1, coils, 1, 1) + 2
    )
    mask = torch.zeros(1, 1, 1, shape[1], dtype=torch.bool)
    mask[..., ::3] = True
    mask[..., (shape[1] - 8 + 1) // 2 : (shape[1] - 8 + 1) // 2 + 8] = True
    return fft2c(image) * mask, mask


@pytest.mark.parametrize("system", SYSTEMS, ids=lambda system: type(system).__name__)
@pytest.mark.parametrize(("coils", "shape"), [(1, (32, 24)), (4, (33, 27)), (28, (24, 31))])
def test_systems_take_any_slice(system: CgSense | TvSense, coils: int, shape: tuple[int, int]) -> None:
    kspace, mask = _sampled(coils, shape)
    image = system(kspace, mask, n_acs=8).image
    assert image.shape == (1, *shape) and image.dtype == torch.float32 and bool(image.any())
    kspace[:, 0] = 0
    for data in (kspace, 0 * kspace):
        assert torch.isfinite(system(data, mask).image).all()
    assert system(kspace, mask).routing is None


@pytest.mark.parametrize("system", SYSTEMS, ids=lambda system: type(system).__name__)
def test_systems_follow_the_scale_of_kspace(system: CgSense | TvSense) -> None:
    kspace, mask = _sampled(4, (32, 24))
    maps = normalise_maps(torch.randn_like(kspace))
    for maps_or_not in (maps, None):
        image = system(kspace, mask, 8, maps_or_not).image
        small = system(2.0**-40 * kspace, mask, 8, maps_or_not).image
        torch.testing.assert_close(2.0**40 * small, image)


@pytest.mark.parametrize("system", [CgSense, TvSense])
def test_impossible_options_are_refused(system: type[CgSense] | type[TvSense]) -> None:
    for weight, iterations in ((-1.0, 5), (float("nan"), 5), (0.1, 0)):
        with pytest.raises(UserError, match="use a weight >= 0 and iterations >= 1"):
            system(weight, iterations)


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantom")
    make_phantom(folder, volumes_per_category=1, size=72, coils=4, slices=1)
    return folder


def test_systems_beat_zero_filled_in_every_category(phantom: Path) -> None:
    data = SliceDataset(find_volumes(phantom), acceleration=4, center_fraction=0.08)
    zero_filled = evaluate(ZeroFilled(), data)
    for system in (CgSense(0.01), TvSense(0.003)):
        better = [
            ours.psnr - theirs.psnr for ours, theirs in zip(evaluate(system, data), zero_filled, strict=True)
        ]
        assert min(better) > 0.5, (system, better)


def test_tuning_takes_the_best_weight_of_validation_volumes(phantom: Path) -> None:
    volumes = find_volumes(phantom)[:2]
    data = SliceDataset(volumes, acceleration=4, center_fraction=0.08)
    weight, curve = tune(CgSense, [1e-4, 1e-2, 1.0], data)
    assert weight == 1e-2 == max(curve, key=lambda tried: curve[tried])
    scores = evaluate(CgSense(1.0), data)
    assert curve[1.0] == pytest.approx(sum(score.psnr for score in scores) / 2)
    with pytest.raises(ValueError, match="train=False"):
        tune(CgSense, [0.1], SliceDataset(volumes, acceleration=4, center_fraction=0.08, train=True))
    with pytest.raises(UserError, match="no weights"):
        tune(CgSense, [], data)
