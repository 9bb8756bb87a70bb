"""`morelib bench`: how fast and how large the parts are, as ratios to what they replace."""

import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from morelib.cli.common import repository
from morelib.errors import UserError

if TYPE_CHECKING:
    from morelib.companion.bench.network import OnPart, Setting

app = typer.Typer(
    help="Measure ratios of time and memory, by turns in one run; absolute times are shown on a GPU only.",
    no_args_is_help=True,
)
Quick = Annotated[bool, typer.Option("--quick", help="Fewer and smaller: minutes on two cores.")]
Repeats = Annotated[int, typer.Option(min=5, help="Rounds; the median is reported.")]
Out = Annotated[Path | None, typer.Option(help="JSON file for the numbers and a run card.")]
Device = Annotated[str | None, typer.Option(help="cpu or cuda; by default the GPU where there is one.")]
Size = Annotated[str | None, typer.Option(help="Readout x phase x coils, such as 640x368x15.")]
Files = Annotated[int | None, typer.Option(min=1, help="Files to make, in the fastMRI layout.")]
FULL, SMALL = (640, 368, 15), (256, 144, 15)


@app.command()
def model(
    quick: Annotated[
        bool, typer.Option("--quick", help="The rows that decide between networks only.")
    ] = False,
    size: Size = None,
    repeats: Repeats = 5,
    device: Device = None,
    out: Out = None,
) -> None:
    """E2EVarNet against fastMRI's, MoRE against dense networks, PromptMR+, low-resolution maps."""
    from morelib.companion.bench.model import bench_model

    # Not smaller: which network is the faster one depends on what fits into the processor's cache.
    setting = _setting(False, size, repeats, device)
    _report_networks("model", setting, partial(bench_model, quick=quick), out)


@app.command()
def growth(
    quick: Quick = False, size: Size = None, repeats: Repeats = 5, device: Device = None, out: Out = None
) -> None:
    """Time and memory against matrix, coils, cascades, N and K: the curves of chapter 12."""
    from morelib.companion.bench.growth import bench_growth, grid

    setting = _setting(quick, size, repeats, device)
    _report_networks("growth", setting, partial(bench_growth, axes=grid(setting)), out)


@app.command()
def dispatch(
    quick: Quick = False, size: Size = None, repeats: Repeats = 5, device: Device = None, out: Out = None
) -> None:
    """Routing pixels to experts and samples to decoders, against computing one or all for everything."""
    from morelib.companion.bench.dispatch import bench_dispatch

    setting = _setting(quick, size, repeats, device)
    tokens = 6_400 if quick else 25_600  # of a 320 x 320 image at patch 2
    _report_networks("dispatch", setting, partial(bench_dispatch, tokens=tokens), out)


@app.command()
def consistency(
    quick: Quick = False, size: Size = None, repeats: Repeats = 5, device: Device = None, out: Out = None
) -> None:
    """The data-consistency step in hybrid space, against 2-D transforms with shifts."""
    from morelib.companion.bench.consistency import bench_consistency

    _report_networks("consistency", _setting(quick, size, repeats, device), bench_consistency, out)


@app.command()
def data(
    quick: Quick = False,
    files: Files = None,
    slices: Annotated[int, typer.Option(min=1, help="Slices of each file.")] = 1,
    size: Size = None,
    repeats: Repeats = 5,
    out: Out = None,
) -> None:
    """Reading slices: slices a second, time to the first batch, and how long training waits."""
    from tempfile import TemporaryDirectory

    from morelib.companion.bench.data import bench_data

    files = files or (20 if quick else 100)
    shape = _size(size) if size else (640, 320, 4)
    setting = {
        "files": files,
        "slices": slices,
        "size": list(shape),
        "repeats": repeats,
        "page_cache": "warm",
    }
    with TemporaryDirectory(prefix="morelib-bench-") as folder:
        _report("data", setting, lambda on_part: bench_data(
            Path(folder), files=files, slices=slices, size=shape, repeats=repeats, on_part=on_part
        ), "cpu", out)  # fmt: skip


