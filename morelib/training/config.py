"""What a training run needs to know, apart from the network and the data."""

from dataclasses import asdict, dataclass
from typing import Any

from morelib.errors import UserError

# Lightning Fabric's names. Others of its own cannot work here: complex numbers have no short format, so weights stay in
# float32; and float16 needs its loss scaled, with steps that overflow on purpose and would be taken for divergence.
PRECISIONS = ("32-true", "bf16-mixed")


@dataclass(frozen=True)
class TrainConfig:
    """Settings of one run. The defaults are the paper's, or our reading of it where it is silent.

    Pairs are (start, end) of a log-linear annealing over the planned optimiser steps (paper, Sec. III-B).
    """

    epochs: int = 40
    lr: float = 2e-4
    weight_decay: float = 1e-2
    clip_norm: float = 1.0
    patience: int = 3  # epochs without a better validation SSIM; the best weights are kept
    batch_size: int = 1  # of each process
    seed: int = 0
    tau: tuple[float, float] = (1.0, 0.01)  # selection noise, Eq. 8
    alpha_aux: tuple[float, float] = (0.1, 0.001)  # alpha_1 of Eq. 7
    alpha_sparse: float = 0.005  # alpha_2
    alpha_z: float = 0.001  # alpha_3
    alpha_balance: float = 5e-4  # of HiFi-MambaV2; its code's 1e-3 weighs a sum that is half of our mean
    precision: str = (
        "32-true"  # or bf16-mixed: the U-Nets in bfloat16, Fourier transforms and routers in float32
    )
    compile: bool = (
        False  # the U-Nets by torch.compile; other sizes than the first are compiled once more, for all
    )
    graphs: bool = True  # on one GPU: passes recorded as CUDA graphs and replayed, see morelib.nn.graphs
    workers: int = 1  # threads that read ahead; 0: none
    checkpoint_steps: int = 500  # a checkpoint to resume from this often, and after every epoch

    def __post_init__(self) -> None:
        for name in ("epochs", "patience", "batch_size", "checkpoint_steps"):
            if getattr(self, name) < 1:
                raise UserError(f"training.{name} is {getattr(self, name)}; it must be at least 1")
        if self.workers < 0:
            raise UserError(f"training.workers is {self.workers}; give 0 or the number of reading threads")
        if self.precision not in PRECISIONS:
            raise UserError(f"training.precision is {self.precision!r}; choose {' or '.join(PRECISIONS)}")
        for name in ("lr", "clip_norm"):
            if getattr(self, name) <= 0:
                raise UserError(f"training.{name} is {getattr(self, name)}; it must be positive")

    def to_dict(self) -> dict[str, Any]:
        """The same settings as plain YAML and JSON types."""
        return {
            key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()
        }
