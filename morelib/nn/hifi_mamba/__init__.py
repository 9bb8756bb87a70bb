"""HiFi-MambaV2 (arXiv 2511.18534), one idea per file; `network` puts them together."""

from morelib.nn.hifi_mamba.network import PRESETS, hifi_mamba_v2

__all__ = ["PRESETS", "hifi_mamba_v2"]