@app.command()
def scale(quick: Quick = False, files: Files = None, repeats: Repeats = 5, out: Out = None) -> None:
    """Start-up on many files, the cost of a slice among them, and memory over epochs."""
    from tempfile import TemporaryDirectory

    from morelib.companion.bench.scale import bench_scale

    files = files or (1_000 if quick else 10_000)
    setting = {"files": files, "repeats": repeats}
    with TemporaryDirectory(prefix="morelib-bench-") as folder:
        _report("scale", setting, lambda on_part: bench_scale(
            Path(folder), files=files, repeats=repeats, on_part=on_part
        ), "cpu", out)  # fmt: skip


def _size(text: str) -> tuple[int, int, int]:
    match = re.fullmatch(r"(\d+)x(\d+)x(\d+)", text)
    readout, phase, coils = map(int, match.groups()) if match else (0, 0, 0)
    if min(readout, phase) < 32 or coils < 1:
        raise UserError(f"--size {text}: give readout x phase x coils, such as 640x320x4, at least 32x32x1")
    return readout, phase, coils


def _setting(quick: bool, size: str | None, repeats: int, device: str | None) -> "Setting":
    shape = _size(size) if size else SMALL if quick else FULL
    import torch

    from morelib.companion.bench.network import Setting

    if device not in (None, "cpu", "cuda"):
        raise UserError(f"--device {device}: there is none; give cpu or cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: PyTorch sees no GPU; give cpu, or install a PyTorch with CUDA")
    best = "cuda" if torch.cuda.is_available() else "cpu"
    return Setting(shape, repeats=repeats, device=device or best)


def _report_networks(
    name: str, setting: "Setting", measure: Callable[..., Iterator[Any]], out: Path | None
) -> None:
    """`_report` of what takes a `Setting`."""
    _report(name, setting.to_dict(), lambda on_part: measure(setting, on_part=on_part), setting.device, out)


def _report(
    name: str,
    setting: Mapping[str, Any],
    measure: Callable[["OnPart"], Iterator[Any]],
    device: str,
    out: Path | None,
) -> None:
    """Print what is measured as one table, the rows before Ctrl-C too, and write the whole to `out`."""
    from time import monotonic

    import torch
    from rich.console import Console

    from morelib.companion.bench.result import result_table, write_result
    from morelib.companion.run_card import device_name, make_run_card, processor_name

    done: list[Any] = []
    started, complete, load = monotonic(), False, os.getloadavg()[0]
    try:
        console = Console(stderr=True)
        with console.status(name) as status:
            for row in measure(lambda part: status.update(f"{part} ({len(done)} rows so far)")):
                done.append(row)
                if not console.is_terminal:  # where there is no status line, a line each
                    print(*filter(None, row.cells), sep=" | ", file=sys.stderr, flush=True)
        complete = True
    except KeyboardInterrupt:
        print("error: interrupted; the rows below are what was measured", file=sys.stderr)
    machine = device_name() if device == "cuda" else f"{processor_name()}, {torch.get_num_threads()} threads"
    title = f"morelib bench {name}: " + ", ".join(f"{key} {_plain(value)}" for key, value in setting.items())
    table = result_table(
        title,
        done,
        f"{machine}; load {load:.1f} before. Medians of rounds by turns.",
        absolute=device == "cuda",
    )
    Console(width=None if sys.stdout.isatty() else 180).print(table)
    if not complete:
        raise typer.Exit(1)
    if out:
        card = make_run_card(f"bench {name}", repository(None), seeds=[0], data="synthetic noise",
                             wall_s=monotonic() - started, device=machine, load=load)  # fmt: skip
        write_result(out, card, setting, done)
        print(out)


def _plain(value: Any) -> str:
    return "-".join(map(str, value)) if isinstance(value, list) else str(value)
