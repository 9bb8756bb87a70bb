"""Networks: blocks, U-Net, sensitivity network, the unrolled skeleton, one file per network. Knows nothing of files."""

from morelib.nn.fastmri_weights import load_fastmri_state
from morelib.nn.registry import build_model
from morelib.nn.unrolled import Reconstruction, Unrolled

__all__ = ["Reconstruction", "Unrolled", "build_model", "load_fastmri_state"]
