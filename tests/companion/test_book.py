"""Compiling the book: what stops it, what it says, what it writes. test_book_in_browser reads it."""

import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest

from morelib.companion import book as book_module
from morelib.companion.book import BookError, build_book, check_pages, prepare_javascript, toc_files
from morelib.companion.notebooks import CHAPTERS
from morelib.companion.plotly_mime import PLOTLY_MIME, PlotlyRenderer, figure_html
from morelib.errors import UserError

ROOT = Path(__file__).parents[2]
NUMBER = "31.4159 dB"


def small_book(folder: Path) -> Path:
    """A repository root with the real book sources and chapters of one line each."""
    book = folder / "book"
    shutil.copytree(ROOT / "book", book, ignore=shutil.ignore_patterns("_build", "node_modules", "chapters"))
    (book / "chapters").mkdir()
    for page in toc_files(book):
        if page.startswith("chapters/"):
            notebook = nbformat.v4.new_notebook()
            output = nbformat.v4.new_output("stream", name="stdout", text=f"PSNR {NUMBER}\n")
            cell = nbformat.v4.new_code_cell("print(result)", outputs=[output], execution_count=1)
            notebook.cells = [nbformat.v4.new_markdown_cell(f"# Title of {page}"), cell]
            nbformat.write(notebook, book / f"{page}.ipynb")
    return folder


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small book on a machine without npm."""
    monkeypatch.setattr(book_module.shutil, "which", lambda name: None)
    return small_book(tmp_path)


def test_the_chapters_stand_in_order_in_the_table_of_contents() -> None:
    chapters = [page for page in toc_files(ROOT / "book") if page.startswith("chapters/")]
    assert [Path(page).name for page in chapters] == [chapter.name for chapter in CHAPTERS]


def test_lock_names_no_private_host() -> None:
    lock = json.loads((ROOT / "book" / "package-lock.json").read_text(encoding="utf-8"))
    addresses = {package["resolved"] for package in lock["packages"].values() if "resolved" in package}
    assert all(address.startswith("https://registry.npmjs.org/") for address in addresses)
    assert all("integrity" in package for name, package in lock["packages"].items() if name)


def test_missing_and_doubled_chapters_are_named(root: Path) -> None:
    chapter = root / "book" / "chapters" / "03_router.ipynb"
    shutil.copy(chapter, chapter.with_suffix(".md"))
    with pytest.raises(UserError, match=r"03_router\.md: there is also 03_router\.ipynb"):
        check_pages(root / "book")
    chapter.unlink()
    check_pages(root / "book")  # a page in Markdown may stand in
    chapter.with_suffix(".md").unlink()
    with pytest.raises(UserError, match=r"03_router\.ipynb: this chapter is missing; run"):
        build_book(root)


def test_a_folder_without_a_book_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="give the root of the morelib repository"):
        build_book(tmp_path)


def test_without_npm_the_book_compiles_and_says_that_it_links_a_cdn(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index = build_book(root)
    assert "links MathJax and widgets from a CDN, because npm is not installed" in capsys.readouterr().out
    assert index == root / "book" / "_build" / "html" / "index.html"
    assert NUMBER in (index.parent / "chapters" / "06_table_1.html").read_text(encoding="utf-8")
    assert 'src="https://cdn' in (index.parent / "notation.html").read_text(encoding="utf-8")
    assert not (index.parents[1] / "partial").exists()


def test_a_warning_stops_the_book_and_leaves_no_old_one(root: Path) -> None:
    html = root / "book" / "_build" / "html"
    html.mkdir(parents=True)
    (html / "index.html").write_text("an older book", encoding="utf-8")
    with (root / "book" / "limits.md").open("a", encoding="utf-8") as page:
        page.write("\nSee {eq}`eq-that-nobody-wrote`.\n")
    with pytest.raises(BookError, match=r"limits\.md:\d+: WARNING: equation not found: eq-that-nobody-wrote"):
        build_book(root)
    assert not html.exists()


def test_failing_npm_is_reported_and_not_fatal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    npm = tmp_path / "npm"
    npm.write_text("#!/bin/sh\necho 'npm error network unreachable' >&2\nexit 1\n", encoding="utf-8")
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    (tmp_path / "package-lock.json").write_text("{}", encoding="utf-8")
    assert prepare_javascript(tmp_path) == "npm ci failed (npm error network unreachable)"


def test_figure_cannot_end_its_own_script_element() -> None:
    html = figure_html({"data": [], "layout": {"title": {"text": "</script><b>"}, "height": 300}})
    assert html.count("</script>") == 1
    assert "min-height:300px" in html


def test_renderer_leaves_other_types_and_inline_values_alone() -> None:
    figure = SimpleNamespace(mime_type=PLOTLY_MIME, content={"data": [], "layout": {}})
    assert PlotlyRenderer.handle_mime(None, figure, inline=False) is not None
    assert PlotlyRenderer.handle_mime(None, figure, inline=True) is None
    image = SimpleNamespace(mime_type="image/png", content="")
    assert PlotlyRenderer.handle_mime(None, image, inline=False) is None
