"""`Companion`: data on demand, splits, training runs that are current, stored results."""

import json
import re
from pathlib import Path

import pytest

from morelib.companion import Companion, volumes
from morelib.companion.profile import PhantomData, load_profile
from morelib.companion.session import evaluation_set
from morelib.data import phantom, shared_patients
from morelib.errors import UserError
from morelib.training import load_run

ROOT = Path(__file__).parents[2]

TINY = """
description: tiny
data: {{phantom: {{volumes_per_category: 3, size: 32, coils: 2, slices: 1, seed: {seed}}}}}
split: {{train: 0.34, val: 0.33, test: 0.33, seed: 0}}
mask: {{brain: equispaced, knee: random, acceleration: 4, center_fraction: 0.1}}
model: {{cascades: 1, widths: [4, 6], sens_widths: [4, 6]}}
models:
  e2e_varnet: {{}}
  more: {{n_experts: 2, top_k: 1}}
  wide: {{network: e2e_varnet, seeds: [0], widths: [6, 8]}}
seeds: [0, 1]
training: {{epochs: {epochs}}}
evaluation: {{bootstrap_samples: 100}}
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One repository for all tests, as its phantom takes a few seconds."""
    return tmp_path_factory.mktemp("repository")


def companion(root: Path, *, seed: int = 0, epochs: int = 1) -> Companion:
    path = root / "tiny.yaml"
    path.write_text(TINY.format(seed=seed, epochs=epochs))
    return Companion(str(path), root)


def test_training_is_done_once_and_again_when_its_settings_change(root: Path) -> None:
    tiny = companion(root)
    with pytest.raises(UserError, match="not a run folder"):
        tiny.trained("more", 0)
    tiny.train("more", 0, show_progress=False)
    weights = tiny.run_folder("more", 0) / "weights.safetensors"
    made = weights.stat().st_mtime_ns
    assert json.loads((weights.parent / "run_card.json").read_text())["seeds"] == [0]
    assert "synthetic phantom" in json.loads((weights.parent / "run_card.json").read_text())["data"]
    companion(root).train("more", 0, show_progress=False)
    assert weights.stat().st_mtime_ns == made
    assert not tiny.trained("more", 0).training
    companion(root, epochs=2).train("more", 0, show_progress=False)
    assert weights.stat().st_mtime_ns != made


def test_a_run_on_own_data_is_never_thrown_away(root: Path) -> None:
    tiny = companion(root)
    folder = root / "mine"
    own = Companion(tiny.profile, root, data_root=tiny.data)
    assert own.runs == root / "runs" / "tiny-data"
    own.train("e2e_varnet", 0, folder=folder, show_progress=False)
    with pytest.raises(UserError, match="another configuration"):
        own.train("e2e_varnet", 0, folder=folder, epochs=2, show_progress=False)
    assert (folder / "weights.safetensors").is_file()


def test_results_carry_a_run_card_and_survive_a_bad_one(root: Path) -> None:
    tiny = companion(root)
    path = tiny.save_result("scores", {"psnr": [1.5, 2.5]})
    with pytest.raises(ValueError, match="JSON"):
        tiny.save_result("scores", {"psnr": float("nan")})
    stored = json.loads(path.read_text())
    assert stored["result"] == {"psnr": [1.5, 2.5]}
    assert stored["run_card"]["profile"] == "tiny"


def test_only_more_gets_the_experts(root: Path) -> None:
    tiny = companion(root)
    dense = tiny.model_options("e2e_varnet")
    assert tiny.model_options("more") == {**dense, "n_experts": 2, "top_k": 1}


def test_an_arm_is_a_network_under_a_name_of_its_own(root: Path) -> None:
    tiny = companion(root)
    assert tiny.profile.network("wide") == "e2e_varnet"
    assert tiny.model_options("wide") == {**tiny.model_options("e2e_varnet"), "widths": [6, 8]}
    tiny.train("wide", 0, show_progress=False)
    model, config = load_run(tiny.run_folder("wide", 0))
    assert tiny.run_folder("wide", 0).name == "wide-seed0"
    options = json.loads(json.dumps(tiny.model_options("wide")))
    assert config["model"] == {"name": "e2e_varnet", "options": options}
    assert model.cascades[0].denoiser.unet.decoder.last.in_channels == 6
    assert (tiny.profile.seeds_of("wide"), tiny.profile.seeds_of("more")) == ((0,), (0, 1))
    assert tiny.trained_seeds("wide") == [0]


