"""Profiles: one YAML file each, from a check on two CPU cores (`smoke`) to the paper's experiment (`paper`).

Every profile runs the same code and notebooks; only these numbers differ.
"""

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from importlib.resources import files
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

import yaml

from morelib.data.dataset import OTHER
from morelib.errors import UserError
from morelib.training.config import TrainConfig


@dataclass(frozen=True)
class PhantomData:
    """Synthetic volumes; the arguments of `morelib.data.phantom.make_phantom`."""

    volumes_per_category: int
    size: int
    coils: int
    slices: int
    seed: int
    real_headers: bool = False


@dataclass(frozen=True)
class FileData:
    """Real volumes in any layout.

    `root` holds them at any depth; None means the environment variable MORE_DATA_ROOT. `manifest`, a name in
    data_manifests/ or the path of a CSV file, says which are used; None: all, divided as the data set itself does.
    """

    root: str | None
    manifest: str | None


@dataclass(frozen=True)
class DataSource:
    """Exactly one of the two is given."""

    phantom: PhantomData | None = None
    files: FileData | None = None

    def __post_init__(self) -> None:
        if (self.phantom is None) == (self.files is None):
            raise UserError("data: give exactly one of phantom and files")


@dataclass(frozen=True)
class Split:
    """Fractions of the volumes of each category, and the seed that deals them out."""

    train: float
    val: float
    test: float
    seed: int

    @property
    def fractions(self) -> dict[str, float]:
        """As `split_by_patient` takes them."""
        return {"train": self.train, "val": self.val, "test": self.test}


@dataclass(frozen=True)
class Masks:
    """Mask kind by anatomy (names of `morelib.physics.masks.MASKS`), nominal acceleration, centre fraction.

    Anatomies other than the knee, such as the heart, are sampled like the brain.
    """

    brain: str
    knee: str
    acceleration: int
    center_fraction: float

    @property
    def kinds(self) -> dict[str, str]:
        """Mask kind by anatomy."""
        return {"brain": self.brain, "knee": self.knee, OTHER: self.brain}


@dataclass(frozen=True)
class NetworkSize:
    """The options that networks share: each is given to those that know it."""

    cascades: int
    widths: tuple[int, ...]
    sens_widths: tuple[int, ...]


@dataclass(frozen=True)
class Evaluation:
    """Resamplings behind each 95 % interval."""

    bootstrap_samples: int


@dataclass(frozen=True)
class Profile:
    """A parsed profile; see `morelib/companion/profiles/*.yaml`."""

    reference: str  # what `load_profile` takes: the name of a shipped profile, or the path of another file
    name: str
    description: str
    data: DataSource
    split: Split
    mask: Masks
    model: NetworkSize
    models: dict[str, dict[str, Any]]  # by arm: options of `build_model`, the arm's `network`, its `seeds`
    seeds: tuple[int, ...]
    training: TrainConfig
    evaluation: Evaluation

    def __post_init__(self) -> None:
        for arm, options in self.models.items():
            if "seeds" in options:
                _parse(tuple[int, ...], options["seeds"], f"models.{arm}.seeds")

    def network(self, arm: str) -> str:
        """The network that `arm` trains: what its entry in `models` says, else the one of its own name.

        So one network may be trained several times, with other options: a dense one as large as MoRE, say.
        """
        return str(self.models.get(arm, {}).get("network", arm))

    def options(self, arm: str) -> dict[str, Any]:
        """The options of `build_model` that are the arm's own."""
        own = self.models.get(arm, {})
        return {name: value for name, value in own.items() if name not in ("network", "seeds")}

    def seeds_of(self, arm: str) -> tuple[int, ...]:
        """The seeds with which `arm` is trained: what its entry in `models` says, else those of the profile."""
        return tuple(self.models.get(arm, {}).get("seeds", self.seeds))


def _folder() -> Path:
    return Path(str(files("morelib.companion") / "profiles"))


def profile_names() -> list[str]:
    """Names of the profiles shipped with the package."""
    return sorted(path.stem for path in _folder().glob("*.yaml"))


def profile_path(name: str) -> Path:
    """The YAML file of profile `name`, which may also be a path to one. UserError if there is none."""
    path = Path(name) if name.endswith((".yaml", ".yml")) else _folder() / f"{name}.yaml"
    if not path.is_file():
        raise UserError(f"profile {name!r}: there is none; the profiles are {', '.join(profile_names())}")
    return path


def load_profile(name: str) -> Profile:
    """Read profile `name`. UserError names file and key where one is unknown, missing or of the wrong type."""
    path = profile_path(name)
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not valid YAML ({' '.join(str(error).split())})") from error
    try:
        reference = path.stem if path.parent == _folder() else str(path.resolve())
        return _parse(
            Profile, {"reference": reference, "name": path.stem, **_mapping(values, "the file")}, ""
        )
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def _mapping(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise UserError(f"{where} must be a list of `key: value` lines")
    return value


def _parse(kind: Any, value: Any, where: str) -> Any:
    """`value`, as YAML gave it, as a `kind`: a dataclass, a number, a string, or a container of these."""
    if kind is Any:
        return value
    if is_dataclass(kind):
        return _parse_dataclass(kind, _mapping(value, where), where)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is UnionType:  # X | None
        (inner,) = (argument for argument in arguments if argument is not NoneType)
        return None if value is None else _parse(inner, value, where)
    if origin is tuple and isinstance(value, list) and value:
        return tuple(_parse(arguments[0], item, where) for item in value)
    if origin is dict and isinstance(value, Mapping):
        return {str(key): _parse(arguments[1], item, f"{where}.{key}") for key, item in value.items()}
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is kind:
        return value
    expected = "a list" if origin is tuple else "a mapping" if origin is dict else f"of type {kind.__name__}"
    raise UserError(f"{where} is {value!r}; it must be {expected}")


def _parse_dataclass(kind: Any, values: Mapping[str, Any], where: str) -> Any:
    types, prefix = get_type_hints(kind), f"{where}." if where else ""
    if unknown := sorted(str(key) for key in set(values) - set(types)):
        raise UserError(f"unknown key {prefix}{unknown[0]}; known keys are {', '.join(types)}")
    required = [field.name for field in fields(kind) if field.default is MISSING]
    if missing := [name for name in required if name not in values]:
        raise UserError(f"key {prefix}{missing[0]} is missing")
    return kind(**{name: _parse(types[name], value, prefix + name) for name, value in values.items()})
