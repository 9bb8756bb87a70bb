"""The prompt U-Net of PromptMR and PromptMR+: channel attention, learned prompts, features of earlier cascades.

One network shall reconstruct knees and brains, 4x and 8x. A mixture of experts answers with several networks and a
router between them. PromptMR answers with one network and several *prompts*: images of numbers, mixed per input by a
softmax, that the decoder reads beside its features. The weights stay the same; what they look at depends on the input.

Written from a description of the published network (Xin 2024, ECCV, "Rethinking Deep Unrolled Model for Accelerated
MRI Reconstruction"), not from its code.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from morelib.nn.complex_io import Door
from morelib.routing.cab import ChannelAttentionBlock
from morelib.routing.convolution import Convolution, by_hand, convolve, plain

# Per decoder level, coarsest first: what that level of earlier cascades read, newest first.
History = tuple[tuple[Tensor, ...], ...]


def attention_blocks(channels: int, count: int) -> nn.Sequential:
    """`count` channel-attention blocks in a row, each with a PReLU of its own."""
    return nn.Sequential(*(ChannelAttentionBlock(channels) for _ in range(count)))


class Prompt(nn.Module):
    """A softmax mixture of prompt images, chosen by the mean of the features and resized to them.

    (batch, channels, y, x) to (batch, prompt_channels, y, x).

    Args:
        channels: of the features that choose.
        prompt_channels: of each prompt image.
        n_prompts: how many prompt images there are to mix.
        size: their height and width; they are stretched to whatever size the features have.
        learnable: train the images too. The published network leaves them at their random start and trains only how
            they are mixed and read: what matters is that inputs can be told apart, as by the colour of a card.
    """

    def __init__(
        self, channels: int, prompt_channels: int, n_prompts: int, size: int, learnable: bool
    ) -> None:
        super().__init__()
        images = torch.rand(n_prompts, prompt_channels, size, size)
        # A parameter even when frozen: it is saved with the weights, without which they are worth nothing.
        self.images = nn.Parameter(images, requires_grad=learnable)
        self.choose = nn.Linear(channels, n_prompts)
        self.smooth = Convolution(prompt_channels, prompt_channels, 3)

    def forward(self, features: Tensor) -> Tensor:
        weights = self.choose(features.mean((-2, -1))).softmax(-1)
        prompt = torch.einsum("bn,ncyx->bcyx", weights, self.images)
        prompt = prompt.contiguous(memory_format=torch.channels_last)
        return self.smooth(F.interpolate(prompt, features.shape[-2:], mode="bilinear", align_corners=False))


class DecoderLevel(nn.Module):
    """One level upwards: earlier cascades' features in, prompt in, twice the size, skip in.

    Args:
        channels: of the level below, which comes in.
        out_channels: of this level and of its skip.
        prompt: makes the prompt from what comes in.
        prompt_channels: of the prompt.
        n_blocks: channel-attention blocks over features and prompt.
        history: how many earlier cascades are read; 0 for none.
    """

    def __init__(
        self,
        channels: int,
        out_channels: int,
        prompt: Prompt,
        prompt_channels: int,
        n_blocks: int,
        history: int,
    ) -> None:
        super().__init__()
        self.prompt = prompt
        if history:
            self.recall = nn.Sequential(
                nn.Conv2d((history + 1) * channels, channels, 1, bias=False), ChannelAttentionBlock(channels)
            )
        self.blocks = attention_blocks(channels + prompt_channels, n_blocks)
        # Published as two steps, with the enlargement before the second. A 1x1 convolution works on pixels and bilinear
        # enlargement on channels, each linear: they commute, and the small image is four times cheaper to convolve.
        # Then the two convolutions follow each other and are one, whose matrix is the product of theirs.
        self.narrow = nn.Sequential(
            nn.Conv2d(channels + prompt_channels, channels, 1, bias=False),
            nn.Conv2d(channels, out_channels, 1, bias=False),
        )
        self.refine = ChannelAttentionBlock(out_channels)

    def forward(self, features: Tensor, skips: list[Tensor], past: tuple[Tensor, ...]) -> Tensor:
        """`skips` of this level and those above, finest first; the last is taken away, its memory is let go."""
        prompt = self.prompt(features)
        if past:
            mix, refine = self.recall
            assert isinstance(mix, nn.Conv2d)  # which nn.Sequential does not tell type checkers
            features = refine(convolve_pixels((features, *past), mix.weight))
        inner, outer = (weight.flatten(1) for weight in self.narrow.parameters())
        features = F.conv2d(self.blocks(torch.cat([features, prompt], 1)), (outer @ inner)[..., None, None])
        return self.refine(enlarge(features).add_(skips.pop()))


def enlarge(maps: Tensor) -> Tensor:
    """Bilinear, to twice the size.

    On a processor as the transposed convolution that it is, which takes half the time of PyTorch's interpolation.
    """
    if not by_hand(maps) or plain.get():
        return F.interpolate(maps, scale_factor=2.0, mode="bilinear", align_corners=False)
    channels = maps.shape[1]
    line = maps.new_tensor([0.25, 0.75, 0.75, 0.25])
    kernel = torch.outer(line, line).expand(channels, 1, 4, 4)
    # Beyond the rim lies what is at the rim.
    return F.conv_transpose2d(
        F.pad(maps, (1, 1, 1, 1), "replicate"), kernel, stride=2, padding=3, groups=channels
    )


def convolve_pixels(maps: Sequence[Tensor], weight: Tensor) -> Tensor:
    """A 1x1 convolution, weight (out_channels, channels, 1, 1), of maps whose channels follow one another.

    On a processor they are not joined, which takes longer than the products and would be kept for the gradient. Where
    a map comes again, as those of the first cascade do, its weights are added up first.
    """
    if maps[0].is_cuda or torch.compiler.is_compiling() or plain.get():
        return F.conv2d(torch.cat(list(maps), 1), weight)
    matrices: dict[Tensor, Tensor] = {}
    for each, matrix in zip(maps, weight.flatten(1).split([each.shape[1] for each in maps], 1), strict=True):
        matrices[each] = matrices[each] + matrix if each in matrices else matrix
    first, *others = ((each.movedim(1, -1).flatten(0, 2), matrix.T) for each, matrix in matrices.items())
    out = first[0] @ first[1]
    for pixels, matrix in others:
        out.addmm_(pixels.to(out.dtype), matrix.to(out.dtype))
    batch, _, height, width = maps[0].shape
    return out.view(batch, height, width, -1).movedim(-1, 1)


class PromptUNet(nn.Module):
    """Encoder, bottleneck and prompted decoder, between images of any size and brightness.

    All images of a sample share one mean and one (unbiased) standard deviation: they are taken out before the encoder
    and the standard deviation is put back behind the decoder. There is no normalisation layer, so this alone makes the
    network equivariant to the scale of k-space. A shared one keeps the images of a sample comparable: the network can
    still see that the residual A^H A x - A^H y is small.

    A sample that is constant (a dead coil, an empty slice) has no standard deviation. It enters as zeros, but for
    rounding, and leaves as its mean, not as NaN: what the network makes of it is multiplied by zero.

    Each level halves the size. So images are padded, as `Door` does it, and the output is cropped back.

    Args:
        in_channels, out_channels: real images.
        widths: one per level, finest first; the last is the bottleneck, so there are len(widths) - 1 levels.
        prompt_widths, prompt_sizes: channels and height of the prompts of each level, finest first.
        n_prompts: prompt images of each level.
        encoder_blocks, decoder_blocks: channel-attention blocks of each level, finest first.
        bottleneck_blocks: those at the bottleneck.
        history: earlier cascades whose decoder inputs are read again; 0 for none.
        learnable_prompts: see `Prompt`.
        zero_init: start the last convolution at zero, see `morelib.nn.unet.Decoder`.
        restore_mean: add the mean to each output as published. Right for an output that is an image; a correction that
            is subtracted from an image starts at nothing only without it.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        widths: Sequence[int],
        prompt_widths: Sequence[int],
        prompt_sizes: Sequence[int],
        n_prompts: int,
        encoder_blocks: Sequence[int],
        decoder_blocks: Sequence[int],
        bottleneck_blocks: int,
        history: int,
        learnable_prompts: bool,
        zero_init: bool,
        restore_mean: bool,
    ) -> None:
        super().__init__()
        self.history = history
        self.restore_mean = restore_mean
        self.first = Convolution(in_channels, widths[0], 3)
        self.encoder = nn.ModuleList(
            attention_blocks(width, count) for width, count in zip(widths[:-1], encoder_blocks, strict=True)
        )
        self.skips = nn.ModuleList(ChannelAttentionBlock(width) for width in widths[:-1])
        self.down = nn.ModuleList(nn.Conv2d(i, o, 3, stride=2, padding=1) for i, o in pairwise(widths))
        self.bottleneck = attention_blocks(widths[-1], bottleneck_blocks)
        levels = zip(pairwise(widths), prompt_widths, prompt_sizes, decoder_blocks, strict=True)
        self.decoder = nn.ModuleList(
            DecoderLevel(i, o, Prompt(i, width, n_prompts, size, learnable_prompts), width, count, history)
            for (o, i), width, size, count in reversed(list(levels))
        )
        self.last = Convolution(widths[0], out_channels, 5)
        if zero_init:
            nn.init.zeros_(self.last.weight)

    def forward(
        self, images: Sequence[Tensor], history: History | None = None, wanted: Sequence[int] | None = None
    ) -> tuple[Tensor, History]:
        """Images, each (batch, some of in_channels, y, x), and the history of the cascade before, None in the first.

        Returns the output (batch, out_channels, y, x), of which only the channels `wanted` are computed unless it is
        None, and the history for the next cascade, empty without history.

        The images come one by one, as whoever calls holds what is handed over until the end: joined, they would take as
        much memory as the largest maps of the network.
        """
        # Channels together in memory, as a processor convolves; all layers keep it so.
        x = torch.cat([each.movedim(1, -1) for each in images], -1).movedim(-1, 1)
        x, door = Door.enter_channels(x, (1, 2, 3), 2 ** len(self.down))
        x = self.first(x)
        skips = []
        for blocks, skip, down in zip(self.encoder, self.skips, self.down, strict=True):
            # One by one, as a whole nn.Sequential would hold its input in memory until its end.
            for block in blocks.children():
                x = block(x)
            skips.append(skip(x))
            x = down(x)
        x = self.bottleneck(x)
        new_history = []
        for index, level in enumerate(self.decoder):
            # Nothing came before the first cascade: what is there now stands in for it.
            past = (x,) * self.history if history is None else history[index]
            new_history.append((x, *past)[: self.history])
            x = level(x, skips, past)
        # By views: a list as an index would be copied to a GPU, which cannot be recorded.
        kernel = self.last.weight
        kernel = kernel if wanted is None else torch.stack([kernel[channel] for channel in wanted])
        return door.leave_channels(convolve(x, kernel), self.restore_mean), tuple(new_history)


class ComplexPromptUNet(nn.Module):
    """A prompt U-Net for complex images, (batch, n, y, x) to (batch, n', y, x).

    Args:
        unet: takes 2 n real images, all real parts first, and gives 2 n' in the same order.
    """

    def __init__(self, unet: PromptUNet) -> None:
        super().__init__()
        self.unet = unet

    def forward(
        self, images: Sequence[Tensor], history: History | None = None, wanted: Sequence[int] | None = None
    ) -> tuple[Tensor, History]:
        """Complex images, each (batch, some of the n, y, x), to (batch, n', y, x).

        Of the n' only those that are `wanted`, by their numbers, unless it is None.
        """
        channels = (
            None if wanted is None else [*wanted, *(self.unet.last.out_channels // 2 + i for i in wanted)]
        )
        parts = [each.real for each in images] + [each.imag for each in images]
        x, history = self.unet(parts, history, channels)
        return torch.complex(*x.chunk(2, 1)), history
