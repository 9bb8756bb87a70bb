"""Many files: how soon a run starts on them, and whether a slice costs more among many than among few."""

import os
from collections import deque
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path

from morelib.companion.bench.network import OnPart
from morelib.companion.bench.noise import write_noise
from morelib.companion.bench.result import FASTER, MEMORY, TIME, Row, compared
from morelib.data.batches import Loader
from morelib.data.dataset import SliceDataset
from morelib.data.index import find_volumes
from morelib.evaluation.cost import by_turns, seconds

FEW, READ = 100, 100  # volumes to compare with; slices read in each round, every one from another volume
EPOCHS = 5
START = "start-up, index kept"
_STATM = Path("/proc/self/statm")


def bench_scale(
    folder: Path, *, files: int = 10_000, repeats: int = 5, on_part: OnPart = lambda part: None
) -> Iterator[Row]:
    """Start-up on `files` files, the cost of a slice among them, and memory over epochs.

    `folder` receives one small file of noise under so many names. Start-up is everything from the name of the folder
    to a loader that is ready: headers, checks of masks, buckets; without the time that Python takes to import.
    """
    on_part(f"writing {files} files")
    few, many = folder / "few", folder / "many"
    _fill(few, min(FEW, files))
    _fill(many, files)
    index = folder / "index.json"

    start = partial(_loader, many, index, batch_size=2)

    def first_time() -> float:
        index.unlink(missing_ok=True)
        return seconds(start)

    on_part(f"start-up on {files} files")
    took = by_turns({"first time": first_time, START: lambda: seconds(start)}, repeats)
    pair = took[START], took["first time"]
    yield Row(f"{START}, {files} files", "", "s", took[START], at_most=2.0, repeats=repeats)
    yield compared(f"{START}, {files} files", "the first time", pair, FASTER, repeats)

    on_part("reading slices")
    loaders = {each.name: _loader(each, folder / f"{each.name}.json") for each in (few, many)}
    took = by_turns({name: partial(_reading, loader) for name, loader in loaders.items()}, repeats)
    what, against = f"a slice among {files} volumes", f"among {min(FEW, files)}"
    yield compared(what, against, (took["many"], took["few"]), TIME, repeats, at_most=1.1)

    if _STATM.is_file():
        on_part("memory over epochs")
        held = [_resident_after(loaders["few"], epoch) for epoch in range(1 + EPOCHS)]
        what, against = f"memory of the process after {EPOCHS} more epochs", "after the first"
        yield Row(what, against, MEMORY, held[-1] / held[0], at_most=1.01)


def _fill(folder: Path, files: int) -> None:
    """One file of noise, by hard links under `files` names."""
    folder.mkdir()
    first = folder / "file00000.h5"
    write_noise(first, 1, (48, 40, 2), seed=0)
    for number in range(1, files):
        os.link(first, folder / f"file{number:05d}.h5")


def _loader(folder: Path, index: Path, batch_size: int = 1) -> Loader:
    dataset = SliceDataset(find_volumes(folder, index), "equispaced", 4, 0.1)
    return Loader(dataset, shuffle=True, batch_size=batch_size)


def _reading(loader: Loader) -> float:
    """Of READ slices after the first, which bears the cost of shuffling an epoch."""
    batches = loader.epoch()
    next(batches)
    return seconds(lambda: deque(islice(batches, READ), maxlen=0))


def _resident_after(loader: Loader, epoch: int) -> int:
    deque(loader.epoch(epoch), maxlen=0)
    return int(_STATM.read_text().split()[1])
