"""Reading slices, beside fastMRI's package: how fast, how soon, and how long training waits for it."""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from fastmri.data import SliceDataset as FastmriSlices
from fastmri.data.subsample import RandomMaskFunc
from fastmri.data.transforms import VarNetDataTransform
from torch.utils.data import DataLoader

from morelib.companion.bench.network import OnPart
from morelib.companion.bench.noise import noise_files
from morelib.companion.bench.result import FASTER, Row, compared
from morelib.companion.bench.training import waiting
from morelib.data.batches import Loader
from morelib.data.dataset import SliceDataset
from morelib.data.index import find_volumes
from morelib.data.readers import hdf5
from morelib.data.volume import VolumeInfo
from morelib.evaluation.cost import by_turns, seconds

ACCELERATION, CENTER_FRACTION = 8, 0.04
# fastMRI's data set without a transform, and with the one for its VarNet, which masks as ours does.
PLAIN, VARNET, OURS = "fastmri, no mask", "fastmri, masked", "morelib, masked"


def bench_data(
    folder: Path,
    *,
    files: int = 100,
    slices: int = 1,
    size: tuple[int, int, int] = (640, 320, 4),
    repeats: int = 5,
    on_part: OnPart = lambda part: None,
) -> Iterator[Row]:
    """Slices a second, time to the first batch, and the share of training that is spent waiting for a batch.

    `folder` receives `files` of noise in the fastMRI layout, with `slices` each of `size` (readout, phase, coils).
    All variants take turns. The files were just written, so they come from the page cache: what is measured is the
    software, not the disk. Reading has one thread a process, training what PyTorch takes. Raises RuntimeError where
    the two sides do not read the same.
    """
    on_part("writing files")
    data = noise_files(folder / "multicoil_train", files, size, slices)
    volumes = find_volumes(data)
    with _one_thread():
        on_part("comparing slices")
        _compare(data, volumes)
        on_part("reading the first batch")
        yield from _first_batch(data, folder, repeats)
        for workers in (0, 2):
            on_part(f"reading with {workers} workers")
            yield from _reading(data, volumes, workers, repeats)
    on_part("training steps")
    yield from waiting(volumes, repeats)


def _ours(volumes: list[VolumeInfo], train: bool = False) -> SliceDataset:
    return SliceDataset(volumes, "random", ACCELERATION, CENTER_FRACTION, train=train)


def _fastmri(data: Path, masked: bool, **options: Any) -> FastmriSlices:
    transform = VarNetDataTransform(RandomMaskFunc([CENTER_FRACTION], [ACCELERATION])) if masked else None
    return FastmriSlices(data, "multicoil", transform, **options)


def _compare(data: Path, volumes: list[VolumeInfo]) -> None:
    """RuntimeError unless all slices are bit for bit the same on both sides."""
    theirs, ours = _fastmri(data, masked=True), _ours(volumes)
    for item in range(len(ours)):
        a, b = theirs[item], ours[item]
        same = torch.equal(a.masked_kspace, torch.view_as_real(b.kspace)) and torch.equal(a.target, b.target)
        if not same or not torch.equal(a.mask.flatten(), b.mask.flatten()):
            raise RuntimeError(f"{b.volume}: slice {b.index} is not what fastmri reads")


@contextmanager
def _one_thread() -> Iterator[None]:
    """As worker processes have it; where others use the cores too, threads would wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _reading(data: Path, volumes: list[VolumeInfo], workers: int, repeats: int) -> Iterator[Row]:
    options: dict[str, Any] = {"num_workers": workers, "persistent_workers": workers > 0}
    plain = DataLoader(_fastmri(data, masked=False), batch_size=None, **options)
    masked = DataLoader(_fastmri(data, masked=True), **options)
    ours = Loader(_ours(volumes), shuffle=False, workers=workers)
    epochs: dict[str, Callable[[], Iterator[Any]]] = {
        PLAIN: lambda: iter(plain),
        VARNET: lambda: iter(masked),
        OURS: ours.epoch,
    }

    def read(epoch: Callable[[], Iterator[Any]]) -> float:
        return seconds(lambda: deque(epoch(), maxlen=0))

    took = by_turns({name: partial(read, epoch) for name, epoch in epochs.items()}, repeats)
    for against in (VARNET, PLAIN):
        what = f"reading slices, {OURS}, {workers} workers"
        yield compared(what, against, (took[OURS], took[against]), FASTER, repeats)


def _first_batch(data: Path, folder: Path, repeats: int) -> Iterator[Row]:
    """From nothing to the first batch in the hands of the caller."""
    index, pickled = folder / "index.json", folder / "dataset_cache.pkl"

    def start(first: Callable[[], Any]) -> float:
        hdf5._place.cache_clear()  # what a new process would not know
        return seconds(first)

    def theirs(**options: Any) -> Any:
        return next(iter(DataLoader(_fastmri(data, masked=True, **options))))

    def ours() -> Any:
        return next(Loader(_ours(find_volumes(data, index)), shuffle=False).epoch())

    def forgotten() -> float:
        index.unlink(missing_ok=True)
        return start(ours)

    took = by_turns(
        {
            "fastmri": lambda: start(theirs),
            "fastmri, with its cache": lambda: start(
                lambda: theirs(use_dataset_cache=True, dataset_cache_file=pickled)
            ),
            "the first time": forgotten,
            "index kept": lambda: start(ours),
        },
        repeats,
    )
    for ours_, against in (("the first time", "fastmri"), ("index kept", "fastmri, with its cache")):
        yield compared(f"first batch, {ours_}", against, (took[ours_], took[against]), FASTER, repeats)
