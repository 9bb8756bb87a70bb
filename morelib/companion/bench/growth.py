"""How time and memory grow with matrix, coils, cascades, N and K; fastMRI's network and ours at each point."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from torch import nn

from morelib.companion.bench.dispatch import N_EXPERTS
from morelib.companion.bench.network import AS_FASTMRI, OnPart, Runner, Setting, times

FASTMRI, DENSE = "fastMRI's VarNet", "E2EVarNet"
CHECKPOINTED = "E2EVarNet, checkpointing"
ALL, ONE = "MoRE, K = N", "MoRE, K = 1"
# Of the routers the light one: what is drawn is the cost of experts, and that of routers stands in the table.
ROUTER = {"router_width": 16}


@dataclass(frozen=True)
class Point:
    """One system at one value of one axis.

    forward: median seconds of a reconstruction; None where it is that of another system. memory: bytes that a training
    step holds at its peak.
    """

    axis: str
    value: int
    system: str
    forward: float | None
    memory: int
    holds: bool | None = None  # a curve has no goal

    @property
    def times(self) -> tuple[float, ...] | None:
        """As of a `Row`."""
        return None if self.forward is None else (self.forward,)

    @property
    def cells(self) -> tuple[str, ...]:
        """As of a `Row`."""
        return (
            f"{self.system}, step",
            f"{self.axis} {self.value}",
            f"{self.memory / 2**20:.0f} MiB",
            "",
            "",
            "",
        )


def grid(setting: Setting) -> dict[str, tuple[int, ...]]:
    """Values of each axis up to those of `setting`, N and K up to eight."""
    _, phase, coils = setting.size
    thirds = {-(-setting.cascades * part // 3) for part in (1, 2, 3)}
    return {
        "matrix": (phase // 2, 3 * phase // 4, phase),
        "coils": tuple(sorted({max(coils // 2, 1), coils})),
        "cascades": tuple(sorted(thirds)),
        "experts": (1, 4, 8),
        "chosen": (1, 4, 8),
    }


def bench_growth(
    setting: Setting, axes: Mapping[str, Sequence[int]], on_part: OnPart = lambda part: None
) -> Iterator[Point]:
    """Points of each axis, measured by turns among themselves: compare what lies on one axis.

    `axes` is like `grid`: `matrix` is the number of phase-encode columns, the readout growing with it. All else is as
    in `setting`. All networks have fastMRI's instance norm.
    """
    for axis, values in axes.items():
        runners = {
            (value, name): Runner(model, _at(setting, axis, value))
            for value in values
            for name, model in _systems(setting, axis, value).items()
        }
        works = {
            f"{axis} {value}, {name}": runner.forward
            for (value, name), runner in runners.items()
            if name != CHECKPOINTED  # reconstructs as the plain one does
        }
        took = times(works, setting, on_part)
        on_part(f"{axis}, memory")
        for (value, name), runner in runners.items():
            yield Point(axis, value, name, took.get(f"{axis} {value}, {name}"), runner.step_memory())


def _at(setting: Setting, axis: str, value: int) -> Setting:
    readout, phase, coils = setting.size
    if axis == "matrix":
        return replace(setting, size=(round(readout * value / phase), value, coils))
    if axis == "coils":
        return replace(setting, size=(readout, phase, value))
    return replace(setting, cascades=value) if axis == "cascades" else setting


def _systems(setting: Setting, axis: str, value: int) -> dict[str, nn.Module]:
    at = _at(setting, axis, value)

    def more(n_experts: int, top_k: int) -> nn.Module:
        return at.network("more", **AS_FASTMRI, **ROUTER, n_experts=n_experts, top_k=top_k)

    dense = at.network("e2e_varnet", **AS_FASTMRI)
    if axis == "experts":
        return {DENSE: dense, ONE: more(value, 1), ALL: more(value, value)}
    if axis == "chosen":
        return {DENSE: dense, "MoRE, N = 8": more(N_EXPERTS, value)}
    checkpointed = at.network("e2e_varnet", **AS_FASTMRI, checkpointing=True)
    return {FASTMRI: at.fastmri(), DENSE: dense, CHECKPOINTED: checkpointed}
