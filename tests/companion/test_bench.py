"""Reading is measured on equal slices, and the numbers come with a run card. How fast it is, no test asks."""

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from morelib.cli.bench import app
from morelib.companion.bench import OURS, PLAIN, VARNET
from morelib.errors import UserError

runner = CliRunner()
cli = typer.Typer()
cli.add_typer(app, name="bench")


def test_a_tiny_run_is_complete(tmp_path: Path) -> None:
    out = tmp_path / "bench.json"
    options = ["--files", "3", "--slices", "3", "--size", "48x40x2", "--repeats", "1", "--out", str(out)]
    done = runner.invoke(cli, ["bench", "data", *options], catch_exceptions=False)
    assert done.exit_code == 0
    assert all(name in done.stdout for name in (PLAIN, VARNET, OURS, "index kept", str(out)))
    content = json.loads(out.read_text())
    result = content["result"]
    assert {"device", "commit", "versions", "wall_s"} <= set(content["run_card"])
    assert result["equal_slices"] == 9  # both sides read the same, bit for bit
    assert (result["size"], result["page_cache"]) == ([48, 40, 2], "warm")
    assert set(result["slices_per_s"]) == {"0", "2"}
    for rates in result["slices_per_s"].values():
        assert set(rates) == {PLAIN, VARNET, OURS}
        assert min(rates.values()) > 0
    assert len(result["first_batch_s"]) == 4 and min(result["first_batch_s"].values()) > 0
    assert set(result["waiting"]) == {"0", "1", "2"}
    for waited in result["waiting"].values():
        assert 0 < waited["share"] < 1 and waited["step_s"] > 0


@pytest.mark.parametrize("size", ["640x320", "0x320x4", "640x320x0", "16x320x4", "large"])
def test_a_size_that_is_none_is_one_line(size: str) -> None:
    with pytest.raises(UserError, match=r"640x320x4, at least"):
        runner.invoke(cli, ["bench", "data", "--size", size], catch_exceptions=False)
