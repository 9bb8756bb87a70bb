"""What is compared is equal, and every comparison gives its rows. How fast it is, no test asks."""

import multiprocessing
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from morelib.companion.bench import data, model
from morelib.companion.bench.apart import runners
from morelib.companion.bench.consistency import bench_consistency
from morelib.companion.bench.data import OURS, PLAIN, VARNET, bench_data
from morelib.companion.bench.dispatch import WAYS, bench_dispatch
from morelib.companion.bench.growth import CHECKPOINTED, bench_growth, grid
from morelib.companion.bench.model import ROUTERS, bench_model
from morelib.companion.bench.network import Runner, Setting
from morelib.companion.bench.noise import noise_files
from morelib.companion.bench.parts import OF_THEIRS, REST, bench_parts
from morelib.companion.bench.precision import psnr_apart
from morelib.companion.bench.reference import FastmriVarNet
from morelib.companion.bench.result import DIFFERENCE, FASTER, MEMORY, SHARE, TIME, Row
from morelib.companion.bench.scale import bench_scale
from morelib.companion.bench.training import together
from morelib.companion.profile import NetworkSize, load_profile
from morelib.data.dataset import SliceDataset
from morelib.errors import UserError
from morelib.nn.count import count_parameters
from morelib.nn.more import routings

TINY = Setting((48, 40, 2), cascades=2, widths=(2, 3, 4, 5), sens_widths=(2, 4), repeats=1)


def positive(rows: list[Row]) -> bool:
    """But for what is a difference of two times."""
    return all(row.value is None or row.value > 0 or row.what == REST for row in rows)


def test_the_rebuilt_network_is_fastmris_where_fastmri_can_build_it() -> None:
    from fastmri.models import VarNet

    theirs = VarNet(num_cascades=2, sens_chans=2, sens_pools=2, chans=3, pools=3)
    rebuilt = FastmriVarNet(2, (3, 6, 12, 24), (2, 4, 8))
    rebuilt.varnet.load_state_dict(theirs.state_dict())
    batch = TINY.batch
    with torch.no_grad():
        image = rebuilt(batch.kspace, batch.mask, batch.n_acs).image
        expected = theirs(torch.view_as_real(batch.kspace), batch.mask[..., None], batch.n_acs)
    assert torch.equal(image, expected)


def test_a_setting_is_plain_and_its_batch_is_undersampled_noise() -> None:
    batch = TINY.batch
    assert TINY.to_dict()["size"] == [48, 40, 2]
    assert batch.kspace.shape == (1, 2, 48, 40)
    assert torch.equal((batch.kspace != 0).any(-2).all(1), batch.mask[:, 0, 0])


def test_a_step_trains_and_a_full_cache_is_full() -> None:
    runner = Runner(TINY.network("more", n_experts=3, top_k=1, cached_inputs=4), TINY)
    before = [parameter.clone() for parameter in runner.model.parameters()]
    runner.fill_cache()
    assert [len(routing.cache.state()) for routing in routings(runner.model)] == [4, 4]
    assert not all(map(torch.equal, before, runner.model.parameters()))
    assert runner.step_memory() > 0 and runner.operations() > 0


def test_a_network_in_a_process_of_its_own_computes_the_same() -> None:
    build = partial(Setting.network, name="e2e_varnet", zero_init=False)
    here = Runner(build(TINY), TINY)
    with runners(TINY, {"E2EVarNet": build}) as running:
        apart = running["E2EVarNet"]
        for _ in range(2):
            assert torch.equal(torch.as_tensor(apart.forward()), here.forward())
            apart.step()
            here.step()
        assert apart.operations() == here.operations()
        assert apart.step_memory() == here.step_memory()


def test_a_process_that_ends_is_told_of() -> None:
    def measure() -> None:
        with runners(TINY, {"E2EVarNet": partial(Setting.network, name="e2e_varnet")}) as running:
            (child,) = multiprocessing.active_children()
            child.kill()
            running["E2EVarNet"].step()

    with pytest.raises(UserError, match=r"process of E2EVarNet ended \(exit code -9\).*smaller --size"):
        measure()
    assert not multiprocessing.active_children()


