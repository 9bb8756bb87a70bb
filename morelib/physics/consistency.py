"""The data-consistency step in image space (Eq. 2) and in k-space (E2EVarNet), as they are written.

What networks run is in `morelib.physics.hybrid`.
"""

import torch
from torch import Tensor

from morelib.physics.sense import SenseOperator


def image_step(image: Tensor, kspace: Tensor, operator: SenseOperator, eta: Tensor | float) -> Tensor:
    """The consistency part of Eq. 2: x - eta A.H(A x - y).

    Args:
        image: x, complex (batch, y, x).
        kspace: y, masked, complex (batch, coil, y, x).
        operator: A.
        eta: step size.
    """
    # Eq. 2, without the denoiser
    return image - eta * operator.H(operator(image) - kspace)


def kspace_step(kspace: Tensor, measured: Tensor, mask: Tensor, eta: Tensor | float) -> Tensor:
    """The same step for an iterate kept in k-space (Sriram 2020, Eq. 9): k - eta M (k - y)."""
    return kspace - eta * torch.where(mask, kspace - measured, 0.0)
