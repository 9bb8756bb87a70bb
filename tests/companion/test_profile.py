"""Profiles parse, and a mistake in one is named."""

from collections import Counter
from pathlib import Path

import pytest
import torch

from morelib.companion import Companion
from morelib.companion.profile import load_profile, profile_names, profile_path
from morelib.data import CATEGORIES
from morelib.data.manifest import manifest_path, read_manifest
from morelib.errors import UserError
from morelib.nn import build_model
from morelib.nn.count import count_parameters

ROOT = Path(__file__).parents[2]


def test_the_four_profiles_parse_and_their_networks_can_be_built() -> None:
    assert profile_names() == ["cpu", "gpu", "paper", "smoke"]
    for name in profile_names():
        profile = load_profile(name)
        assert (profile.name, profile.reference) == (name, name)
        assert sum(profile.split.fractions.values()) == pytest.approx(1)
        assert profile.seeds
        companion = Companion(profile, ROOT)
        with torch.device("meta"):
            for arm in profile.models:
                build_model(profile.network(arm), **companion.model_options(arm))


@pytest.mark.parametrize("name", profile_names())
def test_controls_are_as_large_as_what_they_control_for(name: str) -> None:
    companion = Companion(name, ROOT)
    with torch.device("meta"):
        models = {
            arm: build_model(companion.profile.network(arm), **companion.model_options(arm))
            for arm in ("e2e_varnet", "more", "dense_active", "dense_total", "image_unet")
        }
    size = {arm: count_parameters(model) for arm, model in models.items()}
    total, active = size["more"]
    assert size["dense_active"] == (pytest.approx(active, rel=0.03),) * 2
    assert size["dense_total"] == (pytest.approx(total, rel=0.03),) * 2
    assert size["image_unet"] == (pytest.approx(size["e2e_varnet"][0], rel=0.03),) * 2
    for arm in ("dense_active", "dense_total", "image_unet"):
        ratios = [
            w / b
            for w, b in zip(
                companion.profile.models[arm]["widths"], companion.profile.model.widths, strict=True
            )
        ]
        assert max(ratios) / min(ratios) < 1.07


def test_the_paper_profile_is_the_paper() -> None:
    paper = load_profile("paper")
    assert paper.data.files is not None
    rows = read_manifest(manifest_path(paper.data.files.manifest or "", ROOT))
    assert Counter(row.category for row in rows if row.split == "train") == {
        name: 75 if name.startswith("COR") else 50 for name in CATEGORIES
    }
    assert (paper.training.epochs, paper.training.lr, paper.training.patience) == (40, 2e-4, 3)
    assert (paper.model.cascades, paper.model.widths) == (12, (16, 20, 24, 28))
    assert (paper.mask.acceleration, paper.mask.center_fraction) == (8, 0.04)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seeds:", "seedz:", "unknown key seedz"),
        ("seeds: [0]\n", "", "key seeds is missing"),
        ("v2: {blocks", "v2: {seeds: 0, blocks", "models.hifi_mamba_v2.seeds is 0; it must be a list"),
        ("knee: random, ", "", "key mask.knee is missing"),
        ("cascades: 3", "cascades: three", "model.cascades is 'three'; it must be of type int"),
        ("widths: [8, 12, 16, 20]", "widths: 8", "model.widths is 8; it must be a list"),
        ("epochs:", "epoch:", "unknown key training.epoch; known keys are epochs, lr, "),
        ("lr: 1.0e-3", "lr: 1e-3", "training.lr is '1e-3'; it must be of type float"),  # a string, says YAML
        ("{volumes_per_category: 6, ", "{", "key data.phantom.volumes_per_category is missing"),
        ("  phantom:", "  phantoms:", "unknown key data.phantoms"),
        ("description:", "description: {:", "not valid YAML"),
    ],
)
def test_a_mistake_names_file_and_key(tmp_path: Path, old: str, new: str, message: str) -> None:
    text = profile_path("smoke").read_text()
    assert old in text
    path = tmp_path / "mine.yaml"
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(UserError) as caught:
        load_profile(str(path))
    assert str(caught.value).startswith(f"{path}: {message}")
    assert "\n" not in str(caught.value)


def test_an_unknown_profile_lists_the_known() -> None:
    with pytest.raises(
        UserError, match="profile 'huge': there is none; the profiles are cpu, gpu, paper, smoke"
    ):
        load_profile("huge")
