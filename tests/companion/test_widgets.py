"""The router widgets: the JavaScript simulator agrees with PyTorch, the Python panels follow their sliders."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import ipywidgets
import pytest
import torch

from morelib.companion import widgets
from morelib.routing.selection import select_top_k

SIMULATOR = Path(widgets.__file__).with_name("router_simulator.js")


def node(program: str, values: Any = None) -> Any:
    """Run `program` with R = the simulator and V = `values`; it returns what it passes to `done`."""
    if shutil.which("node") is None:
        pytest.skip("node is not installed: the simulator's JavaScript cannot be run")
    script = (
        f"const R = require({json.dumps(str(SIMULATOR))});"
        "const V = JSON.parse(require('fs').readFileSync(0, 'utf8'));"
        f"const done = (x) => console.log(JSON.stringify(x)); {program}"
    )
    command, stdin = ["node", "-e", script], json.dumps(values)
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=True, timeout=60)
    return json.loads(done.stdout)


@pytest.mark.parametrize("n_experts", [2, 4, 7])
def test_simulator_has_the_gates_and_the_selection_of_torch(n_experts: int) -> None:
    generator = torch.Generator().manual_seed(n_experts)
    logits = 3 * torch.randn(40, n_experts, dtype=torch.float64, generator=generator)
    noise = torch.randn(40, n_experts, dtype=torch.float64, generator=generator)
    gates = torch.softmax(logits, dim=-1)
    found = node("done(V.map(R.softmax))", logits.tolist())
    torch.testing.assert_close(torch.tensor(found, dtype=torch.float64), gates, atol=1e-14, rtol=1e-12)
    for tau in (0.0, 0.05, 1.0):
        for top_k in range(1, n_experts + 1):
            values = {"gates": gates.tolist(), "noise": noise.tolist(), "k": top_k, "tau": tau}
            chosen = node("done(V.gates.map((g, i) => R.selectTopK(g, V.k, V.tau, V.noise[i])))", values)
            assert chosen == select_top_k(gates + tau * noise, top_k).tolist()


def test_ties_go_to_the_lower_index_in_both() -> None:
    gates = torch.full((1, 5), 0.2)
    assert node("done(R.selectTopK(V, 3, 0, [0, 0, 0, 0, 0]))", gates[0].tolist()) == [0, 1, 2]
    assert select_top_k(gates, 3).tolist() == [[0, 1, 2]]


def test_simulation_is_seeded_and_its_shares_sum_to_one() -> None:
    settings = {"experts": 4, "topK": 2, "tau": 0.1, "spread": 1, "seed": 3}
    first, again, other = node("done([V, V, {...V, seed: 4}].map(R.simulate))", settings)
    assert first == again
    assert first != other
    assert sum(first["load"]) == pytest.approx(1)
    assert sum(first["meanGate"]) == pytest.approx(1)


def test_simulated_noise_evens_the_load_and_no_spread_collapses_it() -> None:
    base = {"experts": 4, "topK": 1, "tau": 0, "spread": 3, "seed": 0}
    quiet, loud, flat = node("done([V, {...V, tau: 1}, {...V, spread: 0}].map(R.simulate))", base)
    assert quiet["changed"] == 0
    assert loud["changed"] > 0.3
    assert loud["effective"] > quiet["effective"]
    assert flat["load"] == pytest.approx([1, 0, 0, 0])


def test_summary_of_a_router_that_is_sure() -> None:
    logits = torch.tensor([[9.0, 0, 0, 0], [0, 9.0, 0, 0]])
    summary = widgets.routing_summary(logits, top_k=1, tau=0.0)
    assert summary["load"] == [0.5, 0.5, 0, 0]
    assert summary["effective"] == pytest.approx(2)
    assert summary["changed"] == 0


def test_panel_follows_its_sliders() -> None:
    panel = widgets.router_panel(n_experts=4, top_k=4)
    controls = {control.description: control for control in panel.children[1].children}
    frame = panel.children[2]
    assert frame.value.count("<rect") == 4
    controls["experts N"].value = 3
    assert frame.value.count("<rect") == 3
    assert controls["active K"].value == 3, "K cannot exceed N"
    controls["active K"].value = 1
    noisy = frame.value
    controls["noise"].value = False
    assert frame.value != noisy
    assert "<b>0 %</b>" in frame.value


def test_panel_over_given_logits_keeps_their_number_of_experts() -> None:
    panel = widgets.router_panel(torch.zeros(5, 6), top_k=2)
    experts = panel.children[1].children[0]
    assert experts.value == 6
    assert experts.disabled


def test_frames_are_joined_in_the_browser() -> None:
    before = set(ipywidgets.widgets.widget._instances)
    box = widgets.router_frames(n_experts=3, top_k=1, taus=(0.0, 0.1, 1.0))
    _, slider, stack = box.children
    assert [label for label, _ in slider.options] == ["0", "0.1", "1"]
    assert len({frame.value for frame in stack.children}) == 3
    made = [w for key, w in ipywidgets.widgets.widget._instances.items() if key not in before]
    links = [w for w in made if isinstance(w, ipywidgets.widgets.widget_link.Link)]
    assert [(link.source, link.target) for link in links] == [((slider, "index"), (stack, "selected_index"))]


def test_simulator_widget_is_one_source_plus_an_export() -> None:
    simulator = widgets.RouterSimulator(n_experts=8, top_k=3)
    source = SIMULATOR.read_text(encoding="utf-8")
    assert simulator.get_state(["n_experts", "top_k"]) == {"n_experts": 8, "top_k": 3}
    esm = widgets.RouterSimulator._esm
    assert str(esm).startswith(source)
    assert str(esm).count("export default") == 1
