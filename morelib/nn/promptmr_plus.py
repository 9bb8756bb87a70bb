"""PromptMR+ (Xin 2024, ECCV) and PromptMR (Xin 2023): unrolled prompt U-Nets that remember earlier cascades."""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from morelib.errors import UserError
from morelib.nn import checkpointing as activations
from morelib.nn.prompt_unet import ComplexPromptUNet, History, PromptUNet
from morelib.nn.sensitivity import in_groups
from morelib.nn.unrolled import Context, Denoised, Unrolled
from morelib.physics.hybrid import coil_images
from morelib.physics.masks import acs_of
from morelib.physics.sense import normalise_maps

# The images a denoiser with adaptive input reads: x, A^H A x, latent, A^H y, A^H A x - A^H y.
N_INPUTS = 5
# Its output has as many. One is the correction, one the next latent image. Nobody reads the others: the published
# network has weights for them, so that ours has too, but they are not computed.
CORRECTION, LATENT = 0, 2

_OFFICIAL: dict[str, Any] = {
    "widths": (48, 72, 96, 120),
    "prompt_widths": (24, 48, 72),
    "adjacent": 5,
    "zero_init": False,
    "restore_mean": True,
}
PRESETS: dict[str, dict[str, Any]] = {
    # PromptMR+ as published for every data set: 82,491,005 trainable parameters and 10,368,000 frozen ones.
    "official": _OFFICIAL,
    # As the MoRE paper trains it for Table I, on one slice. These are the defaults.
    "paper": {},
    # PromptMR, its predecessor, at the published size: 71,160,317 trainable parameters and as many frozen ones.
    "promptmr": {**_OFFICIAL, "adaptive_input": False, "history": 0, "sens_adjacent": False},
}


class Memory(NamedTuple):
    """What one cascade leaves for the next; tuples throughout, see `morelib.nn.checkpointing`.

    latent: complex (batch * adjacent, y, x), None without adaptive input. history: of the prompt U-Net.
    """

    latent: Tensor | None
    history: History


class PromptDenoiser(nn.Module):
    """D of Eq. 2 as a prompt U-Net over adjacent slices: complex (batch * adjacent, y, x) in and out.

    With *adaptive input* it sees more than the image x. It also gets A^H y, where x started; A^H A x, what the scanner
    would have measured of x; the difference of the two, which is the gradient of the data term and shows where x and
    the measurement disagree; and a latent image, a second output of the cascade before that is free to hold anything.
    The network can so learn a step that adapts to the sampling, where plain unrolling adds a correction to a fixed one.

    Args:
        unet: takes and gives adjacent images, five times as many with adaptive input.
        adjacent: slices that go in together.
        adaptive_input: as above.
        checkpointing: see `morelib.nn.checkpointing`.
    """

    def __init__(
        self, unet: ComplexPromptUNet, adjacent: int, adaptive_input: bool, checkpointing: bool
    ) -> None:
        super().__init__()
        self.unet = unet
        self.adjacent = adjacent
        self.adaptive_input = adaptive_input
        self.checkpointing = checkpointing

    def forward(self, image: Tensor, context: Context) -> Denoised:
        return activations.run(self.checkpointing, self._denoise, image, context)

    def _denoise(self, image: Tensor, context: Context) -> Denoised:
        memory: Memory | None = context.memory
        images = [image]
        if self.adaptive_input:
            start, normal = context.zero_filled, context.normal
            assert start is not None and normal is not None
            latent = start if memory is None else memory.latent
            assert latent is not None
            images = [image, normal, latent, start, normal - start]
        # From side by side in the batch to channels: (batch, adjacent, y, x).
        images = [each.unflatten(0, (-1, self.adjacent)) for each in images]
        read = (CORRECTION, LATENT) if self.adaptive_input else (CORRECTION,)
        wanted = [which * self.adjacent + slice_ for which in read for slice_ in range(self.adjacent)]
        output, history = self.unet(images, memory.history if memory else None, wanted)
        correction, *others = (each.flatten(0, 1) for each in output.split(self.adjacent, 1))
        return Denoised(correction, memory=Memory(others[0] if others else None, history))


class PromptSensitivityNetwork(nn.Module):
    """A prompt U-Net, applied to each coil's low-resolution images; the maps get a root sum of squares of one.

    Args:
        unet: takes and gives as many images as slices it looks at together: `adjacent` of them or one.
        share_adjacent: the adjacent slices of a coil go in together. Coil maps are smooth along the slice axis too.
        checkpointing: as in `morelib.nn.checkpointing`, the activations of a few coils at a time.
    """

    def __init__(self, unet: ComplexPromptUNet, share_adjacent: bool, checkpointing: bool) -> None:
        super().__init__()
        self.unet = unet
        self.share_adjacent = share_adjacent
        self.checkpointing = checkpointing

    def forward(self, kspace: Tensor, mask: Tensor, n_acs: int | Tensor | None = None) -> Tensor:
        """Maps of the shape of k-space.

        Args:
            kspace: masked, complex (batch, coil, y, x) or (batch, adjacent, coil, y, x).
            mask: bool (batch, 1, 1, x), the same for all adjacent slices.
            n_acs: number of autocalibration columns; found from the mask when None.
        """
        acs = acs_of(mask, n_acs).unsqueeze(1)
        slices = kspace if kspace.ndim == 5 else kspace.unsqueeze(1)
        images = coil_images(torch.where(acs, slices, 0.0).flatten(0, 1))
        images = images.unflatten(0, (-1, slices.shape[1] if self.share_adjacent else 1))
        # A coil is a sample, its slices are the channels: (samples, coil, slices, y, x).
        images = images.transpose(1, 2)
        maps = in_groups(self._maps, images.flatten(0, 1), self.checkpointing).unflatten(0, images.shape[:2])
        return normalise_maps(maps).transpose(1, 2).reshape(kspace.shape)

    def _maps(self, images: Tensor) -> Tensor:
        maps, _ = self.unet([images])
        return maps


