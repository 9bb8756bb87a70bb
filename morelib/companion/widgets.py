"""Widgets over the router: a live panel, frames that need no kernel, and the simulator in JavaScript."""

from collections.abc import Sequence
from html import escape
from pathlib import Path

import anywidget
import ipywidgets as widgets
import torch
import traitlets
from torch import Tensor

from morelib.routing.diagnostics import effective_experts, expert_load
from morelib.routing.losses import router_losses
from morelib.routing.selection import select_top_k

HERE = Path(__file__).parent
STYLE = (HERE / "router.css").read_text(encoding="utf-8")
TAUS = (0.0, 0.01, 0.03, 0.1, 0.3, 1.0)  # the paper anneals tau from 1 to 0.01


def simulated_logits(n_slices: int, n_experts: int, spread: float = 1.0, seed: int = 0) -> Tensor:
    """Logits (n_slices, n_experts) of an imagined router.

    One part is shared by all slices (some experts are popular), one part is each slice's own; both are normal
    and a logit has standard deviation `spread`.
    """
    generator = torch.Generator().manual_seed(seed)
    popular = torch.randn(1, n_experts, generator=generator)
    own = torch.randn(n_slices, n_experts, generator=generator)
    return spread * (popular + own) / 2**0.5


def routing_summary(logits: Tensor, top_k: int, tau: float, seed: int = 0) -> dict[str, list[float] | float]:
    """Route a batch once and measure it.

    Args:
        logits: (batch, N).
        top_k: K, at most N.
        tau: noise scale of Eq. 8.
        seed: of the noise.

    Returns:
        `load` p_i (N values, sum 1), `mean_gate` (N values, sum 1), `effective` = exp(entropy of the load),
        `changed` = share of samples whose selection the noise changed, `aux` = sum p_i g_i of Eq. 7.
    """
    gates = torch.softmax(logits, dim=-1)  # Eq. 5
    noisy = select_top_k(gates, top_k, tau, torch.Generator().manual_seed(seed))
    clean = select_top_k(gates, top_k)
    load = expert_load(noisy, gates.shape[-1])
    changed = (noisy.sort(dim=-1).values != clean.sort(dim=-1).values).any(dim=-1).float().mean()
    return {
        "load": load.tolist(),
        "mean_gate": gates.mean(dim=0).tolist(),
        "effective": effective_experts(load),
        "changed": float(changed),
        "aux": float(router_losses(logits, gates, noisy).aux),
    }


def routing_html(logits: Tensor, top_k: int, tau: float, seed: int = 0) -> str:
    """One frame: a bar per expert (its load), a tick (its mean gate), a line (an even load), a sentence."""
    summary = routing_summary(logits, top_k, tau, seed)
    load, mean_gate = summary["load"], summary["mean_gate"]
    assert isinstance(load, list) and isinstance(mean_gate, list)
    n = len(load)
    # No load exceeds 1/K. A scale that does not depend on tau keeps the frames of one slider comparable.
    step, base, height = 480 / n, 150, 125 / max(1 / top_k, *mean_gate)
    parts = []
    for i, (share, gate) in enumerate(zip(load, mean_gate, strict=True)):
        left, top, tick = 20 + i * step, base - height * share, base - height * gate
        middle = left + step / 2
        parts.append(
            f'<rect class="rs-bar rs-on" x="{left + 8:.1f}" y="{top:.1f}" width="{step - 16:.1f}"'
            f' height="{height * share:.1f}"/>'
            f'<line class="rs-mark" x1="{left + 4:.1f}" x2="{left + step - 4:.1f}"'
            f' y1="{tick:.1f}" y2="{tick:.1f}"/>'
            f'<text x="{middle:.1f}" y="{min(top, tick) - 5:.1f}">{share:.2f}</text>'
            f'<text x="{middle:.1f}" y="{base + 16}">expert {i + 1}</text>'
        )
    even = base - height / n
    text = (
        f"K = {top_k}, τ = {tau:g}: <b>{summary['effective']:.2f}</b> of {n} experts used; noise changed the"
        f" selection of <b>{100 * summary['changed']:.0f} %</b> of {len(logits)} slices; auxiliary loss Σ p g ="
        f" <b>{summary['aux']:.3f}</b> (even load: {1 / n:.3f})."
    )
    return (
        '<div class="routing-frame"><svg viewBox="0 0 520 174" role="img" aria-label="load of each expert">'
        f'<line class="rs-axis" x1="16" x2="504" y1="{base}" y2="{base}"/>'
        f'<line class="rs-even" x1="16" x2="504" y1="{even:.1f}" y2="{even:.1f}"/>{"".join(parts)}</svg>'
        f"<p>{text}</p></div>"
    )