def test_an_unknown_arm_is_answered_with_the_known_ones(root: Path) -> None:
    with pytest.raises(
        UserError, match="unknown model 'narrow'; profile tiny has e2e_varnet, more, wide, promptmr"
    ):
        companion(root).train("narrow", 0)


def test_real_data_must_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paper = load_profile("paper")
    monkeypatch.delenv("MORE_DATA_ROOT", raising=False)
    with pytest.raises(UserError, match="set MORE_DATA_ROOT"):
        Companion(paper, ROOT).splits()
    monkeypatch.setenv("MORE_DATA_ROOT", str(tmp_path / "none"))
    with pytest.raises(UserError, match="no such folder"):
        Companion(paper, ROOT).splits()


def test_the_profiles_manifest_chooses_and_the_run_card_names_it(toy_root: Path) -> None:
    toy = Companion(str(toy_root / "toy.yaml"), toy_root)
    assert {name: [v.acquisition for v in group] for name, group in toy.splits().items()} == {
        "train": ["AXT2"], "val": ["AXT2"], "test": ["AXT1", "AXT1"]
    }  # fmt: skip
    assert "manifest toy " in toy.describe_data()
    assert "incomplete" not in toy.describe_data()


def test_a_part_of_a_manifest_is_used_and_what_is_missing_is_said(
    toy_root: Path,
    tmp_path_factory: pytest.TempPathFactory,
    fastmri_files: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    part = tmp_path_factory.mktemp("part")
    for name in ("file_brain_AXT2_0000.h5", "file_brain_AXT2_0001.h5", "file_brain_AXT1_0001.h5"):
        (part / name).symlink_to(fastmri_files / name)
    monkeypatch.setenv("MORE_DATA_ROOT", str(part))
    toy = Companion(str(toy_root / "toy.yaml"), toy_root)
    assert [v.name for v in toy.splits()["test"]] == ["file_brain_AXT1_0001.h5"]
    assert "test: 1 of 2 volumes (1 AXT1 missing)" in toy.describe_data()
    (part / "file_brain_AXT1_0001.h5").unlink()
    with pytest.raises(
        UserError, match=r"split 'test': none of the manifest's 2 volumes.*morelib data check"
    ):
        Companion(str(toy_root / "toy.yaml"), toy_root).splits()


def test_a_run_is_evaluated_on_the_volumes_its_manifest_keeps_apart(toy_root: Path) -> None:
    toy = Companion(str(toy_root / "toy.yaml"), toy_root)
    toy.train("e2e_varnet", 0, show_progress=False)
    folder = toy.run_folder("e2e_varnet", 0)
    config = load_run(folder)[1]
    dataset = evaluation_set(config, folder)
    assert [v.name for v in dataset.volumes] == [v.name for v in toy.splits()["test"]]
    assert len(evaluation_set(config, folder, split="all").volumes) == 14
    with pytest.raises(
        UserError, match="patient"
    ):  # without a manifest: too few patients for a split of their own
        evaluation_set(config, folder, toy.data)


def test_an_unknown_root_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        Companion("smoke", tmp_path / "none")


def test_a_phantom_is_made_once_and_again_when_its_recipe_changes(root: Path) -> None:
    first = companion(root)
    splits = first.splits()
    assert {name: len(volumes) for name, volumes in splits.items()} == {"train": 7, "val": 7, "test": 7}
    assert shared_patients(splits) == set()
    assert first.data == root / "runs" / "tiny" / "data"
    before = {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in first.data.iterdir()}
    again = {path.name: path.stat().st_mtime_ns for path in companion(root).data.iterdir()}
    assert again == {name: time for name, (time, _) in before.items()}
    changed = {path.name: path.read_bytes() for path in companion(root, seed=1).data.iterdir()}
    assert changed.keys() == before.keys()
    assert all(changed[name] != content for name, (_, content) in before.items())


def test_a_recipe_covers_every_source_that_the_phantom_is_made_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(volumes, "library_hash", lambda *rooms: list(rooms))
    monkeypatch.setattr(phantom, "make_phantom", lambda folder, **options: folder.mkdir())
    volumes.phantom_folder(PhantomData(1, 32, 1, 1, 0), tmp_path)
    covered = tuple(
        room.replace("/", ".") for room in json.loads((tmp_path / "data.json").read_text())["made_by"]
    )
    sources = Path(phantom.__file__).parent.glob("*.py")
    used = {m for path in sources for m in re.findall(r"from morelib\.([\w.]+) import", path.read_text())}
    assert {module for module in used if not module.startswith(covered)} == {"errors", "files"}
