"""The selective scan: equal to the loop it replaces, in value and gradient, safe, and small in memory."""

import sys
from collections.abc import Callable, Iterator
from importlib.machinery import ModuleSpec
from types import ModuleType

import pytest
import torch
from torch import Tensor

from morelib.nn.hifi_mamba import kernel
from morelib.nn.hifi_mamba.scan import CHUNK, plain_scan, selective_scan


def _loop(u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
    """The recurrence as it is printed."""
    h, y = u.new_zeros(len(u), *A.shape), []
    for t in range(u.shape[1]):
        h = torch.exp(dt[:, t, :, None] * A) * h + (dt[:, t] * u[:, t])[..., None] * B[:, t, None]
        y.append((C[:, t, None] * h).sum(-1))
    return torch.stack(y, 1) + D * u


def _inputs(
    batch: int = 2, length: int = 100, channels: int = 3, state: int = 4, dtype: torch.dtype = torch.float64
) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    inputs = [
        draw(batch, length, channels),
        0.3 * draw(batch, length, channels).abs(),
        -draw(channels, state).exp(),
        draw(batch, length, state),
        draw(batch, length, state),
        draw(channels),
    ]
    return [tensor.requires_grad_() for tensor in inputs]


def _error(a: Tensor, b: Tensor) -> float:
    return float((torch.linalg.vector_norm(a - b) / torch.linalg.vector_norm(b)).detach())


@pytest.mark.parametrize("length", [1, CHUNK - 1, 2 * CHUNK, 2 * CHUNK + 1, 700])
@pytest.mark.parametrize("segment", [None, 37, 64])
def test_equal_to_the_loop_in_value_and_gradient(length: int, segment: int | None) -> None:
    inputs = _inputs(length=length)
    scanned, looped = selective_scan(*inputs, segment=segment), _loop(*inputs)
    assert _error(scanned, looped) < 1e-10
    weight = torch.randn_like(looped)
    gradients = [torch.autograd.grad((y * weight).sum(), inputs) for y in (scanned, looped)]
    # At length 1 there is nothing to forget, and the gradient of A is zero.
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


def test_finite_differences() -> None:
    inputs = _inputs(batch=1, length=40, channels=2, state=2)
    assert torch.autograd.gradcheck(lambda *tensors: selective_scan(*tensors, segment=33), inputs)


def test_single_precision_is_exact_to_1e_5_of_the_loop_in_double_precision() -> None:
    """At the length of a real image, with the slow rates that Mamba starts with."""
    inputs = _inputs(1, 6400, 4, 8, torch.float32)
    with torch.no_grad():
        inputs[1] *= 0.03
        expected = _loop(*[tensor.double() for tensor in inputs])
        assert _error(selective_scan(*inputs), expected) < 1e-5


@pytest.mark.parametrize("size", [0.0, 1e-8, 1e3, 1e30])
def test_no_decay_is_too_slow_or_too_fast(size: float) -> None:
    """Quotients of decays would overflow here; products only vanish."""
    inputs = _inputs(length=100, dtype=torch.float32)
    with torch.no_grad():
        inputs[2] *= size
    scanned = selective_scan(*inputs)
    torch.testing.assert_close(scanned, _loop(*inputs), rtol=1e-4, atol=1e-4)
    gradients = torch.autograd.grad(scanned.sum(), inputs)
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


def test_what_is_kept_for_the_gradient_grows_with_the_length_and_not_with_the_states() -> None:
    channels, state = 16, 16

    def kept(length: int) -> int:
        total = 0

        def count(tensor: Tensor) -> Tensor:
            nonlocal total
            total += tensor.numel()
            return tensor

        inputs = _inputs(1, length, channels, state, torch.float32)
        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            selective_scan(*inputs)
        return total

    short, long = kept(2048), kept(8192)
    # u twice and u times dt, dt twice, B, C: the states themselves would be 256 numbers a token.
    assert (long - short) / (8192 - 2048) < 5 * channels + 2 * state + 2
    assert long < 4.1 * short


def test_autocast_and_short_formats_are_computed_in_single_precision() -> None:
    inputs = [tensor.detach() for tensor in _inputs(dtype=torch.float32)]
    expected = selective_scan(*inputs)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(selective_scan(*inputs), expected)
    short = selective_scan(*[tensor.bfloat16() for tensor in inputs])
    assert short.dtype == torch.float32 and _error(short, expected) < 0.03


def test_a_sequence_does_not_see_its_neighbours_or_its_future() -> None:
    inputs = [tensor.detach() for tensor in _inputs(batch=3)]
    together = selective_scan(*inputs)
    alone = selective_scan(*[tensor[1:2] if tensor.ndim == 3 else tensor for tensor in inputs])
    torch.testing.assert_close(together[1:2], alone)
    inputs[0][:, 50:] = 0
    torch.testing.assert_close(selective_scan(*inputs)[:, :50], together[:, :50])


def _package(scan: Callable[..., Tensor]) -> ModuleType:
    """A module like that of mamba_ssm, which has the sequence last."""

    def selective_scan_fn(
        u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None = None
    ) -> Tensor:
        return scan(*[x.transpose(1, 2) for x in (u, delta)], A, *[x.transpose(1, 2) for x in (B, C)], D).mT

    module = ModuleType("selective_scan_interface")
    module.selective_scan_fn = selective_scan_fn  # type: ignore[attr-defined]
    return module


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[ModuleType | None], None]]:
    """Pretend that a package is installed; the check runs on the processor in place of a GPU."""

    def _install(module: ModuleType | None) -> None:
        monkeypatch.setattr(kernel, "find_spec", lambda _: ModuleSpec("mamba_ssm", None))
        monkeypatch.setitem(sys.modules, kernel.MODULE, module)
        kernel._checked.cache_clear()

    yield _install
    kernel._checked.cache_clear()


def test_a_kernel_that_agrees_is_used(install: Callable[[ModuleType | None], None]) -> None:
    install(_package(_loop))
    found = kernel._checked(torch.device("cpu"), plain_scan)
    assert found is not None
    inputs = _inputs()
    assert _error(found(*inputs), plain_scan(*inputs)) < 1e-10


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (_package(lambda *x: 1.01 * _loop(*x)), "relative difference"),
        (_package(lambda *x: _loop(*x) * float("nan")), "relative difference nan"),
        (_package(lambda u, dt, A, B, C, D: _loop(u, dt, A.detach(), B, C, D) + 0 * A.sum()), "relative"),
        (_package(lambda *x: _loop(*x) + (0 * x[-1]).sqrt().sum()), "relative difference nan"),
        (None, "ModuleNotFoundError"),
    ],
)
def test_a_kernel_that_disagrees_or_is_broken_is_not_used(
    install: Callable[[ModuleType | None], None], module: ModuleType | None, reason: str
) -> None:
    install(module)
    with pytest.warns(RuntimeWarning, match=f"mamba_ssm is installed but not used on cpu .*{reason}"):
        assert kernel._checked(torch.device("cpu"), plain_scan) is None


def test_without_a_gpu_or_in_double_precision_no_kernel_is_looked_for() -> None:
    assert kernel.cuda_kernel(torch.device("cpu"), torch.float32, plain_scan) is None
    assert kernel.cuda_kernel(torch.device("cuda"), torch.float64, plain_scan) is None
