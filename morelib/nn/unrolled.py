"""The skeleton all networks share: sensitivity maps, then cascades of data consistency and a denoiser (Eq. 2)."""

from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from morelib.physics.hybrid import HybridSense, coil_images
from morelib.routing import PixelRouting, RoutingRecord

Consistency = Literal["kspace", "image", "hard"]
Record = RoutingRecord | PixelRouting
Records = list[Record | None]


class Reconstruction(NamedTuple):
    """image: magnitude, float (batch, y, x). routing: None, or one record per cascade."""

    image: Tensor
    routing: tuple[Record, ...] | None


class Context(NamedTuple):
    """What a denoiser may look at beside the image.

    zero_filled: A^H y, complex (batch, y, x). normal: A^H A x of the current image, in the image form only. memory:
    whatever the denoiser before returned as its own, None in the first cascade.
    """

    zero_filled: Tensor | None = None
    normal: Tensor | None = None
    memory: Any = None


class Denoised(NamedTuple):
    """image: complex, like the input. record: of the routing. memory: handed to the next cascade's denoiser."""

    image: Tensor
    record: Record | None = None
    memory: Any = None


class Cascade(nn.Module):
    """What one cascade learns: its denoiser, and the step size eta of Eq. 2 where there is a step.

    A denoiser maps (image, `Context`) to `Denoised`.
    """

    def __init__(self, denoiser: nn.Module, has_step: bool = True) -> None:
        super().__init__()
        self.denoiser = denoiser
        if has_step:
            self.eta = nn.Parameter(torch.ones(1))


class Unrolled(nn.Module):
    """Eq. 2, unrolled. Networks differ in their denoisers and in the form of consistency, and in nothing else.

    Args:
        denoisers: one per cascade.
        sensitivity: maps (kspace, mask, n_acs) to coil maps, such as `SensitivityNetwork`.
        consistency: `kspace` keeps the iterate in k-space, as E2EVarNet does; `image` is Eq. 2 as printed; `hard`
            puts the measured columns in place of the denoised image's.
        adjacent: slices that go in together, the one in the middle comes out. A denoiser sees them side by side in
            the batch, (batch * adjacent, y, x).

    The sign of the denoiser is E2EVarNet's: it is the correction to be subtracted, in the `hard` form the image.
    """

    def __init__(
        self,
        denoisers: Iterable[nn.Module],
        sensitivity: nn.Module,
        consistency: Consistency = "kspace",
        adjacent: int = 1,
    ) -> None:
        super().__init__()
        self.sensitivity = sensitivity
        cascades = [Cascade(denoiser, has_step=consistency != "hard") for denoiser in denoisers]
        # A ModuleList, which does not tell type checkers what it holds.
        self.cascades: Sequence[Cascade] = nn.ModuleList(cascades)  # type: ignore[assignment]
        self.consistency = consistency
        self.adjacent = adjacent

    def forward(
        self, kspace: Tensor, mask: Tensor, n_acs: int | Tensor | None = None, sens_maps: Tensor | None = None
    ) -> Reconstruction:
        """Reconstruct undersampled k-space.

        Args:
            kspace: masked, complex (batch, coil, y, x), with adjacent slices (batch, adjacent, coil, y, x).
            mask: bool (batch, 1, 1, x), x the phase-encode axis.
            n_acs: number of autocalibration columns; found from the mask when None.
            sens_maps: complex, shaped like kspace, root sum of squares one; estimated when None.

        Returns:
            The root-sum-of-squares magnitude (batch, y, x), and the routing records if denoisers route.
        """
        check_input(kspace, mask, self.adjacent)
        if sens_maps is None:
            sens_maps = self.sensitivity(kspace, mask, n_acs)
        if self.adjacent > 1:
            kspace, sens_maps = kspace.flatten(0, 1), sens_maps.flatten(0, 1)
            mask = mask.repeat_interleave(self.adjacent, 0)
        sense = HybridSense(sens_maps, mask)
        unroll = {"kspace": self._unroll_kspace, "image": self._unroll_image, "hard": self._unroll_hard}
        image, records = unroll[self.consistency](coil_images(kspace), sense)
        middle = image[self.adjacent // 2 :: self.adjacent]
        return Reconstruction(middle, tuple(record for record in records if record is not None) or None)

    def _unroll_kspace(self, measured: Tensor, sense: HybridSense) -> tuple[Tensor, Records]:
        """E2EVarNet's k - eta M (k - y) - F S D(S^H F^H k), without keeping k: all that changes are two images.

        `measured`, here and below, are the coil images F^H y.

        What cascades add to k-space are images seen by the coils, so k = y - F S p + M F S d, where p sums up the
        corrections and d what consistency took back of them at the measured columns. The image that the next denoiser
        sees is S^H F^H k = S^H F^H y - S^H S p + S^H F^H M F S d: a cascade costs one normal operator.
        """
        zero_filled, coverage = sense.combine(measured), sense.coverage()
        corrections, returned = torch.zeros_like(zero_filled), torch.zeros_like(zero_filled)
        memory, records = None, []
        for number, cascade in enumerate(self.cascades):
            image = zero_filled - coverage * corrections
            if number > 1:  # nothing has been returned before
                image = image + sense.gram(returned)
            denoised, record, memory = cascade.denoiser(image, Context(memory=memory))
            # Eq. 2 in k-space, with k - y = F S (d - p) at the measured columns
            returned = returned + cascade.eta * (corrections - returned)
            corrections = corrections + denoised
            records.append(record)
        return sense.magnitude(measured, corrections, returned), records

    def _unroll_image(self, measured: Tensor, sense: HybridSense) -> tuple[Tensor, Records]:
        zero_filled = sense.combine(measured)
        del measured  # as large as the data of all coils, and not read again
        image, memory, records = zero_filled, None, []
        for cascade in self.cascades:
            normal = sense.gram(image)
            denoised, record, memory = cascade.denoiser(image, Context(zero_filled, normal, memory))
            # Eq. 2: x - eta A*(A x - y) - D(x)
            image = image - cascade.eta * (normal - zero_filled) - denoised
            records.append(record)
        return image.abs(), records

    def _unroll_hard(self, measured: Tensor, sense: HybridSense) -> tuple[Tensor, Records]:
        zero_filled, coverage = sense.combine(measured), sense.coverage()
        del measured  # as above
        image, memory, records = zero_filled, None, []
        for cascade in self.cascades:
            denoised, record, memory = cascade.denoiser(image, Context(zero_filled, memory=memory))
            # S^H F^H of (1 - M) F S D(x) + M y
            image = zero_filled + coverage * denoised - sense.gram(denoised)
            records.append(record)
        return image.abs(), records


def check_input(kspace: Tensor, mask: Tensor, adjacent: int) -> None:
    """ValueError unless both are what `Unrolled.forward` asks for."""
    if adjacent > 1 and (kspace.ndim != 5 or kspace.shape[1] != adjacent):
        raise ValueError(
            f"kspace must be (batch, {adjacent} adjacent slices, coil, y, x), not {tuple(kspace.shape)};"
            f" use SliceDataset(..., adjacent={adjacent})"
        )
    if (adjacent == 1 and kspace.ndim != 4) or not kspace.is_complex():
        raise ValueError(
            f"kspace must be complex (batch, coil, y, x), not {kspace.dtype} {tuple(kspace.shape)}"
        )
    if mask.dtype != torch.bool or mask.shape != (len(kspace), 1, 1, kspace.shape[-1]):
        raise ValueError(
            f"mask must be bool {(len(kspace), 1, 1, kspace.shape[-1])}, not {mask.dtype} {tuple(mask.shape)}"
        )
