"""The sample-wise router of Eqs. 3 to 5: encoder features in, one probability per expert out."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from morelib.routing.cab import ChannelAttentionBlock

Crop = Literal["centre", "pool"]


class RouterOutput(NamedTuple):
    """logits z and gates g, (batch, n_experts); embedding F_r, (batch, embedding)."""

    logits: Tensor
    gates: Tensor
    embedding: Tensor


def router_input(features: Sequence[Tensor], crop: Crop = "centre") -> Tensor:
    """Cat_c(Crop({E_i})) of Eq. 3: multi-scale features, cut loose from the backbone, at the smallest level's size.

    Args:
        features: encoder levels, each (batch, c_i, y_i, x_i), the last one the smallest.
        crop: `centre` crops each level about its centre, as printed. It keeps only the central part of the field of
            view of the finer levels; `pool` averages them down instead and keeps all of it.

    Returns:
        (batch, sum of c_i, y, x), detached.
    """
    height, width = features[-1].shape[-2:]
    levels = []
    for level in features:
        # All router inputs are detached: router gradients must not reach the backbone (Sec. III-A).
        detached = level.detach()
        levels.append(
            centre_window(detached, (height, width))
            if crop == "centre"
            else F.adaptive_avg_pool2d(detached, (height, width))
        )
    # Eq. 3, inner part
    return torch.cat(levels, 1)


def centre_window(x: Tensor, size: tuple[int, int]) -> Tensor:
    """The central window of the last two axes, at most `size`."""
    height, width = min(size[0], x.shape[-2]), min(size[1], x.shape[-1])
    top, left = (x.shape[-2] - height) // 2, (x.shape[-1] - width) // 2
    return x[..., top : top + height, left : left + width]


class Router(nn.Module):
    """Eqs. 3 to 5: two channel-attention blocks, global average pooling, an MLP, a linear gate, softmax.

    Args:
        channels: channels of `router_input`, the sum of the encoder widths (16 + 20 + 24 + 28 = 88 in the paper).
        n_experts: N.
        embedding: length of F_r.
        reduction: bottleneck factor of the channel attention.
        width: None runs the blocks on all channels, as printed. A number first reduces the channels to it by a 1x1
            convolution: with 16 cached inputs the printed form costs as much as the U-Net it steers.
        standardise: batch-normalise the input channels and the embedding over the router batch. Not in the paper;
            it keeps small runs from collapsing (part of the `robust` recipe).
        checkpointing: forget the activations of the blocks and compute them again for the gradient.
    """

    def __init__(
        self,
        channels: int,
        n_experts: int,
        embedding: int = 64,
        reduction: int = 4,
        width: int | None = None,
        standardise: bool = False,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.checkpointing = checkpointing
        inner = width or channels
        self.standardise_input = nn.BatchNorm2d(channels, affine=False) if standardise else nn.Identity()
        self.reduce = nn.Conv2d(channels, width, 1) if width else nn.Identity()
        self.blocks = nn.Sequential(
            ChannelAttentionBlock(inner, reduction), ChannelAttentionBlock(inner, reduction)
        )
        self.mlp = nn.Sequential(nn.Linear(inner, embedding), nn.GELU(), nn.Linear(embedding, embedding))
        self.standardise_embedding = _EmbeddingNorm(embedding) if standardise else nn.Identity()
        self.gate = nn.Linear(embedding, n_experts, bias=False)
        # All gates start equal, so that no expert is ahead before anything was learned.
        nn.init.zeros_(self.gate.weight)

    def forward(self, *parts: Tensor) -> RouterOutput:
        """Route a router batch (batch, channels, y, x), as `router_input` makes it; in parts, if it has some.

        In the precision of the weights, also under autocast: rounded gates tie, and ties all go to one expert.
        """
        weight = self.gate.weight
        with torch.autocast(weight.device.type, enabled=False):
            inputs = [part.to(weight.dtype) for part in parts]
            if isinstance(self.standardise_input, nn.BatchNorm2d):
                # Outside of what may run twice: running statistics are updated once.
                inputs = [self.standardise_input(torch.cat(inputs))]
            pooled = (
                checkpoint(self._pooled, *inputs, use_reentrant=False)
                if self.checkpointing
                else self._pooled(*inputs)
            )
            # Eq. 4: F_r = MLP(GAP(E_r))
            embedding = self.standardise_embedding(self.mlp(pooled))
            # z = W F_r
            logits = self.gate(embedding)
            # Eq. 5: g = softmax(z)
            return RouterOutput(logits, logits.softmax(-1), embedding)

    def _pooled(self, *parts: Tensor) -> Tensor:
        """GAP(E_r), (batch, channels)."""
        first, last = self.blocks
        assert isinstance(last, ChannelAttentionBlock)  # which nn.Sequential does not tell type checkers
        # Channels-last, like the U-Nets: a fifth faster on a processor.
        # Reduced before they are joined: cached inputs are not copied for the gradient.
        reduced = [self.reduce(part) for part in parts]
        x = torch.cat(reduced) if len(reduced) > 1 else reduced[0]
        x = x.contiguous(memory_format=torch.channels_last)
        # Eq. 3: E_r = CAB^2(Cat(Crop(E_i))), of which only the mean is wanted
        return last.pooled(first(x))


def route(router: Router, batches: Sequence[Sequence[Tensor]]) -> RouterOutput:
    """Route batches that differ in image size, one after the other; the outputs are joined in their order.

    A batch may be in parts, (n, channels, y, x) each, that differ in n. With `standardise`, each size is normalised by
    itself, so not over the whole router batch where cached inputs have another size than the samples.
    """
    outputs = [router(*parts) for parts in batches]
    return RouterOutput(*[torch.cat(fields) for fields in zip(*outputs, strict=True)])


class _EmbeddingNorm(nn.BatchNorm1d):
    """BatchNorm1d without affine part that falls back on its running statistics for a batch of one."""

    def __init__(self, features: int) -> None:
        super().__init__(features, affine=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.training and len(x) == 1:
            return F.batch_norm(x, self.running_mean, self.running_var, training=False, eps=self.eps)
        return super().forward(x)
