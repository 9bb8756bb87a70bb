"""What a notebook works with: a profile, its data and splits, its training runs and stored results."""

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from morelib.companion.fingerprint import NUMERICAL_ROOMS, digest, library_hash, versions
from morelib.companion.profile import Masks, Profile, Split, load_profile
from morelib.companion.run_card import make_run_card
from morelib.companion.volumes import Volumes, files_folder, phantom_folder
from morelib.data.index import find_volumes
from morelib.data.manifest import manifest_path
from morelib.data.volume import VolumeInfo
from morelib.errors import UserError
from morelib.files import read_json, write_json

if TYPE_CHECKING:
    from torch import nn

    from morelib.data import SliceDataset


class Companion:
    """One profile in one checkout. `root` is the repository; everything made lies in `root/runs/<profile>`.

    `Companion("smoke", "..")` is what the first cell of each notebook makes. `data_root` replaces the profile's
    data by a folder of volumes in any layout, with runs of its own; `manifest` (a name in data_manifests/, or the path
    of a CSV file) says which of them are used. Raises UserError for an unknown profile and for a folder that does not
    exist.
    """

    def __init__(
        self,
        profile: str | Profile = "smoke",
        root: Path | str = "..",
        data_root: Path | str | None = None,
        manifest: str | None = None,
    ) -> None:
        self.profile = load_profile(profile) if isinstance(profile, str) else profile
        self.root = Path(root).resolve()
        self._own_data = None if data_root is None else Path(data_root).resolve()
        self._own_manifest = manifest
        for folder in filter(None, (self.root, self._own_data)):
            if not folder.is_dir():
                raise UserError(f"{folder}: no such folder; check the path")
        suffix = f"-{self._own_data.name}" if self._own_data else ""
        self.runs = self.root / "runs" / (self.profile.name + suffix)
        self.results = self.runs / "results"

    @cached_property
    def data(self) -> Path:
        """The folder of the volumes. A phantom is made on first use, and again when its recipe has changed."""
        source = self.profile.data
        if self._own_data is not None:
            return self._own_data
        if source.phantom is not None:
            return phantom_folder(source.phantom, self.runs)
        assert source.files is not None
        return files_folder(source.files.root, self.profile.name)

    @cached_property
    def manifest(self) -> Path | None:
        """The manifest that says which volumes are used: as given, else the profile's on its own data, or none."""
        source = self.profile.data.files
        name = self._own_manifest or (source.manifest if source and self._own_data is None else None)
        return manifest_path(name, self.root).resolve() if name else None

    @cached_property
    def _volumes(self) -> Volumes:
        split, index = self.profile.split, self.root / "runs" / "index.json"
        return Volumes(self.data, split.fractions, split.seed, self.manifest, index)

    def splits(self) -> dict[str, list[VolumeInfo]]:
        """`train`, `val` and `test` volumes; no patient is in two of them, unless a manifest says so."""
        return self._volumes.splits

    def dataset(self, split: str, *, seed: int = 0, per_category: int | None = None) -> "SliceDataset":
        """The slices of `split` under the profile's masks; those of `train` are drawn anew from `seed` and epoch.

        `per_category`: only so many volumes of each acquisition, the first by name.
        """
        from morelib.data import SliceDataset

        mask, volumes = self.profile.mask, self.splits()[split]
        if per_category is not None:
            groups: dict[str, list[VolumeInfo]] = {}
            for volume in volumes:
                groups.setdefault(volume.acquisition, []).append(volume)
            volumes = [volume for group in groups.values() for volume in group[:per_category]]
        return SliceDataset(
            volumes,
            mask.kinds,
            mask.acceleration,
            mask.center_fraction,
            train=split == "train",
            seed=seed,
            cache=self.profile.data.phantom is not None and self._own_data is None,
        )

    def describe_data(self) -> str:
        """One line for run cards."""
        return self._volumes.describe()

    @property
    def device(self) -> str:
        """`cuda` where there is a GPU, else `cpu`."""
        from morelib.evaluation import best_device

        return best_device()

    def model_options(self, model: str) -> dict[str, Any]:
        """Options with which `build_model(self.profile.network(model), ...)` makes an arm of the profile.

        An arm is an entry of `models`, or any network. UserError for other names.
        """
        from morelib.nn.registry import NETWORKS, options_of

        network = self.profile.network(model)
        if network not in NETWORKS:
            arms = ", ".join(dict.fromkeys((*self.profile.models, *NETWORKS)))
            raise UserError(f"unknown model {network!r}; profile {self.profile.name} has {arms}")
        known = options_of(network)
        shared = {name: value for name, value in asdict(self.profile.model).items() if name in known}
        return shared | self.profile.options(model)

    def run_folder(self, model: str, seed: int) -> Path:
        """Where the training run of arm `model` with `seed` lives."""
        return self.runs / "models" / f"{model}-seed{seed}"

    def train(
        self,
        model: str,
        seed: int,
        *,
        folder: Path | None = None,
        epochs: int | None = None,
        show_progress: bool = True,
    ) -> "nn.Module":
        """Train arm `model`, or resume or load the run there is; the folder is `run_folder(model, seed)` by default.

        A run on the profile's phantom is started afresh where settings or the library's numerical code changed
        since. On other data nothing is thrown away: UserError if the folder's run had other settings.
        """
        from morelib.training import train
        from morelib.training.processes import is_main, main_first

        made_here = folder is None and self._own_data is None and self.profile.data.phantom is not None
        folder = folder or self.run_folder(model, seed)
        config = replace(self.profile.training, seed=seed, epochs=epochs or self.profile.training.epochs)
        network, options = self.profile.network(model), self.model_options(model)
        about = {
            "profile": self.profile.reference,
            "data_root": str(self.data),
            "manifest": str(self.manifest) if self.manifest else None,
            "split": asdict(self.profile.split),
            "mask": asdict(self.profile.mask),
        }
        with main_first():
            if made_here:
                stamp = folder / "made_by.json"
                made_by = digest(
                    network, options, config.to_dict(), about, library_hash(*NUMERICAL_ROOMS), versions()
                )
                if folder.is_dir() and read_json(stamp) != made_by:
                    shutil.rmtree(folder)
                write_json(stamp, made_by)
        started, card = time.monotonic(), folder / "run_card.json"
        train_set, val_set = self.dataset("train", seed=seed), self.dataset("val")
        trained = train(
            network, options, train_set, val_set, config, folder,
            about=about, show_progress=show_progress,
        )  # fmt: skip
        if is_main() and not card.is_file():
            write_json(card, self.run_card([seed], wall_s=time.monotonic() - started))
        return trained

    def trained(self, model: str, seed: int) -> "nn.Module":
        """The network that `train` left, in evaluation mode. UserError where there is none yet."""
        from morelib.training import load_run

        return load_run(self.run_folder(model, seed))[0]

    def trained_seeds(self, model: str) -> list[int]:
        """Those seeds of arm `model` with which it has been trained. UserError where there is none yet."""
        planned = self.profile.seeds_of(model)
        seeds = [s for s in planned if (self.run_folder(model, s) / "weights.safetensors").is_file()]
        if not seeds:
            self.trained(model, planned[0])  # says what to do
        return seeds

    def run_card(self, seeds: Sequence[int] | None = None, **more: Any) -> dict[str, Any]:
        """See `make_run_card`; `seeds` are the profile's unless given."""
        seeds = self.profile.seeds if seeds is None else seeds
        return make_run_card(self.profile.name, self.root, seeds=seeds, data=self.describe_data(), **more)

    def save_result(self, name: str, value: Any) -> Path:
        """Store JSON-ready `value` with a run card as `results/<name>.json`."""
        path = self.results / f"{name}.json"
        write_json(path, {"run_card": self.run_card(), "result": value})
        return path

    def recorded(self, name: str) -> dict[str, Any]:
        """What `make record` kept of other profiles in book/results: profile to the contents of `name`.json."""
        kept = sorted((self.root / "book" / "results").glob(f"*/{name}.json"))
        return {path.parent.name: read_json(path) for path in kept if path.parent.name != self.profile.name}


