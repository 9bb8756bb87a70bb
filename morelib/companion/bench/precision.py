"""Training under torch.compile and bf16, against eager float32: what a step takes, and what becomes of the PSNR."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory
from typing import Any

from morelib.companion.bench.dispatch import N_EXPERTS
from morelib.companion.bench.network import OnPart, Runner, Setting, times
from morelib.companion.bench.result import FASTER, Row, compared
from morelib.companion.profile import Profile, load_profile
from morelib.companion.session import Companion
from morelib.evaluation import evaluate

FAST: dict[str, Any] = {"precision": "bf16-mixed", "compile": True}
EAGER = "the same, eager float32"
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "E2EVarNet": ("e2e_varnet", {}),
    "MoRE N=8, K=1, router_width 16": ("more", {"n_experts": N_EXPERTS, "top_k": 1, "router_width": 16}),
}


def bench_precision(setting: Setting, on_part: OnPart = lambda part: None) -> Iterator[Row]:
    """On a GPU only: elsewhere all rows are there and none is measured."""
    on_gpu = setting.device != "cpu"
    for name, (network, options) in NETWORKS.items():
        what = f"{name}, compiled, bf16, step"
        if not on_gpu:
            yield Row(what, EAGER, FASTER, at_least=1.5)
            continue
        fast = Runner(setting.network(network, **options), setting, **FAST)
        plain = Runner(setting.network(network, **options), setting)
        took = times({what: fast.step, EAGER: plain.step}, setting, on_part)
        yield compared(what, EAGER, (took[what], took[EAGER]), FASTER, setting.repeats, at_least=1.5)
    on_part("training twice")
    difference = psnr_difference(load_profile("smoke"), **FAST) if on_gpu else None
    yield Row("E2EVarNet, trained compiled in bf16, profile smoke", EAGER, "dB of PSNR apart", difference,
              at_most=0.02)  # fmt: skip


def psnr_difference(profile: Profile, **changed: Any) -> float:
    """How far apart the test PSNR of two trainings is: as in `profile`, and with these settings changed. In dB.

    Both networks are evaluated in float32, so that what is compared is the training.
    """
    with TemporaryDirectory(prefix="morelib-bench-") as folder:
        reached = []
        for number, settings in enumerate(({}, changed)):
            book = Companion(replace(profile, training=replace(profile.training, **settings)), folder)
            model = book.train("e2e_varnet", 0, folder=Path(folder) / str(number), show_progress=False)
            scores = evaluate(model, book.dataset("test"), book.device)
            reached.append(mean(score.psnr for score in scores))
    return abs(reached[0] - reached[1])
