"""The CUDA kernel of the package `mamba_ssm`: used where it is installed and gives what the plain scan gives."""

import warnings
from collections.abc import Callable
from functools import cache
from importlib import import_module
from importlib.util import find_spec

import torch
from torch import Tensor

Scan = Callable[..., Tensor]
MODULE = "mamba_ssm.ops.selective_scan_interface"


def cuda_kernel(device: torch.device, dtype: torch.dtype, plain: Scan) -> Scan | None:
    """The kernel as a function of (u, dt, A, B, C, D) like `selective_scan`, or None where it cannot be used.

    Installed kernels are built for one version of PyTorch, CUDA and the card, and a mismatch shows as an exception or
    as wrong numbers. So at its first use on a device it is held against `plain`, value and gradients.
    """
    if device.type != "cuda" or dtype != torch.float32:
        return None
    return _checked(device, plain)


@cache
def _checked(device: torch.device, plain: Scan) -> Scan | None:
    if find_spec("mamba_ssm") is None:
        return None
    try:
        kernel = _adapt(import_module(MODULE).selective_scan_fn)
        error = difference(kernel, plain, device)
    except Exception as problem:  # whatever a broken installation throws
        error, problem_text = float("inf"), f"{type(problem).__name__}: {problem}"
    else:
        problem_text = f"relative difference {error:.1e}"
    # Not `>`: a NaN must not pass.
    if not error < 1e-4:
        warnings.warn(
            f"mamba_ssm is installed but not used on {device} ({problem_text}); the scan in plain PyTorch is",
            RuntimeWarning,
            stacklevel=3,
        )
        return None
    return kernel


def _adapt(selective_scan_fn: Scan) -> Scan:
    """The package has the sequence last; its state and rates are float32."""

    def scan(u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
        sequence_last = (x.transpose(1, 2).contiguous() for x in (u, dt))
        weights = (x.transpose(1, 2).contiguous() for x in (B, C))
        return selective_scan_fn(*sequence_last, A, *weights, D).transpose(1, 2)

    return scan


def difference(kernel: Scan, plain: Scan, device: torch.device) -> float:
    """Largest relative difference between two scans, in the value or in one of the six gradients, on drawn inputs."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(device)

    batch, length, channels, state = 2, 300, 8, 4
    u, B, C, D = (
        draw(batch, length, channels),
        draw(batch, length, state),
        draw(batch, length, state),
        draw(channels),
    )
    dt, A = draw(batch, length, channels).abs(), -draw(channels, state).abs()
    weight = draw(batch, length, channels)
    results = []
    for scan in (kernel, plain):
        inputs = [x.clone().requires_grad_() for x in (u, dt, A, B, C, D)]
        with torch.enable_grad():
            y = scan(*inputs)
            results.append([y.detach(), *torch.autograd.grad((y * weight).sum(), inputs)])
    errors = [
        torch.linalg.vector_norm(a - b) / torch.linalg.vector_norm(b) for a, b in zip(*results, strict=True)
    ]
    # Not Python's max, which may pass over a NaN.
    return float(torch.stack(errors).max())
