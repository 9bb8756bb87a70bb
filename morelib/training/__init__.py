"""Training: configuration, the fit loop, checkpoints, run folders."""

from morelib.training.config import TrainConfig
from morelib.training.runs import load_run, train

__all__ = ["TrainConfig", "load_run", "train"]
