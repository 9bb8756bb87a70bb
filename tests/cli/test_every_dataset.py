"""Every data set of the catalogue goes through the same commands: train an epoch of the smoke profile, evaluate."""

import json
from pathlib import Path

import pytest
import yaml

from morelib import cli
from tests.data import fixtures

CATALOGUE = yaml.safe_load(
    (Path(__file__).parents[2] / "data_manifests" / "datasets.yaml").read_text("utf-8")
)


def test_the_catalogue_and_the_fixtures_name_the_same_data_sets() -> None:
    assert set(CATALOGUE) == set(fixtures.DATASETS)


@pytest.mark.parametrize("name", fixtures.DATASETS)
def test_train_one_epoch_and_evaluate(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / name).mkdir()
    data = fixtures.DATASETS[name](tmp_path / name)
    run = tmp_path / "run"
    options = ["--profile", "smoke", "--epochs", "1", "--data-root", str(data), "--root", str(tmp_path)]
    assert cli.run(["train", *options, "--model", "e2e_varnet", "--out", str(run)]) == 0
    assert cli.run(["evaluate", str(run)]) == 0
    printed = capsys.readouterr().out
    metrics = json.loads((run / "metrics.json").read_text())
    simulated = CATALOGUE[name]["kspace"] == "simulated"
    assert metrics["volumes"]
    for volume in metrics["volumes"]:
        assert (volume["origin"] == "simulated") == simulated
        assert ("simulated" in volume["acquisition"]) == simulated
    assert ("simulated" in printed) == ("simulated" in metrics["protocol"]["origin"]) == simulated
    assert yaml.safe_load((run / "config.yaml").read_text())["data_root"] == str(data)
