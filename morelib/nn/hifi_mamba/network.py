"""HiFi-MambaV2 (arXiv 2511.18534): two frequency streams, a guided selective scan, and experts chosen per pixel."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from morelib.nn import checkpointing as activations
from morelib.nn.hifi_mamba.block import HifiMambaBlock
from morelib.nn.hifi_mamba.experts import ExpertBank
from morelib.nn.hifi_mamba.state_space import GuidedStateSpace
from morelib.nn.sensitivity import SensitivityNetwork
from morelib.nn.unrolled import Context, Denoised, Unrolled
from morelib.routing.pixel import stack_routings

PRESETS: dict[str, dict[str, Any]] = {
    # The paper's words: experts shared across depth, local routers. 3,288,396 parameters besides the coil maps.
    "paper": {},
    # The published code: experts of its own in each block. 6,913,996; its 7.141 M hold some that never act.
    "official": {"share_experts_across_depth": False, "zero_init": False},
}


class Memory(NamedTuple):
    """What one cascade hands to the next.

    features: (batch, y, x, width). scale: peak of the first image, that all are divided by, (batch, 1, 1).
    """

    features: Tensor
    scale: Tensor


class HifiMambaDenoiser(nn.Module):
    """One group of blocks, between an embedding of image patches and a linear map back to pixels.

    Features run through all cascades (`Memory`). In between, the image is read out, made consistent with the measured
    k-space by the skeleton, embedded again and added to them.

    Args:
        blocks: run in order.
        width: channels of the features.
        patch: side of the square of pixels that makes one feature pixel.
        last: normalise the features before they are read out.
        zero_init: start the readout at zero.
        checkpointing: see `morelib.nn.checkpointing`.
    """

    def __init__(
        self,
        blocks: Sequence[HifiMambaBlock],
        width: int,
        patch: int,
        last: bool,
        zero_init: bool,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.patch = patch
        self.checkpointing = checkpointing
        self.embed = nn.Conv2d(2, width, patch, stride=patch)
        self.embed_norm = nn.LayerNorm(width)
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(width) if last else nn.Identity()
        self.readout = nn.Linear(width, 2 * patch**2, bias=False)
        self.apply(_initialise)
        if zero_init:
            nn.init.zeros_(self.readout.weight)

    def forward(self, image: Tensor, context: Context) -> Denoised:
        """Complex image (batch, y, x) to the denoised one, what the routers did, and the features."""
        memory: Memory | None = context.memory
        scale = image.abs().amax((-2, -1), keepdim=True) if memory is None else memory.scale
        # An image of zeros has no scale: it enters as it is, and leaves as zeros.
        channels = self._enter(image / torch.where(scale > 0, scale, 1.0))
        # SiLU has its minimum at -1.28. Within a peak of one it is one-to-one and nothing is lost.
        patches = self.embed(channels if memory is None else F.silu(channels))
        features = self.embed_norm(patches.movedim(1, -1))
        if memory is not None:
            features = memory.features + features
        choices = []
        for block in self.blocks:
            features, choice = activations.run(self.checkpointing, block, features)
            choices.append(choice)
        pixels = self._leave(self.readout(self.norm(features)), image.shape[-2:])
        return Denoised(pixels * scale, stack_routings(choices), Memory(features, scale))

    def _enter(self, image: Tensor) -> Tensor:
        """Complex (batch, y, x) to real (batch, 2, y', x'), padded with zeros below and on the right."""
        height, width = image.shape[-2:]
        x = torch.view_as_real(image).permute(0, 3, 1, 2)
        return F.pad(x, (0, -width % self.patch, 0, -height % self.patch))

    def _leave(self, x: Tensor, size: Sequence[int]) -> Tensor:
        """Patches (batch, y, x, 2 patch^2) to a complex image (batch, *size)."""
        x = x.unflatten(-1, (self.patch, self.patch, 2)).permute(0, 1, 3, 2, 4, 5).flatten(1, 2).flatten(2, 3)
        # Complex numbers have no short format, and autocast ends in one.
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        return torch.view_as_complex(x[:, : size[0], : size[1]].contiguous())


def _initialise(module: nn.Module) -> None:
    """`nn.Module.apply` goes from the inside out: a state-space layer comes after the linear maps it holds."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, GuidedStateSpace):
        module.reset_parameters()


class CoilMaps(SensitivityNetwork):
    """The sensitivity network; a single coil has the map one, as published, and needs no network."""

    def forward(self, kspace: Tensor, mask: Tensor, n_acs: int | Tensor | None = None) -> Tensor:
        """As `SensitivityNetwork`."""
        return torch.ones_like(kspace) if kspace.shape[1] == 1 else super().forward(kspace, mask, n_acs)


def hifi_mamba_v2(
    cascades: int = 6,
    blocks: int = 2,
    width: int = 128,
    patch: int = 2,
    state: int = 16,
    n_experts: int = 4,
    share_experts_across_depth: bool = True,
    drop_path: float = 0.3,
    dropout: float = 0.1,
    sens_widths: Sequence[int] = (8, 16, 32, 64, 128),
    zero_init: bool = True,
    checkpointing: bool = False,
) -> Unrolled:
    """HiFi-MambaV2: `cascades` groups of blocks with data consistency after each.

    Published for one coil; several go through sensitivity maps like those of the other networks. Images are scaled to
    a peak of one, as the published code scales its data, so the network is equivariant to the scale of k-space.

    Args:
        cascades: groups, each followed by data consistency.
        blocks: per group.
        width: channels of the features, even; each stream has half of them.
        patch: image pixels per feature pixel, along each axis.
        state: numbers per channel that the selective scan remembers.
        n_experts: routed experts; one shared expert is always on beside them.
        share_experts_across_depth: one bank of experts for all blocks, each block with a router of its own: so says
            the paper. False gives each block its own experts: so does the published code.
        drop_path: probability of skipping the last block in training; it grows linearly from 0 at the first.
        dropout: of the state-space layers' output.
        sens_widths: widths of the sensitivity network.
        zero_init: start with the readouts at zero (the first image is then the zero-filled one), so that compared
            networks start alike. False as published.
        checkpointing: compute activations again in the backward pass, block by block, instead of keeping them.
    """
    shared_bank = ExpertBank(width, n_experts) if share_experts_across_depth else None
    n_blocks = cascades * blocks

    def group(first: int) -> list[HifiMambaBlock]:
        return [
            HifiMambaBlock(
                width,
                shared_bank or ExpertBank(width, n_experts),
                state,
                drop_path * index / max(n_blocks - 1, 1),
                dropout,
            )
            for index in range(first, first + blocks)
        ]

    denoisers = (
        HifiMambaDenoiser(group(first), width, patch, first + blocks == n_blocks, zero_init, checkpointing)
        for first in range(0, n_blocks, blocks)
    )
    return Unrolled(denoisers, CoilMaps(sens_widths), "hard")
