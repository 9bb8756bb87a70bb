"""What a notebook works with: a profile, its data and splits, its training runs and stored results."""

import json
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from morelib.companion.fingerprint import NUMERICAL_ROOMS, digest, library_hash, versions
from morelib.companion.profile import Masks, Profile, Split, load_profile
from morelib.companion.run_card import make_run_card
from morelib.data.splits import split_by_patient
from morelib.data.volume import VolumeInfo, find_volumes
from morelib.errors import UserError
from morelib.files import write_json

if TYPE_CHECKING:
    from morelib.data import SliceDataset
    from morelib.nn import Unrolled
    from morelib.training.fit import OnEpoch


class Companion:
    """One profile in one checkout. `root` is the repository; everything made lies in `root/runs/<profile>`.

    `Companion("smoke", "..")` is what the first cell of each notebook makes. `data_root` replaces the profile's
    data by a folder of fastMRI-layout files, with runs of its own. Raises UserError for an unknown profile and
    for a folder that does not exist.
    """

    def __init__(
        self, profile: str | Profile = "smoke", root: Path | str = "..", data_root: Path | str | None = None
    ) -> None:
        self.profile = load_profile(profile) if isinstance(profile, str) else profile
        self.root = Path(root).resolve()
        self._own_data = None if data_root is None else Path(data_root).resolve()
        for folder in filter(None, (self.root, self._own_data)):
            if not folder.is_dir():
                raise UserError(f"{folder}: no such folder; check the path")
        suffix = f"-{self._own_data.name}" if self._own_data else ""
        self.runs = self.root / "runs" / (self.profile.name + suffix)
        self.results = self.runs / "results"

    @cached_property
    def data(self) -> Path:
        """The folder of the volumes. A phantom is made on first use, and again when its recipe has changed."""
        if self._own_data is not None:
            return self._own_data
        if self.profile.data.fastmri is None:
            return self._phantom()
        folder = os.environ.get("MORE_DATA_ROOT") or self.profile.data.fastmri.root
        if not folder:
            raise UserError(
                f"profile {self.profile.name!r} needs real fastMRI data: set MORE_DATA_ROOT to the folder of the"
                " extracted archives, or choose the profile smoke, cpu or gpu"
            )
        if not Path(folder).is_dir():
            raise UserError(f"{folder}: no such folder; set MORE_DATA_ROOT to that of the extracted archives")
        return Path(folder).resolve()

    def _phantom(self) -> Path:
        from morelib.data.phantom import make_phantom

        assert self.profile.data.phantom is not None
        options, folder = asdict(self.profile.data.phantom), self.runs / "data"
        stamp, recipe = self.runs / "data.json", {"options": options, "made_by": library_hash("data/phantom")}
        if not folder.is_dir() or read_json(stamp) != recipe:
            # Made aside and renamed: notebooks started side by side never see half a data set.
            self.runs.mkdir(parents=True, exist_ok=True)
            with TemporaryDirectory(dir=self.runs, prefix=".data-") as aside:
                make_phantom(Path(aside) / "data", **options)
                stamp.unlink(missing_ok=True)
                shutil.rmtree(folder, ignore_errors=True)
                (Path(aside) / "data").replace(folder)
                write_json(stamp, recipe)
        return folder

    def splits(self) -> dict[str, list[VolumeInfo]]:
        """`train`, `val` and `test` volumes; no patient is in two of them."""
        return self._splits

    @cached_property
    def _splits(self) -> dict[str, list[VolumeInfo]]:
        split = self.profile.split
        official = [_find_below(self.data, name) for name in ("multicoil_train", "multicoil_val")]
        if all(official):  # fastMRI's archives: training volumes from one, the rest from the other
            train, held_out = official
            return {"train": self._draw(train), **split_by_patient(held_out, split.held_out, split.seed)}
        if self.profile.data.fastmri is not None and self._own_data is None:
            raise UserError(
                f"{self.data}: no volumes in folders multicoil_train and multicoil_val below it; extract fastMRI's"
                " multi-coil archives there"
            )
        return split_by_patient(find_volumes(self.data), split.fractions, split.seed)

    def _draw(self, volumes: list[VolumeInfo]) -> list[VolumeInfo]:
        """A stratified random sample: as many volumes of each acquisition as the profile says, or all."""
        source = self.profile.data.fastmri
        if source is None:
            return volumes
        rng, drawn = np.random.default_rng(source.seed), []
        for acquisition, count in source.train_volumes.items():
            group = [volume for volume in volumes if volume.acquisition == acquisition]
            if len(group) < count:
                raise UserError(
                    f"{self.data}: holds {len(group)} training volumes of {acquisition}, the profile asks for"
                    f" {count}; extract more archives, or give a profile with fewer"
                )
            drawn += [group[index] for index in rng.permutation(len(group))[:count]]
        return sorted(drawn, key=lambda volume: volume.name)

    def dataset(self, split: str, *, seed: int = 0) -> "SliceDataset":
        """The slices of `split` under the profile's masks; those of `train` are drawn anew from `seed` and epoch."""
        from morelib.data import SliceDataset

        mask = self.profile.mask
        return SliceDataset(
            self.splits()[split],
            mask.kinds,
            mask.acceleration,
            mask.center_fraction,
            train=split == "train",
            seed=seed,
            cache=self.profile.data.phantom is not None and self._own_data is None,
        )

    def describe_data(self) -> str:
        """One line for run cards."""
        phantom = self.profile.data.phantom
        sizes = ", ".join(f"{len(volumes)} {name}" for name, volumes in self.splits().items())
        if phantom is None or self._own_data:
            kind = "synthetic" if all(v.synthetic for v in self.splits()["test"]) else "measured"
            return f"{kind} fastMRI-layout files ({sizes} volumes)"
        return f"synthetic phantom, {phantom.size} x {phantom.size}, {phantom.coils} coils ({sizes} volumes)"

    @property
    def device(self) -> str:
        """`cuda` where there is a GPU, else `cpu`."""
        from morelib.evaluation import best_device

        return best_device()

    def model_options(self, model: str) -> dict[str, Any]:
        """Options of `build_model(model, ...)` under this profile."""
        return asdict(self.profile.model) | self.profile.models.get(model, {})

    def run_folder(self, model: str, seed: int) -> Path:
        """Where the training run of `model` with `seed` lives."""
        return self.runs / "models" / f"{model}-seed{seed}"

    def train(
        self,
        model: str,
        seed: int,
        *,
        folder: Path | None = None,
        epochs: int | None = None,
        show_progress: bool = True,
        on_epoch: "OnEpoch | None" = None,
    ) -> "Unrolled":
        """Train `model`, or resume or load the run there is; the folder is `run_folder(model, seed)` by default.

        A run on the profile's phantom is started afresh where settings or the library's numerical code changed
        since. On other data nothing is thrown away: UserError if the folder's run had other settings.
        """
        from morelib.training import train

        made_here = folder is None and self._own_data is None and self.profile.data.phantom is not None
        folder = folder or self.run_folder(model, seed)
        config = replace(self.profile.training, seed=seed, epochs=epochs or self.profile.training.epochs)
        options = self.model_options(model)
        about = {
            "profile": self.profile.reference,
            "data_root": str(self.data),
            "split": asdict(self.profile.split),
            "mask": asdict(self.profile.mask),
        }
        if made_here:
            stamp = folder / "made_by.json"
            made_by = digest(options, config.to_dict(), about, library_hash(*NUMERICAL_ROOMS), versions())
            if folder.is_dir() and read_json(stamp) != made_by:
                shutil.rmtree(folder)
            write_json(stamp, made_by)
        started, card = time.monotonic(), folder / "run_card.json"
        train_set, val_set = self.dataset("train", seed=seed), self.dataset("val")
        trained = train(
            model, options, train_set, val_set, config, folder,
            about=about, show_progress=show_progress, on_epoch=on_epoch,
        )  # fmt: skip
        if not card.is_file():
            write_json(card, self.run_card([seed], wall_s=time.monotonic() - started))
        return trained

    def trained(self, model: str, seed: int) -> "Unrolled":
        """The network that `train` left, in evaluation mode. UserError where there is none yet."""
        from morelib.training import load_run

        return load_run(self.run_folder(model, seed))[0]

    def run_card(self, seeds: Sequence[int] | None = None, **more: Any) -> dict[str, Any]:
        """See `make_run_card`; `seeds` are the profile's unless given."""
        seeds = self.profile.seeds if seeds is None else seeds
        return make_run_card(self.profile.name, self.root, seeds=seeds, data=self.describe_data(), **more)

    def save_result(self, name: str, value: Any) -> Path:
        """Store JSON-ready `value` with a run card as `results/<name>.json`."""
        path = self.results / f"{name}.json"
        write_json(path, {"run_card": self.run_card(), "result": value})
        return path

    def load_result(self, name: str) -> Any:
        """What `save_result` stored. UserError where there is nothing yet."""
        path = self.results / f"{name}.json"
        stored = read_json(path)
        if stored is None:
            raise UserError(f"{path}: not made yet; run `morelib reproduce --profile {self.profile.name}`")
        return stored["result"]

    def recorded(self, name: str) -> dict[str, Any]:
        """What `make record` kept of other profiles in book/results: profile to the contents of `name`.json."""
        kept = sorted((self.root / "book" / "results").glob(f"*/{name}.json"))
        return {path.parent.name: read_json(path) for path in kept if path.parent.name != self.profile.name}


