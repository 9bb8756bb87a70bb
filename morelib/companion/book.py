"""Compile the book: JavaScript from npm where it can be had, then Jupyter Book, warnings being errors."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

from morelib.companion.sphinx_ext import npm_files
from morelib.errors import UserError
from morelib.files import write_text

NPM_SECONDS = 300  # a hanging registry must not hang the book: the CDN links are the way out
ERROR_LINE = re.compile(r"WARNING|ERROR|CRITICAL|Exception|Error:")
ANSI = re.compile(r"\x1b\[[0-9;]*m")


class BookError(RuntimeError):
    """The book did not compile. The message holds the lines that say why and the path of the whole log."""


def toc_files(book: Path) -> list[str]:
    """Every page named in `book`/_toc.yml, in reading order, without suffix."""
    toc = yaml.safe_load((book / "_toc.yml").read_text(encoding="utf-8"))
    return [toc["root"], *(chapter["file"] for part in toc["parts"] for chapter in part["chapters"])]


def check_pages(book: Path) -> None:
    """Raise UserError naming the first page of the table of contents that is missing or there twice."""
    for page in toc_files(book):
        found = [
            book / f"{page}{suffix}" for suffix in (".md", ".ipynb") if (book / f"{page}{suffix}").is_file()
        ]
        if not found:
            raise UserError(
                f"{book / page}.ipynb: this chapter is missing; run `morelib reproduce` to make it"
            )
        if len(found) > 1:
            raise UserError(f"{found[0]}: there is also {found[1].name}; remove the one that is out of date")


def prepare_javascript(book: Path) -> str | None:
    """Install the locked JavaScript into `book`/node_modules (git-ignored) unless it is already there.

    Returns:
        None if the book will be self-contained, else one line saying why it links a CDN.
    """
    lock = (book / "package-lock.json").read_bytes()
    stamp = book / "node_modules" / ".morelib-lock"
    digest = hashlib.sha256(lock).hexdigest()
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == digest:
        return None
    npm = shutil.which("npm")
    if npm is None:
        return "npm is not installed"
    command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    try:
        done = subprocess.run(
            command, cwd=book, capture_output=True, text=True, timeout=NPM_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return f"npm ci did not end within {NPM_SECONDS} s"
    if done.returncode != 0:
        lines = (done.stderr or done.stdout).strip().splitlines()
        return f"npm ci failed ({lines[-1] if lines else 'no message'})"
    write_text(stamp, digest)
    return None


def build_book(root: Path | str) -> Path:
    """Compile `root`/book into `root`/book/_build/html.

    The pages are built aside and take the place of the old ones only when the whole book compiled without a
    warning; an old book is removed first, so that none outlives the results it showed.

    Args:
        root: repository root; `root`/book/chapters holds the executed notebooks.

    Returns:
        Path of the start page, `root`/book/_build/html/index.html.

    Raises:
        UserError: a page named in _toc.yml is missing, or there twice.
        BookError: Jupyter Book reported an error or a warning.
    """
    book = Path(root).resolve() / "book"
    if not (book / "_toc.yml").is_file():
        raise UserError(f"{book / '_toc.yml'}: not found; give the root of the morelib repository")
    check_pages(book)
    html, aside, log = book / "_build" / "html", book / "_build" / "partial", book / "_build" / "build.log"
    for folder in (html, aside):
        shutil.rmtree(folder, ignore_errors=True)

    reason = prepare_javascript(book)
    if reason is not None and not npm_files(book):
        print(f"The book links MathJax and widgets from a CDN, because {reason}; the pages need a network.")

    # Jupyter Book has no __main__; its console script may lie outside PATH.
    command = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()"]
    command += ["build", str(book), "--path-output", str(aside), "--all", "--warningiserror", "--keep-going"]
    # Python's development warnings of third-party extensions are not ours to fail on.
    environment = os.environ | {"PYTHONWARNINGS": "ignore", "NO_COLOR": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    output = ANSI.sub("", done.stdout + done.stderr)
    write_text(log, output)
    if done.returncode != 0:
        lines = [line for line in output.splitlines() if ERROR_LINE.search(line)] or output.splitlines()[-20:]
        raise BookError("\n".join(["the book did not compile:", *lines[:40], f"whole log: {log}"]))
    os.replace(aside / "_build" / "html", html)
    shutil.rmtree(aside)
    return html / "index.html"
