"""Data consistency in hybrid space, against the plain form: 2-D transforms with their shifts."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from morelib.companion.bench.network import OnPart, Setting, times
from morelib.companion.bench.result import DIFFERENCE, FASTER, Row, compared
from morelib.physics.consistency import image_step
from morelib.physics.hybrid import HybridSense, coil_images
from morelib.physics.sense import SenseOperator, normalise_maps

HYBRID, PLAIN = "Eq. 2 in hybrid space", "plain: 2-D FFTs and shifts"


def bench_consistency(setting: Setting, on_part: OnPart = lambda part: None) -> Iterator[Row]:
    """x - eta A.H(A x - y) both ways: that they agree, and what they take, forward and with the gradient."""
    batch, (readout, phase, _) = setting.batch, setting.size
    generator = torch.Generator().manual_seed(1)
    maps = normalise_maps(torch.randn(batch.kspace.shape, dtype=torch.complex64, generator=generator))
    start = torch.randn(1, readout, phase, dtype=torch.complex64, generator=generator).to(setting.device)
    image, eta = start.requires_grad_(), torch.ones(1, device=setting.device, requires_grad=True)
    plain = SenseOperator(maps.to(setting.device), batch.mask)
    hybrid = HybridSense(plain.sens_maps, batch.mask)
    zero_filled = hybrid.combine(coil_images(batch.kspace))  # once for all cascades

    def in_hybrid_space() -> Tensor:
        return image - eta * (hybrid.gram(image) - zero_filled)

    def plainly() -> Tensor:
        return image_step(image, batch.kspace, plain, eta)

    ways = {HYBRID: in_hybrid_space, PLAIN: plainly}

    def gradient(way: Callable[[], Tensor]) -> Tensor:
        (slope,) = torch.autograd.grad(way().abs().square().sum(), image)
        return slope

    def forward(way: Callable[[], Tensor]) -> Tensor:
        with torch.no_grad():
            return way()

    for kind, run in {"forward": forward, "forward and gradient": gradient}.items():
        ours, theirs = (run(way) for way in ways.values())
        difference = float((ours - theirs).abs().max() / theirs.abs().max())
        yield Row(f"{HYBRID}, {kind}", PLAIN, DIFFERENCE, difference, at_most=1e-5)
        works = {f"{name}, {kind}": lambda run=run, way=way: run(way) for name, way in ways.items()}
        took = times(works, setting, on_part)
        pair = took[f"{HYBRID}, {kind}"], took[f"{PLAIN}, {kind}"]
        yield compared(f"{HYBRID}, {kind}", PLAIN, pair, FASTER, setting.repeats)
