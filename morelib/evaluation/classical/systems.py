"""Classical reconstruction as systems: called like every network, so that they are evaluated like one."""

from dataclasses import dataclass

import torch
from torch import Tensor

from morelib.errors import UserError
from morelib.evaluation.classical.solvers import cg_sense, tv_sense
from morelib.nn import Reconstruction
from morelib.physics.espirit import espirit_maps
from morelib.physics.hybrid import HybridSense, coil_images
from morelib.physics.masks import find_acs


@dataclass(frozen=True)
class _Sense:
    """What both systems share; `_solve` differs. ESPIRiT maps from the ACS unless maps are given."""

    weight: float
    iterations: int = 20

    def __post_init__(self) -> None:
        if not self.weight >= 0 or self.iterations < 1:
            raise UserError(
                f"weight {self.weight}, iterations {self.iterations}: use a weight >= 0 and iterations >= 1"
            )

    def __call__(
        self,
        kspace: Tensor,
        mask: Tensor,
        n_acs: int | Tensor | None = None,
        sens_maps: Tensor | None = None,
    ) -> Reconstruction:
        """K-space (batch, coil, y, x), mask bool (batch, 1, 1, x) to `.image`, magnitude (batch, y, x)."""
        if sens_maps is None:
            sens_maps = espirit_maps(kspace, find_acs(mask) if n_acs is None else n_acs)
        sense = HybridSense(sens_maps, mask)
        zero_filled = sense.combine(coil_images(kspace))
        # Scaled to a peak of one, solved, scaled back.
        peak = zero_filled.abs().amax((-2, -1), keepdim=True)
        scale = torch.where(peak > 0, peak, 1.0)
        return Reconstruction(scale * self._solve(sense, zero_filled / scale).abs(), None)

    def _solve(self, sense: HybridSense, zero_filled: Tensor) -> Tensor:
        raise NotImplementedError


@dataclass(frozen=True)
class CgSense(_Sense):
    """SENSE with a small weight on the image's energy.

    Args:
        weight: of 1/2 ||x||^2, beside 1/2 ||A x - y||^2; A^H A has norm one. Tune it on validation data.
        iterations: of conjugate gradients. Few of them regularise too.

    Raises UserError for a negative weight and no iterations.
    """

    def _solve(self, sense: HybridSense, zero_filled: Tensor) -> Tensor:
        return cg_sense(sense, zero_filled, self.weight, self.iterations)


@dataclass(frozen=True)
class TvSense(_Sense):
    """SENSE with isotropic total variation.

    Args:
        weight: of TV(x), beside 1/2 ||A x - y||^2, for k-space scaled so that A^H y peaks at one. Tune it on
            validation data.
        iterations: of ADMM, each with five steps of conjugate gradients.

    Raises UserError for a negative weight and no iterations.
    """

    def _solve(self, sense: HybridSense, zero_filled: Tensor) -> Tensor:
        return tv_sense(sense, zero_filled, self.weight, self.iterations)
