"""HiFi-MambaV2 taken apart: its size, frequency bands, consensus, scan, and which expert gets which pixel."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import plotly.graph_objects as go
import torch
import torch.nn.functional as F
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from plotly.subplots import make_subplots
from sklearn.metrics import adjusted_mutual_info_score
from torch import Tensor, nn

from morelib.companion.figures.images import Panel, image_grid, montage
from morelib.companion.figures.style import COLOURS, layout, system_name
from morelib.companion.figures.training import Log
from morelib.data.batches import Batch, collate
from morelib.data.dataset import SliceDataset
from morelib.data.volume import MEASURED, SIMULATED
from morelib.evaluation import Table, VolumeScore, means_by_category, psnr, reconstruct_volume
from morelib.evaluation.statistics import ALL
from morelib.nn import Unrolled, build_model
from morelib.nn.count import count_parameters
from morelib.nn.hifi_mamba.block import HifiMambaBlock
from morelib.nn.hooks import hooked
from morelib.physics.fourier import centre_crop, fft2c
from morelib.routing.pixel import choose


def size_table(options: Mapping[str, Any]) -> Table:
    """Parameters of the two presets and of the network with `options`; nothing is allocated."""
    kinds: dict[str, dict[str, Any]] = {
        "published code": {"preset": "official"},
        "the same, one bank of experts": {"preset": "paper"},
        "this profile": dict(options),
    }
    rows = []
    for name, kind in kinds.items():
        with torch.device("meta"):
            model = build_model("hifi_mamba_v2", **kind)
        (total, active), (maps, _) = count_parameters(model), count_parameters(model.sensitivity)
        blocks = f"{len(model.cascades)} × {len(_blocks(model)) // len(model.cascades)}"
        published = "7.141 M" if name == "published code" else ""
        rows.append((name, blocks, f"{total - maps:,}", f"{active - maps:,}", f"{maps:,}", published))
    header = ("network", "groups × blocks", "parameters", "one pixel\ncan use", "coil maps", "published")
    return Table(header, tuple(rows), "Parameters, those of the sensitivity network apart.")


def subsample(image: Tensor) -> Tensor:
    """The low band that plain halving gives, without a blur: every second pixel, enlarged again."""
    halved = image[..., ::2, ::2]
    return F.interpolate(halved, scale_factor=2, mode="bilinear", align_corners=False)


def recurrence(u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
    """The selective scan as it is printed, one token after the other. Shapes as in `selective_scan`."""
    h, y = u.new_zeros(len(u), *A.shape), []
    for t in range(u.shape[1]):
        h = torch.exp(dt[:, t, :, None] * A) * h + (dt[:, t] * u[:, t])[..., None] * B[:, t, None]
        y.append((C[:, t, None] * h).sum(-1))
    return torch.stack(y, 1) + D * u


def training_figure(log: Log, zero_filled: float) -> go.Figure:
    """Loss, balance loss, and the share of pixels of each expert in the first and the last cascade, over epochs."""
    last = len(log[0]["load"])
    titles = ("1 - SSIM", "balance loss", "share of pixels, cascade 1", f"share of pixels, cascade {last}")
    figure = make_subplots(2, 2, subplot_titles=titles, vertical_spacing=0.16)
    epochs = [line["epoch"] + 1 for line in log]

    def curve(values: list[float], name: str, colour: str, row: int, col: int, **more: Any) -> None:
        figure.add_scatter(
            x=epochs, y=values, name=name, mode="lines+markers", line_color=colour, row=row, col=col, **more
        )

    for key, name, colour, column in (
        ("train_ssim_loss", "training", COLOURS[5], 1),
        ("val_ssim_loss", "validation", COLOURS[4], 1),
        ("balance", "balance loss", COLOURS[6], 2),
    ):
        curve([line[key] for line in log], name, colour, 1, column)
    for expert in range(len(log[0]["load"][0])):
        for column, cascade in ((1, 0), (2, last - 1)):
            shares = [line["load"][cascade][expert] for line in log]
            curve(
                shares, f"expert {expert + 1}", COLOURS[expert % len(COLOURS)], 2, column,
                legendgroup=str(expert), showlegend=column == 1,
            )  # fmt: skip
    dashed = {"line": {"dash": "dash", "color": "#555"}}
    figure.add_hline(y=zero_filled, annotation_text="zero-filled", row=1, col=1, **dashed)
    figure.add_hline(y=1, annotation_text="uniform", row=1, col=2, **dashed)
    figure.update_yaxes(rangemode="tozero", row=1, col=1)
    figure.update_yaxes(range=[0, 1], row=2)
    figure.update_xaxes(title="epoch", row=2)
    return layout(figure, height=560).update_layout(legend_y=1.07)


class BlockLook(NamedTuple):
    """One block on one slice, (y, x) of the target: consensus weight, chosen expert (int64), its softmax weight."""

    weight: Tensor
    selected: Tensor
    gate: Tensor


@torch.no_grad()
def look_inside(model: Unrolled, batch: Batch, chooser: Unrolled | None = None) -> list[BlockLook]:
    """What each block does with the first slice of a batch; the maps are enlarged from patches to pixels.

    With `chooser`, a network of the same shape, experts are chosen by *its* routers from the features that those of
    `model` get. The image is not touched by that.
    """
    routers = [block.experts.router for block in _blocks(chooser or model)]
    consensus: list[Tensor] = []
    routes: list[tuple[Tensor, Tensor]] = []
    patch, size = model.cascades[0].denoiser.patch, batch.kspace.shape[-2:]

    def enlarge(x: Tensor) -> Tensor:
        assert isinstance(patch, int)
        pixels = x.repeat_interleave(patch, 0).repeat_interleave(patch, 1)[: size[0], : size[1]].cpu()
        return centre_crop(pixels, (batch.target.shape[-2], batch.target.shape[-1]))

    def keep_weight(module: Any, inputs: tuple[Tensor, Tensor], _: Tensor) -> None:
        consensus.append(enlarge(module.weight(*inputs)[0, 0]))

    def keep_route(_: nn.Module, inputs: tuple[Tensor], __: Any) -> None:
        shape, router = inputs[0].shape[1:3], routers[len(routes)].to(inputs[0].device)
        _gates, gate, selected = choose(router(inputs[0][0].flatten(0, 1)))
        routes.append((enlarge(selected.view(shape)), enlarge(gate.view(shape))))

    blocks = _blocks(model)
    hooks = [(b.consensus, keep_weight) for b in blocks] + [(b.experts, keep_route) for b in blocks]
    with hooked(hooks):
        model(batch.kspace, batch.mask, batch.n_acs)
    return [BlockLook(weight, *route) for weight, route in zip(consensus, routes, strict=True)]


def consensus_grid(image: Tensor, looks: Sequence[BlockLook]) -> Figure:
    """An image (y, x) and the consensus weight of each block: red above one half, white one half, blue below."""
    panels = [Panel(image, "target")]
    for number, look in enumerate(looks, start=1):
        note = f"{look.weight.min():.2f} to {look.weight.max():.2f}"
        panels.append(Panel(look.weight, f"w, block {number}", 1, "RdBu_r", note))
    return montage(panels)


def routing_grid(rows: Mapping[str, tuple[Tensor, Mapping[str, Tensor]]], n_experts: int) -> Figure:
    """Row title to an image (y, x) and titled maps of chosen experts (y, x); a colour is an expert."""
    palette = np.array([to_rgb(COLOURS[expert % len(COLOURS)]) for expert in range(n_experts)])
    panels = []
    for number, (image, maps) in enumerate(rows.values()):
        drawn = {"target": image} | {title: palette[chosen.numpy()] for title, chosen in maps.items()}
        panels.append([Panel(each, "" if number else title) for title, each in drawn.items()])
    figure = image_grid(panels, list(rows))
    handles = [Patch(color=palette[expert], label=f"expert {expert + 1}") for expert in range(n_experts)]
    figure.legend(handles=handles, loc="upper center", ncol=n_experts, frameon=False, bbox_to_anchor=(0.5, 0))
    return figure


class Routes(NamedTuple):
    """Pixels of many slices: selected, gate (blocks, pixels); bright, edge bool (pixels,); a category per pixel."""

    selected: Tensor
    gate: Tensor
    bright: Tensor
    edge: Tensor
    category: np.ndarray


def collect_routes(
    model: Unrolled, dataset: SliceDataset, device: str, chooser: Unrolled | None = None
) -> Routes:
    """Expert and simple properties of every pixel of the middle slice of each volume; `chooser`: see `look_inside`.

    Bright is above a tenth of the slice's 99th percentile; an edge is a bright pixel whose gradient is in the upper
    quarter of the bright ones'.
    """
    selected, gates, objects, edges, categories = [], [], [], [], []
    model.to(device).eval()
    for number in range(len(dataset.volumes)):
        batch = collate([dataset[_middle(dataset, number)]])
        target = batch.target[0]
        looks = look_inside(model, batch.to(device), chooser)
        selected.append(torch.stack([look.selected.flatten() for look in looks]))
        gates.append(torch.stack([look.gate.flatten() for look in looks]))
        bright = target > 0.1 * np.percentile(target.numpy(), 99)
        slope = torch.stack(torch.gradient(target)).norm(dim=0)
        steep = slope > np.percentile(slope[bright].numpy(), 75) if bright.any() else bright
        objects.append(bright.flatten())
        edges.append((steep & bright).flatten())
        categories += [batch.acquisition[0]] * target.numel()
    by_block = torch.cat(selected, 1), torch.cat(gates, 1)
    return Routes(*by_block, torch.cat(objects), torch.cat(edges), np.array(categories))


def routes_table(collected: Mapping[str, Routes]) -> Table:
    """For the first and the last block: load, decidedness, agreement of the expert with properties of the pixel."""
    rows = []
    for name, routes in collected.items():
        bright = routes.bright.numpy()
        experts = int(max(r.selected.max() for r in collected.values())) + 1
        for block in dict.fromkeys((0, len(routes.selected) - 1)):
            chosen = routes.selected[block].numpy()
            load = np.bincount(chosen, minlength=experts) / len(chosen)
            agreement = (
                adjusted_mutual_info_score(bright, chosen),
                adjusted_mutual_info_score(routes.edge.numpy()[bright], chosen[bright]),
                adjusted_mutual_info_score(routes.category[bright], chosen[bright]),
            )
            shares = " ".join(f"{100 * share:.0f}" for share in load)
            cells = (f"{routes.gate[block].mean():.2f}", *(f"{value:+.3f}" for value in agreement))
            rows.append((f"{name}, block {block + 1}", shares, *cells))
    first = next(iter(collected.values()))
    header = ("router", "pixels per\nexpert, %", "top gate", "bright\nor dark", "edge\nor flat", "category")
    caption = (
        "Last three columns: adjusted mutual information with the chosen expert, 0 is chance, 1 identity; edges and "
        f"categories over bright pixels only. {len(first.category):,} pixels, {first.bright.float().mean():.0%} "
        "bright; neighbours are not independent, so no p-values."
    )
    return Table(header, tuple(rows), caption)


def next_expert(model: Unrolled) -> AbstractContextManager[None]:
    """Inside, every pixel goes to the expert after the one it chose, with the weight of its choice."""
    return hooked((b.experts.router, lambda m, i, logits: logits.roll(1, -1)) for b in _blocks(model))


def shared_expert_only(model: Unrolled) -> AbstractContextManager[None]:
    """Inside, routed experts add nothing."""
    experts = {expert for b in _blocks(model) for expert in b.experts.bank.routed}
    return hooked((expert, lambda m, i, output: torch.zeros_like(output)) for expert in experts)


def middle_psnr(model: Unrolled, dataset: SliceDataset, device: str) -> list[float]:
    """PSNR (dB) of the middle slice of each volume, the data range being the volume's maximum."""
    items = [dataset[_middle(dataset, number)] for number in range(len(dataset.volumes))]
    # A prediction comes first, and a target is what a metric takes first.
    return [psnr(*reconstruct_volume(model, [item], device)[::-1], item.max_value) for item in items]


