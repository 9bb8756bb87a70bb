"""The executable companion of MoRE: mixture-of-experts unrolled networks for multi-coil MRI reconstruction."""

from importlib.metadata import version
from typing import Any

__version__ = version("morelib")
__all__ = ["__version__", "build_model"]


def build_model(name: str, **options: Any) -> Any:
    """Build a network by name; see `morelib.nn.registry.build_model`. PyTorch is imported on the first call."""
    from morelib.nn import build_model as build

    return build(name, **options)
