"""The run-all on toy notebooks: caching, failure isolation, order, interruption."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest

from morelib.companion.notebooks import Chapter
from morelib.companion.reproduce import Outcome, reproduce
from morelib.errors import UserError

CHAPTERS = (Chapter("01_a"), Chapter("02_b", minutes=2), Chapter("03_c", needs=("02_b",)))
Write = Callable[..., Path]


def run(root: Path, **options: object) -> dict[str, Outcome]:
    outcomes, page = reproduce(
        str(root / "toy.yaml"), root, chapters=CHAPTERS, build=lambda folder: folder / "index.html", **options
    )  # type: ignore[arg-type]
    assert page == root / "index.html"
    return {outcome.chapter: outcome for outcome in outcomes}


def statuses(root: Path, **options: object) -> str:
    return " ".join(outcome.status for outcome in run(root, **options).values())


def page(root: Path, name: str) -> str:
    """All sources and outputs of a chapter's page."""
    return json.dumps(nbformat.read(root / "book" / "chapters" / f"{name}.ipynb", as_version=4))


@pytest.fixture
def three(toy_root: Path, write_notebook: Write) -> Path:
    write_notebook("01_a", "print('output of a', profile[-8:], root)")
    write_notebook("02_b", "import os\nprint('output of b')\nprint(os.environ['OMP_NUM_THREADS'])")
    write_notebook("03_c", "import sys\nprint('output of c', sys.executable)")
    return toy_root


def test_runs_publishes_and_then_leaves_unchanged_chapters_alone(three: Path, write_notebook: Write) -> None:
    outcomes = run(three)
    assert [outcome.status for outcome in outcomes.values()] == ["done"] * 3
    first = nbformat.read(three / "book" / "chapters" / "01_a.ipynb", as_version=4)
    # Title, run card, introduction, injected parameters, code.
    assert [cell.cell_type for cell in first.cells] == ["markdown", "markdown", "markdown", "code", "code"]
    assert first.cells[0].source == "(label-01_a)=\n# Title of 01_a"
    assert "run-card" in first.cells[1].source
    assert first.cells[2].source == "Its introduction."
    assert first.cells[4].outputs[0].text == "output of a toy.yaml ..\n"
    assert sys.executable in page(three, "03_c")
    card = json.loads((three / "runs" / "toy" / "cards" / "01_a.json").read_text())
    assert card["wall_s"] > 0
    assert card["peak_memory_mb"] > 10
    assert "manifest toy" in card["data"]
    assert statuses(three) == "unchanged unchanged unchanged"
    # A changed chapter is run again, and so is the one that needs it.
    write_notebook("02_b", "print('new output of b')")
    assert statuses(three) == "unchanged done done"
    assert "new output of b" in page(three, "02_b")
    assert statuses(three, only=["03"], force=True) == "done done"
    assert not list((three / "runs").rglob("*.partial*"))


def test_a_newly_recorded_result_runs_those_chapters_again_that_read_recorded_ones(
    three: Path, write_notebook: Write
) -> None:
    write_notebook("01_a", "def recorded(name): print(name)", "recorded('table_1')")
    run(three)
    (three / "book" / "results" / "cpu").mkdir(parents=True)
    (three / "book" / "results" / "cpu" / "table_1.json").write_text("{}")
    assert statuses(three) == "done unchanged unchanged"


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="processes cannot be bound to cores here")
def test_kernels_share_the_cores_that_this_process_may_use(three: Path, write_notebook: Write) -> None:
    write_notebook("02_b", "import os\nprint('threads:', os.environ['OMP_NUM_THREADS'])")
    mine = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(mine)})
    try:
        run(three, only=["02"], jobs=1)
    finally:
        os.sched_setaffinity(0, mine)
    assert "threads: 1\\n" in page(three, "02_b")


def test_a_failing_chapter_fails_alone_and_leaves_no_stale_result(three: Path, write_notebook: Write) -> None:
    run(three)
    write_notebook("02_b", "print('reached')", "raise ValueError('broken on purpose')", "print('never')")
    outcomes = run(three)
    assert [outcome.status for outcome in outcomes.values()] == ["unchanged", "failed", "skipped"]
    assert outcomes["02_b"].reason.startswith("ValueError: broken on purpose")
    assert "02_b" in outcomes["03_c"].reason
    assert outcomes["02_b"].partial == three / "runs" / "toy" / "failed" / "02_b.ipynb"
    assert "reached" in outcomes["02_b"].partial.read_text()
    for name, reason in (("02_b", "broken on purpose"), ("03_c", "it needs 02_b")):
        text = page(three, name)
        assert reason in text
        assert f"# Title of {name}" in text  # other pages may refer to its labels
        assert "output of" not in text.replace("print('output of", "")
        assert not (three / "runs" / "toy" / "chapters" / f"{name}.ipynb").exists()
        assert not (three / "runs" / "toy" / "cards" / f"{name}.json").exists()
    # Mended, it runs again, and what was skipped with it.
    write_notebook("02_b", "print('mended')")
    assert statuses(three) == "unchanged done done"


def test_a_kernel_that_dies_is_a_failure_and_not_a_hang(three: Path, write_notebook: Write) -> None:
    write_notebook("01_a", "import os\nos._exit(3)")
    outcomes = run(three, only=["01"])
    assert outcomes["01_a"].status == "failed"
    assert "DeadKernelError" in outcomes["01_a"].reason


def test_only_takes_names_and_numbers_and_what_they_need(three: Path) -> None:
    assert list(run(three, only=["03_c"])) == ["02_b", "03_c"]
    # The chapter that never ran has a page that says so: the book's table of contents names it.
    assert "not run yet" in page(three, "01_a")
    with pytest.raises(UserError, match="chapter '04': there is none; the chapters are 01_a, 02_b, 03_c"):
        run(three, only=["04"])


def test_a_notebook_without_the_parameters_is_refused_before_anything_runs(
    three: Path, write_notebook: Write
) -> None:
    write_notebook("03_c", "1", parameters="profile = 1")
    with pytest.raises(UserError, match=r"03_c.ipynb: has no parameter 'root'"):
        run(three)
    (three / "notebooks" / "03_c.ipynb").unlink()
    with pytest.raises(UserError, match="no such notebook"):
        run(three)
    assert not (three / "runs").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="sends signals as POSIX does")
def test_interruption_stops_the_kernels_and_leaves_nothing_half_written(
    three: Path, write_notebook: Write
) -> None:
    marker = three / "kernel.pid"
    sleep = f"import os, pathlib, time\npathlib.Path({str(marker)!r}).write_text(str(os.getpid()))\ntime.sleep(600)"
    write_notebook("01_a", sleep)
    script = three / "run.py"
    script.write_text(
        "from morelib.companion.notebooks import Chapter\nfrom morelib.companion.reproduce import reproduce\n"
        f"reproduce({str(three / 'toy.yaml')!r}, {str(three)!r}, chapters=[Chapter('01_a')])\n"
    )
    process = subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        deadline = time.monotonic() + 60
        while not (marker.is_file() and marker.read_text()) and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert b"KeyboardInterrupt" in output
    while True:  # the kernel goes with it; it is no child of ours, so ask until it is gone
        try:
            os.kill(int(marker.read_text()), 0)
        except ProcessLookupError:
            break
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert not list((three / "runs" / "toy").rglob("chapters/*"))
    assert not (three / "book").exists()