class SimulatedSingleCoil(SliceDataset):
    """`dataset`'s targets as images of one coil: k-space is their Fourier transform, as in the published code."""

    def __init__(self, dataset: SliceDataset) -> None:
        volumes = [
            replace(
                v, n_coils=1, readout=v.recon[0], phase=v.recon[1], padding=(0, v.recon[1]),
                origin=SIMULATED if v.origin == MEASURED else v.origin,
            )
            for v in dataset.volumes
        ]  # fmt: skip
        super().__init__(volumes, dataset.mask_kind, dataset.acceleration, dataset.center_fraction)
        self._measured = dataset

    def _read(self, item: int) -> tuple[Tensor, Tensor | None]:
        _, target = self._measured._read(item)
        assert target is not None
        return fft2c(target.to(torch.complex64))[None], target


def quality_table(settings: Mapping[str, Mapping[str, Sequence[VolumeScore]]], caption: str) -> Table:
    """Setting to system to scores, in the second paper's form: PSNR, SSIM, NMSE; means over categories."""
    rows = []
    for setting, systems in settings.items():
        for system, scores in systems.items():
            mean = means_by_category(scores)[ALL]
            name = f"{setting}\nnet {mean.acceleration:.1f}×, {mean.n_volumes} volumes"
            cells = (f"{mean.psnr:.2f}", f"{100 * mean.ssim:.2f}", f"{mean.nmse:.4f}", "not available")
            rows.append((name, system_name(system), *cells))
    return Table(("setting", "", "PSNR (dB)", "SSIM (%)", "NMSE", "published"), tuple(rows), caption)


def _blocks(model: Unrolled) -> list[HifiMambaBlock]:
    return [module for module in model.modules() if isinstance(module, HifiMambaBlock)]


def _middle(dataset: SliceDataset, number: int) -> int:
    items = dataset.items_of(number)
    return items[len(items) // 2]
