"""A small repository with quick notebooks, for the run-all's tests."""

from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from morelib.data import find_volumes
from morelib.data.manifest import manifest_text, rows_of

PROFILE = """
description: toy
data: {{files: {{root: {root}, manifest: toy}}}}
split: {{train: 0.5, val: 0.25, test: 0.25, seed: 0}}
mask: {{brain: equispaced, knee: random, acceleration: 4, center_fraction: 0.1}}
model: {{cascades: 1, widths: [4, 6], sens_widths: [4, 6]}}
models: {{e2e_varnet: {{}}, more: {{n_experts: 2, top_k: 1}}}}
seeds: [0]
training: {{epochs: 1}}
evaluation: {{bootstrap_samples: 100}}
"""


@pytest.fixture
def toy_root(tmp_path: Path, fastmri_files: Path) -> Path:
    """A repository without notebooks whose profile `toy.yaml` reads some of the suite's tiny files by a manifest."""
    volumes = find_volumes(fastmri_files)
    contrast = {name: [v for v in volumes if v.acquisition == name] for name in ("AXT2", "AXT1")}
    splits = {"train": contrast["AXT2"][:1], "val": contrast["AXT2"][1:], "test": contrast["AXT1"]}
    (tmp_path / "data_manifests").mkdir()
    (tmp_path / "data_manifests" / "toy.csv").write_text(manifest_text(rows_of(splits)))
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "toy.yaml").write_text(PROFILE.format(root=fastmri_files))
    return tmp_path


@pytest.fixture
def write_notebook(toy_root: Path) -> Callable[..., Path]:
    """Write `toy_root`/notebooks/<name>.ipynb with a title, a parameters cell and one code cell per source."""

    def write(name: str, *sources: str, parameters: str = 'profile = "smoke"\nroot = ".."') -> Path:
        head = new_code_cell(parameters, id="parameters", metadata={"tags": ["parameters"]})
        cells = [new_code_cell(source, id=f"code-{number}") for number, source in enumerate(sources)]
        title = new_markdown_cell(f"(label-{name})=\n# Title of {name}\n\nIts introduction.", id="title")
        notebook = new_notebook(cells=[title, head, *cells])
        notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
        path = toy_root / "notebooks" / f"{name}.ipynb"
        nbformat.write(notebook, path)
        return path

    return write
