"""All notebooks in the smoke profile through the real run-all, and the book they become."""

import json
from pathlib import Path

from morelib.companion.notebooks import CHAPTERS
from morelib.companion.reproduce import Outcome

ROOT = Path(__file__).parents[1]


def test_every_notebook_runs(smoke: tuple[list[Outcome], Path]) -> None:
    outcomes, _ = smoke
    assert [outcome.chapter for outcome in outcomes] == [chapter.name for chapter in CHAPTERS]
    assert {outcome.chapter: outcome.reason for outcome in outcomes if outcome.reason} == {}


def test_the_book_shows_every_chapter_with_its_run_card(smoke: tuple[list[Outcome], Path]) -> None:
    _, index = smoke
    assert index == ROOT / "book" / "_build" / "html" / "index.html"
    start = index.read_text(encoding="utf-8")
    for chapter in CHAPTERS:
        assert f"chapters/{chapter.name}.html" in start
        page = (index.parent / "chapters" / f"{chapter.name}.html").read_text(encoding="utf-8")
        card = json.loads(
            (ROOT / "runs" / "smoke" / "cards" / f"{chapter.name}.json").read_text(encoding="utf-8")
        )
        assert "run-card" in page
        assert card["data"] in page
        assert "This page shows no results" not in page
