"""The skeleton all networks share: sensitivity maps, then cascades of data consistency and a denoiser (Eq. 2)."""

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from morelib.nn.sensitivity import SensitivityNetwork
from morelib.physics.consistency import HybridSense, kspace_step
from morelib.routing import RoutingRecord

Consistency = Literal["kspace", "image"]


class Reconstruction(NamedTuple):
    """image: magnitude, float (batch, y, x). routing: None, or one record per cascade."""

    image: Tensor
    routing: tuple[RoutingRecord, ...] | None


class Cascade(nn.Module):
    """One denoiser and its step size eta (Eq. 2). A denoiser maps a complex image to (image, record or None)."""

    def __init__(self, denoiser: nn.Module) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.eta = nn.Parameter(torch.ones(1))


class Unrolled(nn.Module):
    """Eq. 2, unrolled. Networks differ in their denoisers and in nothing else.

    Args:
        denoisers: one per cascade.
        sensitivity: estimates coil maps from the masked k-space.
        consistency: `kspace` keeps the iterate in k-space, as E2EVarNet does; `image` is Eq. 2 as printed.

    The sign of the denoiser is E2EVarNet's (subtracted); a learned sign is immaterial.
    """

    def __init__(
        self,
        denoisers: Iterable[nn.Module],
        sensitivity: SensitivityNetwork,
        consistency: Consistency = "kspace",
    ) -> None:
        super().__init__()
        self.sensitivity = sensitivity
        # A ModuleList, which does not tell type checkers what it holds.
        self.cascades: Sequence[Cascade] = nn.ModuleList(map(Cascade, denoisers))  # type: ignore[assignment]
        self.consistency = consistency

    def forward(
        self, kspace: Tensor, mask: Tensor, n_acs: int | Tensor | None = None, sens_maps: Tensor | None = None
    ) -> Reconstruction:
        """Reconstruct undersampled k-space.

        Args:
            kspace: masked, complex (batch, coil, y, x).
            mask: bool (batch, 1, 1, x), x the phase-encode axis.
            n_acs: number of autocalibration columns; found from the mask when None.
            sens_maps: complex (batch, coil, y, x), root sum of squares one; estimated when None.

        Returns:
            The root-sum-of-squares magnitude (batch, y, x), and the routing records if denoisers route.
        """
        _check(kspace, mask)
        if sens_maps is None:
            sens_maps = self.sensitivity(kspace, mask, n_acs)
        sense = HybridSense(sens_maps, mask)
        unroll = self._unroll_kspace if self.consistency == "kspace" else self._unroll_image
        image, records = unroll(sense.enter(kspace), sense)
        return Reconstruction(image, tuple(records) or None)

    def _unroll_kspace(self, measured: Tensor, sense: HybridSense) -> tuple[Tensor, list[RoutingRecord]]:
        hybrid, records = measured, []
        for cascade in self.cascades:
            denoised, record = cascade.denoiser(sense.combine(hybrid))
            # Eq. 2 in k-space: k - eta M (k - y) - F S D(S^H F^H k)
            hybrid = kspace_step(hybrid, measured, sense.mask, cascade.eta) - sense.expand(denoised)
            records += [record] if record else []
        return sense.rss(hybrid), records

    def _unroll_image(self, measured: Tensor, sense: HybridSense) -> tuple[Tensor, list[RoutingRecord]]:
        zero_filled = sense.combine(measured)
        image, records = zero_filled, []
        for cascade in self.cascades:
            denoised, record = cascade.denoiser(image)
            # Eq. 2: x - eta A*(A x - y) - D(x)
            image = image - cascade.eta * (sense.gram(image) - zero_filled) - denoised
            records += [record] if record else []
        return image.abs(), records


def _check(kspace: Tensor, mask: Tensor) -> None:
    if kspace.ndim != 4 or not kspace.is_complex():
        raise ValueError(
            f"kspace must be complex (batch, coil, y, x), not {kspace.dtype} {tuple(kspace.shape)}"
        )
    if mask.dtype != torch.bool or mask.shape != (len(kspace), 1, 1, kspace.shape[-1]):
        raise ValueError(
            f"mask must be bool {(len(kspace), 1, 1, kspace.shape[-1])}, not {mask.dtype} {tuple(mask.shape)}"
        )
