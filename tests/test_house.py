"""The rules of the house: who may import whom, how long a file may be, what is committed."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("physics", "data", "routing", "nn", "evaluation", "training", "companion", "cli")
ANYWHERE = {"morelib", "morelib.errors", "morelib.files"}
# fastmri drags these in; with a CPU-only PyTorch their import fails, and nothing here needs them.
FORBIDDEN = ("torchvision", "pytorch_lightning", "torchmetrics", "fastmri.pl_modules")
SOURCES = sorted((ROOT / "morelib").rglob("*.py"))
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def imports(path: Path) -> set[str]:
    """Every module that a file imports, at its top or anywhere below."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import; name the module in full"
            found.add(node.module or "")
    return found


def room(module: str) -> str:
    return module.split(".")[1]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_room_imports_only_from_the_rooms_above_it(path: Path) -> None:
    where = path.relative_to(ROOT / "morelib").with_suffix("").parts[0]
    modules = {m for m in imports(path) if m.split(".")[0] == "morelib"} - ANYWHERE
    if where in ("__init__", "errors", "files"):
        allowed: tuple[str, ...] = ("nn",) if where == "__init__" else ()
    else:
        allowed = ROOMS[: ROOMS.index(where) + 1]
    if where == "routing":  # knows nothing of MRI
        allowed = ("routing",)
    if where == "nn":  # knows nothing of files
        allowed = ("physics", "routing", "nn")
    assert {room(module) for module in modules} <= set(allowed)
    assert not any(module.startswith(FORBIDDEN) for module in imports(path))


def test_no_file_is_longer_than_300_lines() -> None:
    paths = [*SOURCES, *(ROOT / "tests").rglob("*.py")]
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in paths
    }
    assert {name: length for name, length in lengths.items() if length > 300} == {}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_committed_without_outputs_and_with_the_two_parameters(path: Path) -> None:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    tagged = [cell for cell in code if "parameters" in cell["metadata"].get("tags", [])]
    assert len(tagged) == 1
    assert "".join(tagged[0]["source"]).split("\n") == ['profile = "smoke"', 'root = ".."']


def test_every_notebook_is_in_the_table_of_chapters_and_in_the_book() -> None:
    from morelib.companion.book import toc_files
    from morelib.companion.notebooks import CHAPTERS

    names = [chapter.name for chapter in CHAPTERS]
    assert [path.stem for path in NOTEBOOKS] == names
    assert [page for page in toc_files(ROOT / "book") if page.startswith("chapters/")] == [
        f"chapters/{n}" for n in names
    ]


def test_the_readme_links_to_what_is_there_and_its_map_names_every_room() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for line in text.splitlines():
        for target in line.split("](")[1:]:
            path = target.split(")")[0]
            assert path.startswith("https://") or (ROOT / path).exists(), path
    assert all(f"  {name}/ " in text for name in ROOMS[:-1])


def test_the_ten_lines_of_the_readme_run(tmp_path: Path) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    script = tmp_path / "ten_lines.py"
    script.write_text(text.split("```python\n")[1].split("```")[0])
    done = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("torch.Size([1, 128, 64])")


def test_nothing_made_is_committed() -> None:
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("not a git checkout")
    made = (".h5", ".safetensors", ".pyc", ".ckpt")
    assert [
        name for name in done.stdout.splitlines() if name.endswith(made) or name.startswith("runs/")
    ] == []
