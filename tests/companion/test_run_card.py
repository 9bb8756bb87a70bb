"""Run cards say what a result was made with."""

import json
import subprocess
from pathlib import Path

import morelib
from morelib.companion.run_card import card_markdown, commit, make_run_card


def test_a_card_is_json_and_names_what_a_reader_needs(tmp_path: Path) -> None:
    card = make_run_card(
        "smoke",
        tmp_path,
        seeds=(0, 1),
        data="synthetic phantom",
        wall_s=12.34,
        peak_memory_mb=512.3,
        key="abc",
    )
    assert json.loads(json.dumps(card)) == card
    assert card["seeds"] == [0, 1]
    assert card["versions"]["morelib"] == morelib.__version__
    assert card["key"] == "abc"
    text = card_markdown(card)
    assert text.startswith(":::{admonition}")
    assert text.endswith(":::")
    for expected in (
        "run-card",
        "profile smoke",
        "synthetic phantom",
        "0, 1",
        "12 s",
        "512 MB",
        "torch",
        card["date"][:10],
    ):
        assert expected in text


def test_what_was_not_measured_is_not_shown(tmp_path: Path) -> None:
    text = card_markdown(make_run_card("smoke", tmp_path, seeds=(0,), data="phantom"))
    assert "Time" not in text
    assert "Peak memory" not in text


def test_the_commit_says_when_files_differ_from_it(tmp_path: Path) -> None:
    assert commit(tmp_path) == "not committed"

    def git(*arguments: str) -> None:
        identity = ("-c", "user.name=a", "-c", "user.email=a@example.org")
        subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True)

    git("init", "-q")
    assert commit(tmp_path) == "not committed"
    (tmp_path / "file").write_text("1")
    git("add", "file")
    git("commit", "-q", "-m", "first")
    clean = commit(tmp_path)
    assert len(clean) == 12
    (tmp_path / "file").write_text("2")
    assert commit(tmp_path) == f"{clean} with uncommitted changes"
