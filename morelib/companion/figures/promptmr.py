"""PromptMR+ taken apart: what it adds to E2EVarNet, what its denoisers read, which prompts they mix, what it costs."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, NamedTuple

import plotly.graph_objects as go
import torch
from matplotlib.figure import Figure
from plotly.subplots import make_subplots
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from morelib.companion.figures.images import Panel, image_grid
from morelib.companion.figures.style import layout
from morelib.data.batches import Batch
from morelib.data.dataset import SliceDataset
from morelib.data.volume import CATEGORY_NAMES
from morelib.evaluation import Table, reconstruct_volume
from morelib.evaluation.cost import LiveStorages
from morelib.evaluation.routing import neighbour_accuracy
from morelib.nn import Unrolled, build_model
from morelib.nn.hooks import hooked
from morelib.nn.prompt_unet import Prompt
from morelib.nn.promptmr_plus import CORRECTION, PromptDenoiser
from morelib.nn.unrolled import Context
from morelib.physics.fourier import centre_crop
from morelib.routing.convolution import plainly
from morelib.routing.diagnostics import effective_experts, gate_information, label_agreement
from morelib.training.losses import ssim_loss

# Counted on the published networks: all parameters, those that are trained, and all of the sensitivity network.
PUBLISHED: dict[str, tuple[str, dict[str, Any], tuple[int, int, int]]] = {
    "E2EVarNet": ("e2e_varnet", {"preset": "fastmri"}, (29_936_966, 29_936_966, 484_898)),
    "PromptMR": ("promptmr_plus", {"preset": "promptmr"}, (81_528_317, 71_160_317, 1_865_009)),
    "PromptMR+": ("promptmr_plus", {"preset": "official"}, (92_859_005, 82_491_005, 1_871_537)),
    "E2EVarNet, widths 16–28": ("e2e_varnet", {"preset": "paper"}, (1_335_302, 1_335_302, 484_898)),
    "PromptMR+, widths 16–28": ("promptmr_plus", {"preset": "paper"}, (8_181_409, 5_109_409, 213_109)),
    "the same, 5 slices": ("promptmr_plus", {"adjacent": 5}, (8_444_705, 5_372_705, 215_285)),
}


def on_meta(model: str, **options: Any) -> Unrolled:
    """`build_model` without memory for the weights: its parameters have a shape and no values."""
    with torch.device("meta"):
        return build_model(model, **options)


def count(module: nn.Module, trained: bool | None = None) -> int:
    """Parameters: all, those that are trained (True), or those that stay frozen (False)."""
    return sum(p.numel() for p in module.parameters() if trained in (None, p.requires_grad))


def size_table(dense_options: Mapping[str, Any], options: Mapping[str, Any]) -> Table:
    """Parameters of E2EVarNet and PromptMR+ under these options, and what each idea of PromptMR+ costs.

    An idea costs what the network with it has more than the network without it; prompts, what mixes and smooths them.
    """
    dense, ours = on_meta("e2e_varnet", **dense_options), on_meta("promptmr_plus", **options)
    prompts = [prompt for cascade in prompts_of(ours) for prompt in cascade]

    def cost(**without: Any) -> int:
        return count(ours) - count(on_meta("promptmr_plus", **{**options, **without}))

    nets, maps = (dense, ours), (dense.sensitivity, ours.sensitivity)
    trained, frozen = ([count(m, kind) for m in (*nets, *maps)] for kind in (True, False))
    rows = {
        "cascades": (trained[0] - trained[2], trained[1] - trained[3], frozen[1] - frozen[3]),
        "sensitivity network": (trained[2], trained[3], frozen[3]),
        "network": (trained[0], trained[1], frozen[1]),
        "of which adaptive input": (0, cost(adaptive_input=False), 0),
        "of which history": (0, cost(history=0), 0),
        "of which prompts": (0, sum(count(p, True) for p in prompts), sum(count(p, False) for p in prompts)),
    }
    cells = ((name, *(f"{number:,}" for number in numbers)) for name, numbers in rows.items())
    header = ("parameters", "E2EVarNet", "PromptMR+, trained", "PromptMR+, frozen")
    return Table(header, tuple(cells), "Frozen: prompt images. Ideas as in the cascades.")


def published_table() -> Table:
    """Our networks, counted without memory for them, against the published ones.

    The published PromptMR+ has one PReLU (one parameter) in each U-Net's first block, and all other blocks share one.
    Ours has one per block; what we have more of them is counted apart.
    """
    rows = []
    for name, (network, options, published) in PUBLISHED.items():
        model = on_meta(network, **options)
        extra = _own_prelus(model, len(model.cascades) + 1)
        maps = count(model.sensitivity) - _own_prelus(model.sensitivity, 1)
        less = count(model) - extra, count(model, True) - extra, maps
        cells = (count(model), extra, *published)
        rows.append((name, *(f"{cell:,}" for cell in cells), "equal" if less == published else "**differs**"))
    header = (
        "network", "ours, all", "of which\nown PReLUs", "published,\nall", "published,\ntrained",
        "published,\nsensitivity", "without\nown PReLUs",
    )  # fmt: skip
    return Table(header, tuple(rows), "Parameters. The verdict is on all three published counts.")


def _own_prelus(module: nn.Module, unets: int) -> int:
    prelus = sum(isinstance(m, nn.PReLU) for m in module.modules())
    return prelus - (unets + 1) if prelus else 0


def cascade_operations(model: Unrolled, size: tuple[int, int] = (640, 368)) -> int:
    """Floating-point operations of one denoiser on one image (y, x): two per multiplication and addition.

    `model` is one of `on_meta`: nothing is computed. Convolutions and matrix products count.
    """
    image = torch.zeros(model.adjacent, *size, dtype=torch.complex64, device="meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad(), plainly():
        model.cascades[0].denoiser(image, Context(image, image))
    return int(counter.get_total_flops())


class Look(NamedTuple):
    """One cascade on one slice. inputs (n, y, x): what its denoiser read. correction (y, x): D. Complex."""

    inputs: Tensor
    correction: Tensor


@torch.no_grad()
def look_inside(model: Unrolled, batch: Batch) -> list[Look]:
    """What the denoiser of each cascade reads and gives, for the first slice of a batch."""
    looks: list[Look] = []

    middle = model.adjacent // 2  # the slice that comes out

    def keep(_: nn.Module, inputs: tuple[Sequence[Tensor], ...], output: tuple[Tensor, Any]) -> None:
        read = torch.stack([image[0, middle] for image in inputs[0]])
        corrections = output[0][0].unflatten(0, (-1, model.adjacent))[CORRECTION]
        looks.append(Look(read.cpu(), corrections[middle].cpu()))

    denoisers = [module for module in model.modules() if isinstance(module, PromptDenoiser)]
    with hooked((denoiser.unet, keep) for denoiser in denoisers):
        model(batch.kspace, batch.mask, batch.n_acs)
    return looks


def buffer_grid(looks: Sequence[Look], size: tuple[int, int], shown: int = 3) -> Figure:
    """Magnitudes of the five images that some cascades read, and of their correction D, cropped to `size`.

    x, A^H A x and x_0 share a grey scale; the others have their own. Inside: the norm relative to that of x.
    """
    cascades = sorted({round(i * (len(looks) - 1) / max(shown - 1, 1)) for i in range(shown)})
    grey = float(centre_crop(looks[0].inputs[0].abs(), size).quantile(0.995))
    same, own, error = (grey, "gray"), (None, "viridis"), (None, "inferno")
    columns = {"$x$": same, "$A^H A x$": same, "latent image": own, "$x_0 = A^H y$": same}
    columns |= {"$A^H A x - x_0$": error, "$D$": error}
    rows = []
    for cascade in cascades:
        inputs, correction = looks[cascade]
        row = []
        for (name, (vmax, cmap)), image in zip(columns.items(), (*inputs, correction), strict=True):
            magnitude = centre_crop(image.abs(), size).numpy()
            share = f"{float(image.norm() / inputs[0].norm()):.2g}"
            row.append(Panel(magnitude, name if cascade == cascades[0] else "", vmax, cmap, share))
        rows.append(row)
    return image_grid(rows, [f"cascade {cascade + 1}" for cascade in cascades])


def prompts_of(model: Unrolled) -> list[list[Prompt]]:
    """The prompts of each cascade, level by level, coarsest first."""
    return [[m for m in cascade.modules() if isinstance(m, Prompt)] for cascade in model.cascades]


class PromptWeights(NamedTuple):
    """Softmax weights (cascades, levels, slices, prompts), levels coarsest first; category and volume per slice."""

    weights: Tensor
    acquisition: tuple[str, ...]
    volume: tuple[str, ...]


def collect_prompts(
    model: Unrolled, control: Unrolled, *datasets: SliceDataset, device: str = "cpu"
) -> tuple[PromptWeights, PromptWeights]:
    """How `model` mixes its prompts for every slice of `datasets`, and how `control`, of the same shape, would.

    The control's linear layers get the very features that the model's get: what untrained layers tell apart was apart
    in the features already.
    """
    others = [prompt.choose.to(device) for cascade in prompts_of(control) for prompt in cascade]
    logits: list[Tensor] = []
    labels: list[tuple[str, str]] = []

    def listen(_: nn.Module, inputs: tuple[Tensor, ...], own: Tensor) -> None:
        # In a fixed order. `forward`, because a call would be heard here if the model is its own control.
        logits.append(torch.stack([own, others[len(logits) % len(others)].forward(inputs[0])]).cpu())

    with hooked((prompt.choose, listen) for cascade in prompts_of(model) for prompt in cascade):
        for dataset, number in ((d, n) for d in datasets for n in range(len(d.volumes))):
            volume, items = dataset.volumes[number], dataset.items_of(number)
            reconstruct_volume(model, (dataset[item] for item in items), device)
            labels += [(volume.acquisition, volume.name)] * len(items)
    weights = torch.cat(logits, 1).softmax(-1).unflatten(1, (len(labels), len(model.cascades), -1))
    both = [PromptWeights(each, *zip(*labels, strict=True)) for each in weights.permute(0, 2, 3, 1, 4)]
    return both[0], both[1]


def with_prompts(model: Unrolled, weights: Tensor | None) -> AbstractContextManager[None]:
    """Inside, every slice gets prompts mixed by the same `weights` (cascades, levels, prompts); none if None."""

    def mix(_: nn.Module, __: tuple[Tensor, ...], logits: Tensor, fixed: Tensor) -> Tensor:
        return fixed.log().to(logits).expand_as(logits)

    def silence(_: nn.Module, __: tuple[Tensor, ...], prompt: Tensor) -> Tensor:
        return torch.zeros_like(prompt)

    prompts = [prompt for cascade in prompts_of(model) for prompt in cascade]
    if weights is None:
        return hooked((prompt, silence) for prompt in prompts)
    mixes = (partial(mix, fixed=fixed) for fixed in weights.flatten(0, 1))
    return hooked((prompt.choose, one) for prompt, one in zip(prompts, mixes, strict=True))


def prompt_heatmap(collected: Mapping[str, PromptWeights], cascade: int) -> go.Figure:
    """Mean prompt weights of each category: one row of maps per entry of `collected`, one map per decoder level."""
    levels = next(iter(collected.values())).weights.shape[1]
    titles = [f"{name}, level {levels - level}" for name in collected for level in range(levels)]
    spacing = {"horizontal_spacing": 0.03, "vertical_spacing": 0.16}
    figure = make_subplots(len(collected), levels, subplot_titles=titles, shared_yaxes=True, **spacing)
    for row, prompts in enumerate(collected.values(), start=1):
        names = [name for name in CATEGORY_NAMES if name in prompts.acquisition]
        rows = [[i for i, label in enumerate(prompts.acquisition) if label == name] for name in names]
        for level, weights in enumerate(prompts.weights[cascade], start=1):
            figure.add_heatmap(
                z=[weights[chosen].mean(0).tolist() for chosen in rows],
                x=[str(number + 1) for number in range(weights.shape[-1])],
                y=[CATEGORY_NAMES[name] for name in names],
                texttemplate="%{z:.2f}", coloraxis="coloraxis", row=row, col=level,
            )  # fmt: skip
    figure.update_xaxes(title="prompt", row=len(collected))
    figure.update_yaxes(autorange="reversed")
    layout(figure, height=120 + 250 * len(collected)).update_layout(margin={"l": 90})
    return figure.update_coloraxes(colorscale="Blues", cmin=0, cmax=1, colorbar={"title": "weight"})


def prompt_table(collected: Mapping[str, PromptWeights]) -> Table:
    """Numbers on the mixing of prompts, per decoder level: means over cascades."""
    rows = []
    for name, prompts in collected.items():
        for level in range(prompts.weights.shape[1]):
            cascades = prompts.weights[:, level]
            measures = {
                "{:.2f}": [effective_experts(w.mean(0)) for w in cascades],
                "{:.4f}": [gate_information(w)[2] for w in cascades],
                "{:+.2f}": [label_agreement(w.argmax(-1, True), prompts.acquisition) for w in cascades],
                "{:.3f}": [neighbour_accuracy(w, prompts.acquisition, prompts.volume) for w in cascades],
            }
            cells = (form.format(sum(values) / len(values)) for form, values in measures.items())
            rows.append((f"{name}, level {prompts.weights.shape[1] - level}", *cells))
    header = ("mixed by", "effective\nprompts", "information\n(nats)", "agreement", "neighbour\naccuracy")
    chance = 1 / len(set(prompts.acquisition))
    caption = (
        f"{len(prompts.volume)} slices, means over cascades; guessing finds {chance:.3f} of the categories."
    )
    return Table(header, tuple(rows), caption)


def training_step(model: Unrolled, batch: Batch) -> tuple[dict[str, Tensor], int]:
    """Gradients of the image loss by name, and the bytes that the forward pass left for the backward pass."""
    model.train().zero_grad(set_to_none=True)
    with LiveStorages() as storages:
        image = model(batch.kspace, batch.mask, batch.n_acs).image
        loss = ssim_loss(image, batch.target, batch.max_value)
    kept = storages.live
    loss.backward()
    model.eval()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}, kept
