"""Networks ready to be measured: on one batch of noise, a forward pass or a training step at a call."""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from morelib.companion.bench.reference import FastmriVarNet
from morelib.data.batches import Batch
from morelib.evaluation.cost import by_turns, operations, peak_memory, seconds
from morelib.nn import build_model, load_fastmri_state
from morelib.nn.count import count_parameters
from morelib.nn.graphs import Replayed, recordable
from morelib.nn.more import routings
from morelib.nn.unrolled import Reconstruction, Unrolled
from morelib.physics.masks import make_mask
from morelib.training import TrainConfig
from morelib.training.step import TrainStep, compile_unets, new_optimizer

ACCELERATION, CENTER_FRACTION = 8, 0.04
# What fastMRI's network has and the paper's baseline has not.
AS_FASTMRI: dict[str, Any] = {"norm": "instance", "restore_mean": True, "zero_init": False}
OnPart = Callable[[str], None]


@dataclass(frozen=True)
class Setting:
    """What networks are measured on and how often. size: readout, phase, coils. The defaults are the paper's sizes."""

    size: tuple[int, int, int] = (640, 368, 15)
    cascades: int = 12
    widths: tuple[int, ...] = (16, 20, 24, 28)
    sens_widths: tuple[int, ...] = (8, 16, 32, 64, 128)
    repeats: int = 5
    device: str = "cpu"

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(self).items()}

    @cached_property
    def batch(self) -> Batch:
        """One slice of noise under a mask of columns."""
        readout, phase, coils = self.size
        generator, side = torch.Generator().manual_seed(0), min(readout // 2, phase)
        drawn = make_mask("equispaced", phase, ACCELERATION, CENTER_FRACTION)
        mask = drawn.mask.reshape(1, 1, 1, phase)
        noise = torch.randn(1, coils, readout, phase, dtype=torch.complex64, generator=generator)
        target = torch.rand(1, side, side, generator=generator)
        one, kspace = ("synthetic noise",), torch.where(mask, noise, 0)
        return Batch(kspace, mask, drawn.n_acs, target, target.amax((1, 2)), one, (0,), one, one,
                     (drawn.acceleration,)).to(self.device)  # fmt: skip

    def fastmri(self) -> FastmriVarNet:
        """fastMRI's VarNet at these widths."""
        torch.manual_seed(0)
        return FastmriVarNet(self.cascades, self.widths, self.sens_widths)

    def same_as(self, theirs: FastmriVarNet, **options: Any) -> Unrolled:
        """Our E2EVarNet with the weights of fastMRI's."""
        model = self.network("e2e_varnet", **AS_FASTMRI, **options)
        load_fastmri_state(model, theirs.varnet.state_dict())
        return model

    def network(self, name: str, **options: Any) -> Unrolled:
        """`build_model` at these sizes, as the paper trains it unless options say otherwise."""
        torch.manual_seed(0)
        options = {"cascades": self.cascades, "widths": self.widths, **options}
        if name != "promptmr_plus":
            options["sens_widths"] = self.sens_widths
        return build_model(name, **options)

    def widths_of(self, parameters: int) -> tuple[int, ...]:
        """Widths in these proportions that give an E2EVarNet so many parameters: the first that are not too few."""

        def widths(percent: int) -> tuple[int, ...]:
            return tuple(round(width * percent / 100) for width in self.widths)

        def size(percent: int) -> int:
            with torch.device("meta"):
                return count_parameters(self.network("e2e_varnet", widths=widths(percent)))[0]

        return widths(bisect_left(range(10_000), parameters, lo=10, key=size))


class Runner:
    """A network with an optimiser on one batch. `settings` are those of `TrainConfig`.

    On a GPU it runs as `evaluate` and `fit` run it, by recorded graphs where the network can be recorded.
    """

    def __init__(self, model: nn.Module, setting: Setting, **settings: Any) -> None:
        self.model, self.setting, self.batch = model, setting, setting.batch
        config = TrainConfig(**{"lr": 1e-6, **settings})
        fabric = Fabric(accelerator=setting.device, devices=1, precision=config.precision)  # type: ignore[arg-type]
        if config.compile:
            compile_unets(model)
        self.wrapped, optimizer = fabric.setup(model, new_optimizer(model, config))
        replays = config.graphs and recordable(model, fabric.device)
        self._forward = Replayed(self.wrapped) if replays else self.wrapped
        self._step = TrainStep(fabric, self.wrapped, optimizer, config)
        self._eager_step = TrainStep(fabric, self.wrapped, optimizer, replace(config, graphs=False))

    def forward(self) -> Tensor:
        """A reconstruction."""
        self._mode(training=False)
        batch = self.batch
        with torch.inference_mode():
            output: Reconstruction = self._forward(batch.kspace, batch.mask, n_acs=batch.n_acs)
        return output.image

    def step(self) -> None:
        """Forward, backward, clipping and optimiser."""
        self._mode(training=True)
        self._step(self.batch, tau=1.0, alpha_aux=0.1)

    def _mode(self, training: bool) -> None:
        """To be in a mode takes no time in a run; to ask thousands of modules would take longer than some passes."""
        if self.wrapped.training != training:
            self.wrapped.train(training)

    def fill_cache(self) -> None:
        """Bring cached router inputs to their full number, as in all but the first steps of a run."""
        kept = [routing for routing in routings(self.model) if routing.cache.capacity]
        if kept:
            self.step()
        for routing in kept:
            routing.cache.load_state([*routing.cache.state()] * routing.cache.capacity)

    def operations(self) -> int:
        """Of one forward pass; see `morelib.evaluation.cost.operations`."""
        self._mode(training=False)
        return operations(self.model, self.batch)

    def step_memory(self) -> int:
        """Peak memory of a training step in bytes: activations, gradients, in a first step the optimiser's moments.

        Without graphs: a recorded one holds the same for good, and none of it would be counted.
        """
        self.fill_cache()
        self._mode(training=True)
        return peak_memory(lambda: self._eager_step(self.batch, tau=1.0, alpha_aux=0.1), self.setting.device)


@contextmanager
def exact_float32() -> Iterator[None]:
    """Without TensorFloat-32, which a GPU otherwise convolves in: it keeps three digits."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def times(
    works: Mapping[str, Callable[[], object]], setting: Setting, on_part: OnPart = lambda part: None
) -> dict[str, float]:
    """Median seconds of each work, all by turns; `on_part` is told which one runs."""

    def measure(name: str) -> float:
        on_part(name)
        return seconds(works[name], setting.device)

    return by_turns({name: partial(measure, name) for name in works}, setting.repeats)
