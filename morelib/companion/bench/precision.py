"""Training under torch.compile and bf16, against eager float32: what a step takes, and what becomes of the PSNR."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory
from typing import Any

from morelib.companion.bench.dispatch import N_EXPERTS
from morelib.companion.bench.network import OnPart, Runner, Setting, times
from morelib.companion.bench.result import FASTER, Row
from morelib.companion.profile import Profile, load_profile
from morelib.companion.session import Companion
from morelib.evaluation import evaluate

FAST: dict[str, Any] = {"precision": "bf16-mixed", "compile": True}
# What is added to what, and the settings of the training run. All but the first replay recorded graphs.
MODES: dict[str, dict[str, Any]] = {
    "eager": {"graphs": False},
    "replayed": {},
    "bf16, replayed": {"precision": "bf16-mixed"},
    "compiled, bf16, replayed": FAST,
}
EAGER = "the same, eager float32"
SEEDS = (0, 1, 2)  # of the trainings whose PSNR is compared
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "E2EVarNet": ("e2e_varnet", {}),
    "MoRE N=8, K=1, router_width 16": ("more", {"n_experts": N_EXPERTS, "top_k": 1, "router_width": 16}),
}


def bench_precision(setting: Setting, on_part: OnPart = lambda part: None) -> Iterator[Row]:
    """On a GPU only: elsewhere all rows are there and none is measured."""
    on_gpu = setting.device != "cpu"
    for name, (network, options) in NETWORKS.items():
        took: dict[str, float] = {}
        if on_gpu:
            runners = {
                mode: Runner(setting.network(network, **options), setting, **settings)
                for mode, settings in MODES.items()
            }
            for runner in runners.values():
                runner.fill_cache()
            took = times({mode: runner.step for mode, runner in runners.items()}, setting, on_part)
        for mode in list(MODES)[1:]:
            row = Row(f"{name}, {mode}, step", EAGER, FASTER, at_least=1.5 if MODES[mode] == FAST else None)
            if took:
                pair = took[mode], took["eager"]
                row = replace(row, value=pair[1] / pair[0], repeats=setting.repeats, times=pair)
            yield row
    modes, apart = {"float32, replayed": {}, "compiled, bf16": FAST}, dict[str, float]()
    if on_gpu:
        on_part("training again and again")
        apart = psnr_apart(load_profile("smoke"), {"eager": MODES["eager"], **modes}, SEEDS)
    for mode in modes:
        what = f"E2EVarNet, trained {mode}, profile smoke, mean of {len(SEEDS)} seeds"
        goal = 0.02 if modes[mode] == FAST else None  # the other is there to compare with
        yield Row(what, EAGER, "dB of PSNR apart", apart.get(mode), at_most=goal)


def psnr_apart(
    profile: Profile, modes: Mapping[str, Mapping[str, Any]], seeds: Sequence[int]
) -> dict[str, float]:
    """How far the test PSNR of each mode but the first is from that of the first, in dB, mean over `seeds`.

    A mode is what it changes in the settings of `profile`. Where only the order of additions changes, training still
    goes another way after some steps: that distance is what another one is to be compared with. All networks are
    evaluated in the same precision, so that what is compared is the training.
    """
    reached: dict[str, float] = {}
    with TemporaryDirectory(prefix="morelib-bench-") as folder:
        for mode, settings in modes.items():
            book = Companion(replace(profile, training=replace(profile.training, **settings)), folder)
            scores = []
            for seed in seeds:
                run = Path(folder) / f"{mode}-{seed}"
                model = book.train("e2e_varnet", seed, folder=run, show_progress=False)
                scores += evaluate(model, book.dataset("test"), book.device)
            reached[mode] = mean(score.psnr for score in scores)
    first, *others = modes
    return {mode: abs(reached[mode] - reached[first]) for mode in others}