def promptmr_plus(
    cascades: int = 12,
    widths: Sequence[int] = (16, 20, 24, 28),
    prompt_widths: Sequence[int] = (8, 12, 16),
    prompt_sizes: Sequence[int] = (64, 32, 16),
    n_prompts: int = 5,
    encoder_blocks: Sequence[int] = (2, 3, 3),
    bottleneck_blocks: int = 3,
    decoder_blocks: Sequence[int] = (2, 2, 3),
    adjacent: int = 1,
    adaptive_input: bool = True,
    history: int | None = None,
    sens_adjacent: bool = True,
    learnable_prompts: bool = False,
    zero_init: bool = True,
    restore_mean: bool = False,
    checkpointing: bool = False,
) -> Unrolled:
    """PromptMR+: cascades of prompt U-Nets with consistency in the image domain, Eq. 2 as printed.

    The sensitivity network is a prompt U-Net too, of half the widths and prompt widths and without history.

    Other than in the published code each channel-attention block has a PReLU of its own (there one is shared by every
    network of the process), gradients under checkpointing are right, and a dead coil or an empty slice gives no NaN.
    The description leaves open what chooses the prompts of a decoder level; here it is the level's input as it comes,
    before the history is mixed in.

    Args:
        cascades: how many times Eq. 2 is unrolled.
        widths: of the prompt U-Net, finest first; the last is the bottleneck. One more than there are levels.
        prompt_widths, prompt_sizes: channels and height of each level's prompts, finest first.
        n_prompts: prompt images of each level.
        encoder_blocks, decoder_blocks: channel-attention blocks of each level, finest first.
        bottleneck_blocks: those at the bottleneck.
        adjacent: slices that go in together, an odd number; the one in the middle comes out.
        adaptive_input: see `PromptDenoiser`.
        history: earlier cascades whose features a decoder reads; None for all, which is cascades - 1, 0 for none.
        sens_adjacent: the sensitivity network looks at the adjacent slices together.
        learnable_prompts: train the prompt images too; they are frozen at random values as published.
        zero_init: start each denoiser's last convolution at zero, see `morelib.nn.unet.Decoder`. The published network
            does not; without normalisation layers, its gradients are known to explode now and then.
        restore_mean: add the mean of a denoiser's input to its outputs, as published; see `e2e_varnet`.
        checkpointing: train in less memory and more time, see `morelib.nn.checkpointing`.

    Raises:
        UserError: the options of the levels differ in length, or `adjacent` is even.
    """
    levels = {"prompt_widths": prompt_widths, "prompt_sizes": prompt_sizes}
    levels |= {"encoder_blocks": encoder_blocks, "decoder_blocks": decoder_blocks}
    for name, values in levels.items():
        if len(values) != len(widths) - 1:
            raise UserError(
                f"promptmr_plus: {name} has {len(values)} entries for {len(widths)} widths;"
                f" give one per level, {len(widths) - 1}"
            )
    if adjacent % 2 == 0:
        raise UserError(f"promptmr_plus: adjacent = {adjacent} has no middle slice; give an odd number")
    history = cascades - 1 if history is None else history
    unet = partial(
        PromptUNet,
        prompt_sizes=prompt_sizes,
        n_prompts=n_prompts,
        encoder_blocks=encoder_blocks,
        decoder_blocks=decoder_blocks,
        bottleneck_blocks=bottleneck_blocks,
        learnable_prompts=learnable_prompts,
    )

    def new_denoiser() -> PromptDenoiser:
        channels = 2 * adjacent * (N_INPUTS if adaptive_input else 1)
        cascade_unet = unet(
            channels,
            channels,
            widths,
            prompt_widths,
            history=history,
            zero_init=zero_init,
            restore_mean=restore_mean,
        )
        return PromptDenoiser(ComplexPromptUNet(cascade_unet), adjacent, adaptive_input, checkpointing)

    channels = 2 * adjacent if sens_adjacent else 2
    halves, prompt_halves = [width // 2 for width in widths], [width // 2 for width in prompt_widths]
    sens_unet = unet(channels, channels, halves, prompt_halves, history=0, zero_init=False, restore_mean=True)
    sensitivity = PromptSensitivityNetwork(ComplexPromptUNet(sens_unet), sens_adjacent, checkpointing)
    return Unrolled((new_denoiser() for _ in range(cascades)), sensitivity, "image", adjacent)
