"""Adjointness, Gram operator, data consistency, and the exactness of hybrid space."""

import pytest
import torch
from torch import Tensor

from morelib.physics.consistency import image_step, kspace_step
from morelib.physics.fourier import fft2c, ifft2c
from morelib.physics.hybrid import HybridSense, coil_images
from morelib.physics.sense import SenseOperator, combine, expand, normalise_maps, rss

SHAPES = [(1, 1, 8, 8), (2, 4, 9, 12), (3, 5, 12, 7), (1, 2, 5, 5)]


def _random(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.complex128)


def _problem(shape: tuple[int, int, int, int]) -> tuple[SenseOperator, Tensor, Tensor]:
    batch, _, height, width = shape
    mask = torch.rand(batch, 1, 1, width) < 0.5
    operator = SenseOperator(normalise_maps(_random(*shape)), mask)
    return operator, _random(batch, height, width), _random(*shape)


def _inner(a: Tensor, b: Tensor) -> Tensor:
    return torch.vdot(a.flatten(), b.flatten())


@pytest.mark.parametrize("shape", SHAPES)
def test_adjoint(shape: tuple[int, int, int, int]) -> None:
    operator, image, kspace = _problem(shape)
    assert abs(_inner(kspace, operator(image)) - _inner(operator.H(kspace), image)) < 1e-10
    assert operator.H.H is operator


@pytest.mark.parametrize("shape", SHAPES)
def test_combine_is_the_adjoint_of_expand(shape: tuple[int, int, int, int]) -> None:
    operator, image, coils = _problem(shape)
    maps = operator.sens_maps
    assert abs(_inner(coils, expand(image, maps)) - _inner(combine(coils, maps), image)) < 1e-10


@pytest.mark.parametrize("shape", SHAPES)
def test_gram(shape: tuple[int, int, int, int]) -> None:
    operator, image, _ = _problem(shape)
    gram = operator.gram(image)
    torch.testing.assert_close(gram, operator.H(operator(image)))
    assert _inner(image, gram).real >= 0
    assert abs(_inner(image, gram).imag) < 1e-10


def _plain_magnitude(images: Tensor, taken: Tensor, returned: Tensor, operator: SenseOperator) -> Tensor:
    kspace = fft2c(images) - fft2c(expand(taken, operator.sens_maps)) + operator(returned)
    return rss(ifft2c(kspace))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("at_once", [1, 2, 100])
def test_hybrid_space_is_exact_in_value_and_gradient(
    shape: tuple[int, int, int, int], at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many coils are worked on at a time."""
    operator, image, kspace = _problem(shape)
    other, wanted = _random(*image.shape), _random(*image.shape)
    monkeypatch.setattr("morelib.physics.hybrid.CACHED_PIXELS", at_once * image.numel())
    measured = coil_images(operator.mask * kspace)
    close = {"rtol": 0, "atol": 1e-11}
    torch.testing.assert_close(measured, ifft2c(operator.mask * kspace), **close)
    results = []
    for is_hybrid in (True, False):
        inputs = [each.clone().requires_grad_() for each in (image, other, measured, operator.sens_maps)]
        x, y, coils, maps = inputs
        if is_hybrid:
            sense = HybridSense(maps, operator.mask)
            outputs = [sense.gram(x), sense.combine(coils), sense.magnitude(coils, x, y), sense.coverage()]
        else:
            plain = SenseOperator(maps, operator.mask)
            outputs = [plain.gram(x), combine(coils, maps), _plain_magnitude(coils, x, y, plain)]
            outputs.append(maps.abs().square().sum(1))
        slopes = [
            torch.autograd.grad((wanted.conj() * out).real.sum(), inputs, allow_unused=True)
            for out in outputs
        ]
        results.append([*outputs, *(slope for each in slopes for slope in each if slope is not None)])
    assert len(results[0]) == 4 + 2 + 2 + 4 + 1
    for hybrid, plain in zip(*results, strict=True):
        torch.testing.assert_close(hybrid, plain, **close)


def test_maps_that_are_given_cost_no_gradient() -> None:
    operator, image, kspace = _problem((1, 3, 6, 7))
    sense, x = HybridSense(operator.sens_maps, operator.mask), image.requires_grad_()
    out = sense.magnitude(coil_images(kspace), x, sense.gram(x))
    (slope,) = torch.autograd.grad(out.sum(), x)
    assert slope.abs().min() > 0


def test_the_magnitude_of_nothing_has_no_gradient() -> None:
    nothing = torch.zeros(1, 4, 4, dtype=torch.complex64, requires_grad=True)
    maps, mask = torch.ones(1, 2, 4, 4, dtype=torch.complex64), torch.ones(1, 1, 1, 4, dtype=torch.bool)
    HybridSense(maps, mask).magnitude(0 * maps, nothing, nothing).sum().backward()
    assert nothing.grad is not None and not nothing.grad.any()


@pytest.mark.parametrize("shape", SHAPES)
def test_image_step_descends_on_the_data_term(shape: tuple[int, int, int, int]) -> None:
    operator, image, _ = _problem(shape)
    kspace = operator(_random(*image.shape))

    def data_term(x: Tensor) -> float:
        return float((operator(x) - kspace).abs().square().sum())

    # A has norm at most one, so any step in (0, 2) descends.
    assert data_term(image_step(image, kspace, operator, 1.0)) < data_term(image)
    truth = _random(*image.shape)
    torch.testing.assert_close(image_step(truth, operator(truth), operator, 1.0), truth)


def test_full_kspace_step_of_one_restores_the_measured_samples() -> None:
    operator, _, kspace = _problem((2, 3, 6, 8))
    measured = operator.mask * kspace
    result = kspace_step(_random(2, 3, 6, 8), measured, operator.mask, 1.0)
    torch.testing.assert_close(operator.mask * result, measured)


def test_maps_of_an_unseen_pixel_are_zero_not_nan() -> None:
    maps = _random(1, 3, 4, 4)
    maps[..., 0, 0] = 0
    normalised = normalise_maps(maps)
    assert (normalised[..., 0, 0] == 0).all()
    expected = torch.ones(1, 4, 4, dtype=torch.float64)
    expected[..., 0, 0] = 0
    torch.testing.assert_close(rss(normalised), expected)


@pytest.mark.parametrize("dim", [1, -3])
@pytest.mark.parametrize("dtype", [torch.complex128, torch.float64])
def test_root_sum_of_squares_is_the_norm_over_coils(dtype: torch.dtype, dim: int) -> None:
    coils = torch.randn(2, 3, 5, 4, dtype=dtype, generator=torch.Generator().manual_seed(0)).requires_grad_()
    torch.testing.assert_close(rss(coils, dim), torch.linalg.vector_norm(coils, dim=dim), rtol=1e-12, atol=0)
    assert torch.autograd.gradcheck(lambda x: rss(x, dim), coils)


def test_the_gradient_of_root_sum_of_squares_at_zero_is_zero() -> None:
    coils = torch.zeros(1, 2, 3, 3, dtype=torch.complex64, requires_grad=True)
    rss(coils).sum().backward()
    assert torch.equal(coils.grad, torch.zeros_like(coils))


def test_a_mask_of_another_width_is_refused() -> None:
    with pytest.raises(ValueError, match="does not fit sens_maps"):
        SenseOperator(_random(1, 2, 4, 6), torch.ones(1, 1, 1, 5, dtype=torch.bool))
