"""Where a profile's volumes lie, and how they are divided into train, val and test."""

import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

from morelib.companion.fingerprint import digest, library_hash
from morelib.companion.profile import PhantomData
from morelib.data.index import Index, find_volumes
from morelib.data.manifest import read_manifest
from morelib.data.resolve import resolve
from morelib.data.splits import official_split
from morelib.data.volume import SYNTHETIC, VolumeInfo
from morelib.errors import UserError
from morelib.files import read_json, write_json

DATA_ROOT = "MORE_DATA_ROOT"


def phantom_folder(options: PhantomData, runs: Path) -> Path:
    """`runs`/data with the phantom of these options: made on first use, and again when its recipe has changed."""
    from morelib.data.phantom import make_phantom

    folder, stamp = runs / "data", runs / "data.json"
    # Its bytes also depend on coils (physics) and on how boxes are written (data).
    recipe = {"options": asdict(options), "made_by": library_hash("physics", "data")}
    if not folder.is_dir() or read_json(stamp) != recipe:
        # Made aside and renamed: notebooks started side by side never see half a data set.
        runs.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=runs, prefix=".data-") as aside:
            make_phantom(Path(aside) / "data", **asdict(options))
            stamp.unlink(missing_ok=True)
            shutil.rmtree(folder, ignore_errors=True)
            (Path(aside) / "data").replace(folder)
            write_json(stamp, recipe)
    return folder


def files_folder(root: str | None, profile: str) -> Path:
    """The folder of a profile's real volumes: the environment's MORE_DATA_ROOT, or else `root`. Raises UserError."""
    folder = os.environ.get(DATA_ROOT) or root
    if not folder:
        raise UserError(
            f"profile {profile!r} needs real data: set {DATA_ROOT} to the folder of the extracted archives, or"
            " choose the profile smoke, cpu or gpu"
        )
    if not Path(folder).is_dir():
        raise UserError(f"{folder}: no such folder; set {DATA_ROOT} to that of the extracted archives")
    return Path(folder).resolve()


class Volumes:
    """The volumes below `folder`, divided as a manifest says, or else as `official_split` does.

    Headers are remembered in `index`. A manifest of which a part is missing is used as far as it goes; `describe`
    then says what is missing. Raises UserError for a folder without volumes.
    """

    def __init__(
        self,
        folder: Path,
        fractions: Mapping[str, float],
        seed: int,
        manifest: Path | None = None,
        index: Path | None = None,
    ) -> None:
        self._manifest, self._resolution = manifest, None
        if manifest is None:
            self._splits = official_split(find_volumes(folder, index), fractions, seed)
            return
        with Index(index) as remembered:
            self._resolution = resolve(read_manifest(manifest), [folder], remembered.read)

    def of(self, split: str) -> list[VolumeInfo]:
        """The volumes of one split. Raises UserError where there are none."""
        return self._resolution.volumes(split) if self._resolution else self._splits[split]

    @property
    def splits(self) -> dict[str, list[VolumeInfo]]:
        """All splits. Raises UserError where one of them has no volumes."""
        return self._resolution.splits() if self._resolution else self._splits

    def describe(self) -> str:
        """What a run card says of the data: origin, numbers, manifest, and what of it is missing."""
        everything = [volume for volumes in self.splits.values() for volume in volumes]
        origin = " and ".join(sorted({_IN_WORDS.get(v.origin, f"{v.origin} data") for v in everything}))
        shapes = {(volume.recon, volume.n_coils) for volume in everything}
        if len(shapes) == 1:
            (height, width), coils = shapes.pop()
            origin += f", {height} x {width}, {coils} coils"
        sizes = ", ".join(f"{len(volumes)} {name}" for name, volumes in self.splits.items())
        listed = ""
        if self._manifest is not None and self._resolution is not None:
            listed = f", manifest {self._manifest.stem} {digest(self._manifest.read_text(encoding='utf-8'))}"
            listed += "" if self._resolution.complete else f"; incomplete: {self._resolution.statement()}"
        return f"{origin} ({sizes} volumes{listed})"


_IN_WORDS = {SYNTHETIC: "synthetic phantom", "simulated": "k-space simulated from magnitude images"}