def evaluation_set(
    config: Mapping[str, Any], run_folder: Path, data_root: Path | None = None, split: str = "test"
) -> "SliceDataset":
    """The slices on which to evaluate the run whose `config.yaml` holds `config`, under its own masks.

    `data_root` replaces the data it was trained on; `split` is `train`, `val`, `test` or `all`. Raises UserError.
    """
    from morelib.data import SliceDataset

    if split not in ("train", "val", "test", "all"):
        raise UserError(f"split {split!r}: there is none; choose train, val, test or all")
    try:
        masks, folder = Masks(**config["mask"]), data_root or Path(config["data_root"])
        profile = replace(load_profile(config["profile"]), split=Split(**config["split"]))
    except (KeyError, TypeError) as error:
        path = run_folder / "config.yaml"
        raise UserError(f"{path}: does not say on which data; train with `morelib train`") from error
    volumes = (
        find_volumes(folder) if split == "all" else Companion(profile, run_folder, folder).splits()[split]
    )
    return SliceDataset(volumes, masks.kinds, masks.acceleration, masks.center_fraction)


def _find_below(root: Path, folder_name: str) -> list[VolumeInfo]:
    """The volumes of every folder of this name at any depth; fastMRI's brain and knee archives have one each."""
    folders = sorted(path for path in root.rglob(folder_name) if path.is_dir())
    return [volume for folder in folders for volume in find_volumes(folder)]


def read_json(path: Path) -> Any:
    """The contents of a JSON file, None if it is missing or unreadable."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
