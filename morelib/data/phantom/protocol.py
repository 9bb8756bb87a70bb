"""Which scan parameters a volume gets: a row of the fastMRI volume table, drawn as often as it occurs."""

import csv
from dataclasses import dataclass, fields
from functools import cache
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Protocol:
    """Times in ms, flip angle in degrees, field in tesla; phase-encode limits in encoded columns.

    x is the readout, y the phase-encode axis; `recon_*` is the size the scanner reconstructed.
    """

    acquisition: str
    sequence: str
    field_t: float
    tr_ms: float
    te_ms: float
    ti_ms: float
    flip_deg: float
    encoded_y: int
    pe_max: int
    pe_center: int
    scanner: str
    coils: int
    encoded_x: int
    recon_x: int
    recon_y: int

    def limits(self, width: int) -> tuple[int, int]:
        """(center, maximum) of the phase-encode limits scaled from `encoded_y` to `width` columns.

        As fastMRI reads them, columns width // 2 - center to width // 2 - center + maximum are acquired.
        """
        center = min(round(self.pe_center * width / self.encoded_y), width // 2)
        maximum = min(round((self.pe_max + 1) * width / self.encoded_y) - 1, width // 2 + center - 1)
        return center, maximum


@cache
def _table() -> dict[str, tuple[list[Protocol], NDArray[np.float64]]]:
    """Per acquisition its protocols and their frequencies."""
    table: dict[str, tuple[list[Protocol], list[int]]] = {}
    asset = files("morelib.data.phantom").joinpath("assets", "protocols.csv")
    for row in csv.DictReader(asset.read_text(encoding="utf-8").splitlines()):
        protocols, counts = table.setdefault(row["acquisition"], ([], []))
        counts.append(int(row["count"]))
        protocols.append(Protocol(**{f.name: f.type(row[f.name]) for f in fields(Protocol)}))  # type: ignore[operator]
    return {name: (protocols, np.array(counts) / sum(counts)) for name, (protocols, counts) in table.items()}


def draw_protocol(acquisition: str, rng: np.random.Generator) -> Protocol:
    """A protocol of the category, drawn with its real frequency."""
    protocols, frequency = _table()[acquisition]
    return protocols[rng.choice(len(protocols), p=frequency)]