def evaluation_set(
    config: Mapping[str, Any],
    run_folder: Path,
    data_root: Path | None = None,
    split: str = "test",
    manifest: Path | None = None,
    index: Path | None = None,
) -> "SliceDataset":
    """The slices on which to evaluate the run whose `config.yaml` holds `config`, under its own masks.

    `data_root` replaces the data it was trained on, with `manifest` or, if None, without one; `split` is `train`,
    `val`, `test` or `all`; `index` is a file that remembers headers. Raises UserError.
    """
    from morelib.data import SliceDataset

    if split not in ("train", "val", "test", "all"):
        raise UserError(f"split {split!r}: there is none; choose train, val, test or all")
    try:
        masks, fractions = Masks(**config["mask"]), Split(**config["split"])
        folder = data_root or Path(config["data_root"])
        trained_with = config.get("manifest") if data_root is None else None
    except (KeyError, TypeError) as error:
        path = run_folder / "config.yaml"
        raise UserError(f"{path}: does not say on which data; train with `morelib train`") from error
    manifest = manifest or (Path(trained_with) if trained_with else None)
    if split == "all":
        volumes = find_volumes(folder, index)
    else:
        volumes = Volumes(folder, fractions.fractions, fractions.seed, manifest, index).of(split)
    return SliceDataset(volumes, masks.kinds, masks.acceleration, masks.center_fraction)