@pytest.fixture
def networks_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the rows on training, which start processes and have a test of their own."""
    monkeypatch.setattr(model, "bench_training", lambda *arguments: iter(()))


@pytest.mark.usefixtures("networks_only")
def test_every_comparison_of_networks_has_its_row() -> None:
    told: list[str] = []
    rows = list(bench_model(TINY, told.append))
    assert told
    assert positive(rows)
    assert all(row.value is not None or "replayed" in row.what or "trained" in row.what for row in rows)
    (output,) = [row for row in rows if row.unit == DIFFERENCE]
    assert output.holds
    assert {row.goal for row in rows if row.what == "E2EVarNet, step"} == {"at least 2", "at most 0.5"}
    for rival in ("E2EVarNet, same widths", "E2EVarNet of MoRE's active size"):
        held = [row for row in rows if "K=1" in row.what and row.value and row.against.startswith(rival)]
        units = [sorted(row.unit for row in held if router in row.what) for router in ROUTERS]
        assert units == [[MEMORY, TIME, TIME], [MEMORY, TIME], [MEMORY, TIME, TIME]]
    promptmr = [row for row in rows if row.what.startswith("PromptMR+")]
    assert [row.unit for row in promptmr] == [SHARE] + [TIME] * 4
    assert {row.at_most for row in promptmr[1:]} == {promptmr[0].value}
    assert [row.goal for row in rows if "compiled" in row.what] == ["at least 1.5"] * 2 + ["at most 0.02"]


@pytest.mark.usefixtures("networks_only")
def test_quick_rows_are_some_of_all() -> None:
    rows = list(bench_model(TINY, quick=True))
    assert positive(rows)
    judged = {(row.what, row.unit) for row in rows if row.goal}
    assert {("E2EVarNet, forward", FASTER), ("E2EVarNet, step", FASTER), ("E2EVarNet, step", MEMORY)} < judged
    assert len([row for row in rows if row.what.startswith("MoRE N=8") and row.value]) == 2 * 3
    assert not [row for row in rows if row.unit == OF_THEIRS]


def test_a_dense_network_of_a_given_size_is_found() -> None:
    for parameters in (10_000, 50_000):
        found = TINY.network("e2e_varnet", widths=TINY.widths_of(parameters))
        assert parameters <= count_parameters(found)[0] < 1.1 * parameters


def test_parts_add_up_to_the_whole() -> None:
    rows = list(bench_parts(TINY))
    assert len(rows) == 6
    assert sum(row.value or 0 for row in rows if row.against == "fastMRI's VarNet") == pytest.approx(1)


def test_both_forms_of_consistency_agree() -> None:
    rows = list(bench_consistency(TINY))
    assert [row.unit for row in rows] == [DIFFERENCE, FASTER] * 2
    assert all(row.holds for row in rows if row.unit == DIFFERENCE)


def test_pixels_and_samples_are_dispatched_every_way() -> None:
    rows = list(bench_dispatch(TINY, width=8, tokens=64))
    assert positive(rows)
    assert len([row for row in rows if "pixels" in row.what]) == 4
    assert len(rows) == 4 + 4 * (len(WAYS) - 1)


def test_curves_have_every_system_at_every_value() -> None:
    axes = grid(TINY)
    assert axes["matrix"] == (20, 30, 40)
    assert (axes["coils"], axes["cascades"]) == ((1, 2), (1, 2))
    points = list(bench_growth(TINY, {"cascades": (1, 2), "experts": (1, 2)}))
    assert len(points) == 2 * 3 + 2 * 3
    assert all((point.forward is None) == (point.system == CHECKPOINTED) for point in points)
    held = {(point.axis, point.value, point.system): point.memory for point in points}
    assert held["cascades", 2, CHECKPOINTED] < held["cascades", 2, "E2EVarNet"]
    assert held["cascades", 2, "E2EVarNet"] < held["cascades", 2, "fastMRI's VarNet"]
    assert held["experts", 2, "MoRE, K = 1"] < held["experts", 2, "MoRE, K = N"]


def test_reading_is_measured_on_equal_slices(tmp_path: Path) -> None:
    rows = list(bench_data(tmp_path, files=3, slices=3, size=(48, 40, 2), repeats=1))
    assert positive(rows)
    reading = {(row.what, row.against) for row in rows if OURS in row.what}
    assert reading == {
        (f"reading slices, {OURS}, {n} workers", against) for n in (0, 2) for against in (VARNET, PLAIN)
    }
    waits = [row for row in rows if "waiting" in row.what]
    assert len(waits) == 3
    assert all(0 < (row.value or 0) < 1 for row in waits)
    assert [row.at_most for row in waits] == [None, 0.05, 0.05]


def test_slices_that_differ_are_not_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "_ours", lambda volumes: SliceDataset(volumes, "random", 4, 0.1))
    with pytest.raises(RuntimeError, match=r"file00000.*: slice 0 is not what fastmri reads"):
        next(bench_data(tmp_path, files=1, slices=1, size=(48, 40, 2), repeats=1))


def test_two_processes_are_compared_with_one(tmp_path: Path) -> None:
    row = together(noise_files(tmp_path / "data", 8, (48, 40, 2)), tmp_path)
    assert row.holds
    assert row.value != 0  # other sums: they were two trainings
    lines = [(tmp_path / name / "log.jsonl").read_text().splitlines() for name in ("1", "2")]
    assert [len(each) for each in lines] == [3, 3]


def test_scale_counts_what_it_was_asked_for(tmp_path: Path) -> None:
    rows = list(bench_scale(tmp_path, files=110, repeats=1))
    assert positive(rows)
    assert "110 files" in rows[0].what
    assert len(list((tmp_path / "many").iterdir())) == 110


def test_trainings_are_compared_by_their_psnr() -> None:
    profile = load_profile("smoke")
    phantom = replace(profile.data.phantom, volumes_per_category=3, size=32, coils=2, slices=1)
    tiny = replace(
        profile,
        data=replace(profile.data, phantom=phantom),
        split=replace(profile.split, train=0.34, val=0.33, test=0.33),
        mask=replace(profile.mask, center_fraction=0.1),
        model=NetworkSize(1, (4, 6), (4, 6)),
        training=replace(profile.training, epochs=1),
    )
    modes = {"plain": {}, "again": {"workers": 0}, "bf16": {"precision": "bf16-mixed"}}
    apart = psnr_apart(tiny, modes, (0, 1))
    assert apart["again"] == 0
    assert 0 < apart["bf16"] < 1
