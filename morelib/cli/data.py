"""`morelib data`: fetch, check, index and freeze the files that a user brings."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from morelib.cli.common import Root, progress_bar, repository
from morelib.errors import UserError

app = typer.Typer(help="Fetch, check and index data.", no_args_is_help=True)


@app.command()
def check(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(help="Where the files are, at any depth; by default the folder of --data-root."),
    ] = None,
    manifest: Annotated[
        str | None,
        typer.Option(help="fastmri or another of data_manifests, or a CSV file; without, whatever is there."),
    ] = None,
    data_root: Annotated[
        Path | None, typer.Option(envvar="MORE_DATA_ROOT", help="Folder to look in if none is given.")
    ] = None,
    deep: Annotated[bool, typer.Option("--deep", help="Read every slice, not the headers alone.")] = False,
    report: Annotated[
        Path | None, typer.Option(help="A .json or .csv file with a line for every volume.")
    ] = None,
    root: Root = None,
) -> None:
    """Say which volumes are there, missing, damaged or different. Interrupted, the same command goes on.

    Exit code 0: all is well; 1: something is missing or damaged, what was found can be used; 2: bad input.
    """
    from morelib.cli.check import Reading, run_check
    from morelib.data.index import Index
    from morelib.data.manifest import manifest_path, read_manifest

    roots = folders or ([data_root] if data_root else [])
    if not roots:
        raise UserError("no folder to check; give one, or set MORE_DATA_ROOT")
    repo = repository(root)
    path = manifest_path(manifest, repo) if manifest else None
    if report and path and report.resolve() == path.resolve():
        raise UserError(f"{report}: is the manifest; give the report another name")
    about = {"manifest": path and str(path), "folders": [str(folder) for folder in roots], "deep": deep}
    rows = read_manifest(path) if path else None
    with Index(repo / "runs" / "index.json") as headers:
        reading = Reading(headers, repo / "runs" / "slices_read.json", deep)
        if not run_check(roots, rows, reading, report, about):
            raise typer.Exit(1)


@app.command()
def index(
    folder: Annotated[Path, typer.Argument(help="Volumes of any known layout, at any depth.")],
    out: Annotated[Path, typer.Option(help="The manifest to write.")] = Path("manifest.csv"),
    seed: Annotated[
        int, typer.Option(min=0, help="Of the split, where the data have none of their own.")
    ] = 0,
) -> None:
    """Write a manifest of what is in a folder, with the official split or one by patient, to freeze and share."""
    from morelib.data.index import find_volumes
    from morelib.data.manifest import manifest_text, rows_of
    from morelib.data.splits import official_split
    from morelib.files import write_text

    with progress_bar() as bar:
        task = bar.add_task("reading headers", total=None)
        volumes = find_volumes(
            folder, None, lambda done, total: bar.update(task, completed=done, total=total)
        )
    splits = official_split(volumes, seed=seed)
    text = manifest_text(rows_of(splits))
    if out.is_file() and out.read_text("utf-8", errors="replace") != text:
        raise UserError(f"{out}: is there and differs; a split once frozen is kept: give another --out")
    write_text(out, text)
    print(", ".join(f"{len(group)} {split}" for split, group in splits.items()) + " volumes")
    print(out)


@app.command()
def fetch(
    dataset: Annotated[str, typer.Argument(help="m4raw, the one that is free without registration.")],
    out: Annotated[Path, typer.Argument(help="Folder for the files; made if there is none.")] = Path("m4raw"),
    subjects: Annotated[
        int | None, typer.Option(min=1, help="The first so many, about 100 MB each; by default all.")
    ] = None,
    split: Annotated[str, typer.Option(help="train, val or test.")] = "val",
) -> None:
    """Download a free data set, or a few of its subjects. An interrupted download goes on where it stopped."""
    from morelib.data.fetch import LICENCE, fetch_m4raw

    if dataset != "m4raw":
        raise UserError(
            f"{dataset}: cannot be fetched, only m4raw can; data_manifests/README.md says where to get the others"
        )
    with progress_bar(in_bytes=True) as bar:
        task = bar.add_task("M4Raw", total=None)

        def show(file: str, done: int, total: int) -> None:
            bar.update(task, description=file, completed=done, total=total)

        report = fetch_m4raw(out, split=split, subjects=subjects, progress=show)
    if report.note:
        print(report.note)
    print(f"{len(report.fetched)} files fetched, {len(report.kept)} were there; {LICENCE}")
    print(report.folder)


@app.command()
def manifest(
    out: Annotated[
        Path | None, typer.Option(help="Folder to write to; by default the repository's data_manifests.")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; exit with 1 if the files there are others.")
    ] = False,
    root: Root = None,
) -> None:
    """Draw the manifests in data_manifests again, from the tables beside them: the same bytes each time."""
    from morelib.data.published import make_manifests
    from morelib.files import write_text

    tables = repository(root) / "data_manifests"
    folder, differ = out or tables, []
    for name, text in make_manifests(tables).items():
        path = folder / name
        same = path.is_file() and path.read_bytes() == text.encode()
        if not same and not check:
            write_text(path, text)
        if not same:
            differ.append(path)
        volumes = text.count("\n") - 1
        print(f"{volumes:6,} volumes  {path}" if volumes else f"      template  {path}")
    if check and differ:
        print(f"error: {differ[0]}: is not what the rule draws; run `morelib data manifest`", file=sys.stderr)
        raise typer.Exit(1)