def style_sheet() -> widgets.HTML:
    """The charts' style as a widget, so that a live notebook shows them as the book does."""
    return widgets.HTML(f"<style>{STYLE}</style>", layout=widgets.Layout(height="0", margin="0"))


def router_panel(
    logits: Tensor | None = None, *, n_experts: int = 4, top_k: int = 2, tau: float = 0.1, n_slices: int = 500
) -> widgets.VBox:
    """Live panel over N, K, tau, noise and seed; it calls `morelib.routing` on every change and needs a kernel.

    Args:
        logits: (batch, N) of a real router. None: simulated ones, and N and their spread get sliders too.
        n_experts, top_k, tau: where the sliders start.
        n_slices: batch of the simulated logits.
    """
    given = logits is not None
    n_start = logits.shape[-1] if logits is not None else n_experts
    style = {"description_width": "9em"}
    experts = widgets.IntSlider(
        n_start, 2, max(8, n_start), description="experts N", disabled=given, style=style
    )
    chosen = widgets.IntSlider(top_k, 1, n_start, description="active K", style=style)
    scale = widgets.FloatSlider(tau, min=0, max=1, step=0.01, description="noise scale tau", style=style)
    noise = widgets.Checkbox(True, description="noise", style=style)
    spread = widgets.FloatSlider(
        1, min=0, max=4, step=0.1, description="spread of logits", disabled=given, style=style
    )
    seed = widgets.IntSlider(0, 0, 50, description="seed", style=style)
    frame = widgets.HTML()

    def draw(_: object = None) -> None:
        chosen.max = experts.value  # lowers K itself where it was above
        batch = (
            simulated_logits(n_slices, experts.value, spread.value, seed.value) if logits is None else logits
        )
        frame.value = routing_html(batch, chosen.value, scale.value if noise.value else 0.0, seed.value)

    controls = (experts, chosen, scale, noise, spread, seed)
    for control in controls:
        control.observe(draw, names="value")
    draw()
    panel = widgets.VBox([style_sheet(), widgets.VBox(controls), frame])
    panel.add_class("router-panel")
    return panel


def router_frames(
    logits: Tensor | None = None, *, n_experts: int = 4, top_k: int = 2, taus: Sequence[float] = TAUS
) -> widgets.VBox:
    """Static form of the panel: a slider over tau and one precomputed frame per value; it needs no kernel.

    `logits` as in `router_panel`. The joining is done in the browser (jslink), so the built book answers too.
    """
    batch = simulated_logits(500, n_experts) if logits is None else logits
    return slider_of_frames(
        "noise scale tau", [(f"{tau:g}", routing_html(batch, top_k, tau)) for tau in taus]
    )


def slider_of_frames(description: str, frames: Sequence[tuple[str, str]]) -> widgets.VBox:
    """A slider that shows one of several precomputed HTML frames, in a notebook and in the built book alike.

    Args:
        description: text before the slider.
        frames: (label, HTML) in order.
    """
    slider = widgets.SelectionSlider(
        options=[(label, i) for i, (label, _) in enumerate(frames)],
        description=escape(description),
        style={"description_width": "initial"},
        layout=widgets.Layout(width="min(100%, 32em)"),
    )
    stack = widgets.Stack([widgets.HTML(html) for _, html in frames], selected_index=0)
    widgets.jslink((slider, "index"), (stack, "selected_index"))
    box = widgets.VBox([style_sheet(), slider, stack])
    box.add_class("router-panel")
    return box


class RouterSimulator(anywidget.AnyWidget):
    """The router simulator of the book as a widget. It runs in the browser and needs no kernel."""

    _css = STYLE
    _esm = (
        (HERE / "router_simulator.js").read_text(encoding="utf-8")
        + """
export default {
  render({ model, el }) {
    const start = { experts: "n_experts", topK: "top_k", tau: "tau", spread: "spread", seed: "seed" };
    for (const key in start) start[key] = model.get(start[key]);
    RouterSimulator.mount(el, start);
  },
};
"""
    )
    n_experts = traitlets.Int(4).tag(sync=True)
    top_k = traitlets.Int(2).tag(sync=True)
    tau = traitlets.Float(0.1).tag(sync=True)
    spread = traitlets.Float(1.0).tag(sync=True)
    seed = traitlets.Int(0).tag(sync=True)
