"""`morelib bench`: how fast the parts are, as ratios to what they replace."""

import re
import sys
from pathlib import Path
from typing import Annotated

import typer

from morelib.errors import UserError

app = typer.Typer(help="Measure speed as ratios, by turns in one run.", no_args_is_help=True)


@app.command("data")
def bench_data(
    files: Annotated[int, typer.Option(min=1, help="Files to make, in the fastMRI layout.")] = 100,
    slices: Annotated[int, typer.Option(min=1, help="Slices of each file.")] = 1,
    size: Annotated[
        str, typer.Option(help="Readout x phase x coils. The default needs 0.7 GB of temporary space.")
    ] = "640x320x4",
    repeats: Annotated[int, typer.Option(min=1, help="Rounds; the median is reported.")] = 5,
    out: Annotated[Path | None, typer.Option(help="JSON file for the numbers and a run card.")] = None,
) -> None:
    """Reading slices: slices a second, time to the first batch, and how long training waits."""
    from tempfile import TemporaryDirectory
    from time import monotonic

    from rich.console import Console

    from morelib.companion.bench import bench_data as measure
    from morelib.companion.bench import data_table
    from morelib.companion.run_card import make_run_card
    from morelib.files import write_json

    match = re.fullmatch(r"(\d+)x(\d+)x(\d+)", size)
    if not match or min(map(int, match.groups())) < 1 or min(map(int, match.groups()[:2])) < 32:
        raise UserError(f"--size {size}: give readout x phase x coils, such as 640x320x4, at least 32x32x1")
    readout, phase, coils = map(int, match.groups())
    started = monotonic()
    with TemporaryDirectory(prefix="morelib-bench-") as folder:
        result = measure(
            Path(folder),
            files=files,
            slices=slices,
            size=(readout, phase, coils),
            repeats=repeats,
            on_part=lambda part: print(f"{part} ...", file=sys.stderr),
        )
    Console().print(data_table(result))
    if out:
        card = make_run_card(
            "bench", Path.cwd(), seeds=[0], data=f"{files} files of noise", wall_s=monotonic() - started
        )
        write_json(out, {"run_card": card, "result": result})
        print(out)


@app.command("dispatch")
def dispatch(
    width: Annotated[int, typer.Option(min=1, help="Channels; 128 in the paper of HiFi-MambaV2.")] = 128,
    tokens: Annotated[int, typer.Option(min=1, help="Feature pixels; 320 x 320 at patch 2.")] = 25_600,
    repeats: Annotated[int, typer.Option(min=5, help="Rounds; the median is reported.")] = 9,
    out: Annotated[Path | None, typer.Option(help="JSON file for the numbers and a run card.")] = None,
) -> None:
    """Routing single pixels to experts, against one expert for all pixels and all experts for all pixels."""
    from morelib.companion.bench_dispatch import bench_dispatch
    from morelib.companion.run_card import make_run_card
    from morelib.files import write_json

    results = {}
    for name, backward in (("forward", False), ("forward and backward", True)):
        result = results[name] = bench_dispatch(width, tokens=tokens, repeats=repeats, backward=backward)
        print(
            f"{name}, {result['device']}, {result['threads']} threads:"
            f" {result['to_one_expert']:.2f} times one expert, {result['to_all_experts']:.2f} times all experts"
        )
    if out:
        card = make_run_card("bench", Path.cwd(), seeds=[0], data=f"{tokens} random feature pixels")
        write_json(out, {"run_card": card, "result": results})
        print(out)
