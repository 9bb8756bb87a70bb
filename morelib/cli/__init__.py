"""The command `morelib`. Commands import what they need when they run, so that `morelib --help` is quick."""

import errno
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from morelib.cli import bench, data
from morelib.cli.common import Root, progress_bar, repository
from morelib.errors import UserError

app = typer.Typer(
    help="MoRE, mixture-of-experts unrolled networks for multi-coil MRI reconstruction: the paper's executable"
    " companion. Research use only, not for clinical use.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(data.app, name="data")
app.add_typer(bench.app, name="bench")
# Click's class for a wrong command line; newer typer carries a copy of click, and this finds the right one.
UsageError: type[Exception] = typer.BadParameter.__mro__[1]

Profile = Annotated[str, typer.Option(help="smoke, cpu, gpu, paper, or the path of a YAML file like theirs.")]
DataRoot = Annotated[
    Path | None, typer.Option(help="Folder of volumes in any known layout, instead of the profile's data.")
]
Manifest = Annotated[
    str | None,
    typer.Option(
        help="Which volumes to use: the name of one in data_manifests, or a CSV file; by default the profile's."
    ),
]


@app.command()
def phantom(
    out: Annotated[Path, typer.Argument(help="Folder for the .h5 files; made if there is none.")],
    volumes_per_category: Annotated[
        int, typer.Option(min=1, help="Volumes of each of the 7 categories.")
    ] = 8,
    size: Annotated[int, typer.Option(min=32, help="Matrix of the image, even.")] = 160,
    coils: Annotated[int, typer.Option(min=1, help="Receive coils.")] = 4,
    slices: Annotated[int, typer.Option(min=1, help="Slices of each volume.")] = 4,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same bytes.")] = 0,
    real_headers: Annotated[
        bool,
        typer.Option(
            "--real-headers",
            help="Matrices and coils as in fastMRI's headers, scaled: --size stands for 320, --coils for 28.",
        ),
    ] = False,
) -> None:
    """Make a synthetic multi-coil data set in the fastMRI layout: five brain contrasts and two of the knee."""
    from morelib.data.phantom import make_phantom

    with progress_bar() as bars:
        task = bars.add_task("phantom volumes", total=None)
        paths = make_phantom(
            out,
            volumes_per_category=volumes_per_category,
            size=size,
            coils=coils,
            slices=slices,
            seed=seed,
            real_headers=real_headers,
            progress=lambda done, total, _: bars.update(task, completed=done, total=total),
        )
    print(f"{len(paths)} synthetic volumes in {out}")


@app.command()
def train(
    profile: Profile = "smoke",
    model: Annotated[str, typer.Option(help="e2e_varnet, more, promptmr_plus or hifi_mamba_v2.")] = "more",
    seed: Annotated[int, typer.Option(min=0, help="Of weights, order and masks.")] = 0,
    data_root: DataRoot = None,
    manifest: Manifest = None,
    out: Annotated[
        Path | None, typer.Option(help="Run folder; by default runs/<profile>/models/<model>-seed<seed>.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Instead of the profile's.")] = None,
    root: Root = None,
) -> None:
    """Train one network. An interrupted run is resumed exactly; a finished one is left as it is.

    Under torchrun or srun all processes train it together, one on each GPU.
    """
    from morelib.companion.session import Companion
    from morelib.training.processes import is_main, launch, main_first
    from morelib.training.step import Diverged

    launch()
    companion = Companion(profile, repository(root), data_root, manifest)
    with main_first():
        companion.splits()  # makes a phantom, reads headers
    try:
        companion.train(model, seed, folder=out, epochs=epochs)
    except Diverged as error:
        raise typer.Exit(_complain(str(error), 1)) from None
    if is_main():
        print(out or companion.run_folder(model, seed))


@app.command()
def evaluate(
    run_folder: Annotated[Path, typer.Argument(help="What `morelib train` made.")],
    data_root: DataRoot = None,
    manifest: Manifest = None,
    split: Annotated[str, typer.Option(help="train, val, test, or all files.")] = "test",
) -> None:
    """Score a trained network and the zero-filled image; write metrics.json and zero_filled.json beside it.

    Under torchrun or srun each process scores its share of the volumes; the numbers are the same.
    """
    from morelib.companion.session import evaluation_set
    from morelib.data.manifest import manifest_path
    from morelib.evaluation import ZeroFilled, best_device, protocol, results_table, write_metrics
    from morelib.evaluation import evaluate as score
    from morelib.training import load_run
    from morelib.training.processes import is_main, launch

    launch()
    model, config = load_run(run_folder)
    path = manifest_path(manifest, repository(None)) if manifest else None
    index = repository(None) / "runs" / "index.json"
    dataset = evaluation_set(config, run_folder, data_root, split, path, index)
    systems = {
        "zero-filled": score(ZeroFilled(), dataset),
        config["model"]["name"]: score(model, dataset, best_device()),
    }
    if not is_main():
        return
    for name, scores in zip(("zero_filled", "metrics"), systems.values(), strict=True):
        write_metrics(run_folder / f"{name}.json", scores, protocol(dataset, split))
    print(results_table({name: [scores] for name, scores in systems.items()}).markdown())
    print(run_folder / "metrics.json")


@app.command()
def reconstruct(
    source: Annotated[Path, typer.Argument(metavar="IN", help="A volume in any known layout.")],
    out: Annotated[Path, typer.Argument(metavar="OUT.h5", help="Receives the dataset `reconstruction`.")],
    run: Annotated[
        Path | None,
        typer.Option(help="Run folder; by default the smoke profile's MoRE, runs/smoke/models/more-seed0."),
    ] = None,
    acceleration: Annotated[float | None, typer.Option(min=1, help="Instead of the training run's.")] = None,
    center_fraction: Annotated[float | None, typer.Option(help="Instead of the training run's.")] = None,
) -> None:
    """Reconstruct one file, and draw its middle slice to a PNG beside the output.

    A fully sampled file is undersampled first, as in training; an undersampled one keeps its own mask.
    """
    from morelib.companion.reconstruct import reconstruct_file

    run = run or repository(None) / "runs" / "smoke" / "models" / "more-seed0"
    picture = reconstruct_file(source, out, run, acceleration=acceleration, center_fraction=center_fraction)
    print(out)
    print(picture)


@app.command()
def reproduce(
    profile: Profile = "smoke",
    only: Annotated[
        list[str] | None,
        typer.Option(help="A chapter such as 03_router or 03, with those it needs; repeatable."),
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Notebooks at a time.")] = 2,
    force: Annotated[bool, typer.Option("--force", help="Run unchanged chapters too.")] = False,
    root: Root = None,
) -> None:
    """Run the notebooks of a profile and compile the book. The last line is the path of its start page."""
    from morelib.companion.book import BookError
    from morelib.companion.reproduce import reproduce as run_all

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: stop the kernels, then leave
    try:
        outcomes, page = run_all(profile, repository(root), only=only or (), jobs=jobs, force=force)
    except BookError as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(1) from None
    missing = [outcome for outcome in outcomes if outcome.status in ("failed", "skipped")]
    for outcome in missing:
        reached = f"; the notebook up to there is {outcome.partial}" if outcome.partial else ""
        print(
            f"error: {outcome.chapter} {outcome.status}: {outcome.reason.splitlines()[0]}{reached}",
            file=sys.stderr,
        )
    print(page)
    if missing:
        raise typer.Exit(1)


def run(arguments: Sequence[str]) -> int:
    """Run the command line and return the exit code: 0, 1 (something failed), 2 (bad input), 130 (interrupted)."""
    try:
        code = app(list(arguments), prog_name="morelib", standalone_mode=False)
        if code == 130:  # what newer typer makes of Ctrl-C
            raise KeyboardInterrupt
        return code if isinstance(code, int) else 0
    except UserError as error:
        return _complain(" ".join(str(error).split()), 2)
    except UsageError as error:
        message = error.format_message()  # type: ignore[attr-defined]
        return _complain(f"{message.rstrip('.')}; see `morelib --help`", 2) if message else 2
    except (KeyboardInterrupt, typer.Abort):
        return _complain(
            "interrupted; what was finished is kept, and the same command goes on from there", 130
        )
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT) or os.strerror(errno.ENOSPC) in str(error):
            return _complain(
                f"{error.filename or 'disk'}: no space left; free some and run the same command again", 1
            )
        if error.filename is None:
            raise
        return _complain(f"{error.filename}: {error.strerror}; check the path and its permissions", 2)


def _complain(message: str, code: int) -> int:
    print(f"error: {message}", file=sys.stderr)
    return code


def main() -> None:
    """Entry point of the command `morelib`."""
    sys.exit(run(sys.argv[1:]))
