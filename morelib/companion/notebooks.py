"""The chapters in their order, and what is done to a notebook before and after it runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat

from morelib.companion.run_card import card_markdown
from morelib.errors import UserError
from morelib.files import atomic_path


@dataclass(frozen=True)
class Chapter:
    """One notebook. `needs` are chapters whose results it reads; `minutes`, roughly, lets the longest start first."""

    name: str
    needs: tuple[str, ...] = ()
    minutes: float = 0.2


CHAPTERS = (
    Chapter("00_data"),
    Chapter("01_physics"),
    Chapter("02_varnet_unroll"),
    Chapter("03_router"),
    Chapter("04_load_balancing", minutes=0.5),
    Chapter("05_training", minutes=2),
    Chapter("06_table_1", needs=("05_training", "08_promptmr_plus", "09_hifi_mamba_v2", "10_controls")),
    Chapter("07_figure_2", needs=("05_training",)),
    Chapter("08_promptmr_plus", minutes=3),
    Chapter("09_hifi_mamba_v2", minutes=2),
    Chapter("10_controls", minutes=3),
    Chapter("12_cost", minutes=0.5),
)


def select(chapters: Sequence[Chapter], only: Sequence[str]) -> list[Chapter]:
    """The chapters named in `only` (full names or numbers such as `03`) and all they need; all if it is empty."""
    by_name = {chapter.name: chapter for chapter in chapters}
    wanted: set[str] = set() if only else set(by_name)
    for name in only:
        found = [chapter for chapter in by_name if name in (chapter, chapter.partition("_")[0])]
        if not found:
            raise UserError(f"chapter {name!r}: there is none; the chapters are {', '.join(by_name)}")
        wanted.add(found[0])
    while more := {need for name in wanted for need in by_name[name].needs} - wanted:
        wanted |= more
    return [chapter for chapter in chapters if chapter.name in wanted]


def check_parameters(notebook: Path, parameters: Mapping[str, Any]) -> None:
    """UserError unless `notebook` exists and its `parameters` cell declares every name: papermill would only log."""
    if not notebook.is_file():
        raise UserError(f"{notebook}: no such notebook; give the root of the repository with --root")
    import papermill  # here, because the command line starts without it

    declared = papermill.inspect_notebook(str(notebook))
    if unknown := sorted(set(parameters) - set(declared)):
        raise UserError(
            f"{notebook}: has no parameter {unknown[0]!r}; its cell tagged `parameters` must define"
            f" {', '.join(parameters)}"
        )


def finish(executed: Path, final: Path, card: Mapping[str, Any]) -> None:
    """Write the executed notebook with its run card below the title. Local paths and the default parameters go."""
    notebook = nbformat.read(executed, as_version=4)
    notebook.cells = [cell for cell in notebook.cells if "parameters" not in cell.metadata.get("tags", [])]
    for cell in notebook.cells:
        if "injected-parameters" in cell.metadata.get("tags", []):
            cell.metadata["tags"].append("remove-input")  # the run card says it
    for item in (notebook, *notebook.cells):
        item.metadata.pop("papermill", None)
    _insert_below_title(notebook, card_markdown(card), "run-card")
    write_notebook(notebook, final)


def stub(source: Path, reason: str) -> nbformat.NotebookNode:
    """The page of a chapter that has no result: its text and code without any output, below a line saying why.

    The text stays because other pages refer to its equations.
    """
    notebook = nbformat.read(source, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    quoted = "\n".join(reason.strip().splitlines())
    text = f":::{{admonition}} This page shows no results\n:class: danger\n```text\n{quoted}\n```\n:::"
    _insert_below_title(notebook, text, "no-results")
    return notebook


def write_notebook(notebook: nbformat.NotebookNode, path: Path) -> None:
    """Write atomically."""
    with atomic_path(path) as temporary:
        nbformat.write(notebook, temporary)


def _insert_below_title(notebook: nbformat.NotebookNode, text: str, cell_id: str) -> None:
    """After the title's line; what follows the title in the same cell follows in a cell of its own."""
    cell = nbformat.v4.new_markdown_cell(text, id=cell_id)
    first = notebook.cells[0] if notebook.cells else None
    if first is None or first.cell_type != "markdown":
        notebook.cells.insert(0, cell)
        return
    lines = first.source.splitlines()
    title = next((number for number, line in enumerate(lines) if line.startswith("# ")), 0) + 1
    rest = "\n".join(lines[title:]).strip()
    first.source = "\n".join(lines[:title])
    after = [nbformat.v4.new_markdown_cell(rest, id="introduction")] if rest else []
    notebook.cells[1:1] = [cell, *after]
