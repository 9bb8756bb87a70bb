"""Reading slices, beside fastMRI's package: how fast, how soon, and how long training waits for it."""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import h5py
import numpy as np
import torch
from fastmri.data import SliceDataset as FastmriSlices
from fastmri.data.subsample import RandomMaskFunc
from fastmri.data.transforms import VarNetDataTransform
from lightning_fabric import Fabric
from torch.utils.data import DataLoader

from morelib.companion.bench.network import OnPart
from morelib.companion.bench.result import FASTER, TIME, Row, compared
from morelib.companion.profile import load_profile
from morelib.data.batches import Loader
from morelib.data.dataset import SliceDataset
from morelib.data.index import find_volumes
from morelib.data.readers import hdf5
from morelib.data.volume import VolumeInfo
from morelib.evaluation.cost import by_turns, seconds
from morelib.nn import build_model
from morelib.training import TrainConfig
from morelib.training.step import TrainStep, new_optimizer

ACCELERATION, CENTER_FRACTION = 8, 0.04
TRAINING_STEPS = 6  # of the smallest network, for each number of workers and repeat
SMALLEST = "the smallest network, profile smoke"
# fastMRI's data set without a transform, and with the one for its VarNet, which masks as ours does.
PLAIN, VARNET, OURS = "fastmri, no mask", "fastmri, masked", "morelib, masked"
_HEADER = """<?xml version="1.0" encoding="UTF-8"?>
<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD"><encoding>
  <encodedSpace><matrixSize><x>{y}</x><y>{x}</y><z>1</z></matrixSize></encodedSpace>
  <reconSpace><matrixSize><x>{size}</x><y>{size}</y><z>1</z></matrixSize></reconSpace>
  <encodingLimits><kspace_encoding_step_1>
    <minimum>0</minimum><maximum>{last}</maximum><center>{center}</center>
  </kspace_encoding_step_1></encodingLimits>
</encoding></ismrmrdHeader>"""


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
    data = folder / "multicoil_train"
    data.mkdir()
    for number in range(files):
        write_noise(data / f"file{number:05d}.h5", slices, size, number)
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
    for workers, (share, step) in _waiting(volumes, repeats).items():
        what = f"waiting for batches, {workers} workers"
        goal = 0.05 if workers else None  # without one nothing reads ahead
        yield Row(what, f"training of {SMALLEST}", TIME, share, at_most=goal, repeats=repeats,
                  times=(share * step, step))  # fmt: skip


def write_noise(path: Path, slices: int, size: tuple[int, int, int], seed: int) -> None:
    """A file of noise in the fastMRI layout, `slices` of `size` (readout, phase, coils)."""
    readout, phase, coils = size
    rng, image = np.random.default_rng(seed), min(readout, phase)
    noise = rng.standard_normal((slices, coils, readout, 2 * phase), dtype=np.float32)
    target = rng.random((slices, image, image), dtype=np.float32)
    header = _HEADER.format(y=readout, x=phase, size=image, last=phase - 1, center=phase // 2)
    with h5py.File(path, "w") as file:
        file["kspace"], file["reconstruction_rss"] = noise.view(np.complex64), target
        file["ismrmrd_header"] = header.encode()
        file.attrs.update(
            acquisition="CORPD_FBK", patient_id=path.stem, max=float(target.max()), synthetic=True
        )


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


def _waiting(volumes: list[VolumeInfo], repeats: int) -> dict[int, tuple[float, float]]:
    """By number of workers: the share of an epoch spent waiting for batches after the first, and a step's seconds."""
    profile = load_profile("smoke")
    torch.manual_seed(0)
    fabric, config = Fabric(), TrainConfig(lr=1e-6)
    model = build_model("e2e_varnet", cascades=profile.model.cascades, widths=profile.model.widths,
                        sens_widths=profile.model.sens_widths)  # fmt: skip
    wrapped, optimizer = fabric.setup(model, new_optimizer(model, config))
    step = TrainStep(fabric, wrapped, optimizer, config)
    few = volumes[: -(-TRAINING_STEPS // volumes[0].n_slices)]
    loaders = {
        workers: Loader(_ours(few, train=True), shuffle=True, workers=workers) for workers in (0, 1, 2)
    }
    rounds: dict[int, list[tuple[float, float]]] = {workers: [] for workers in loaders}
    for epoch in range(repeats + 1):
        for workers, loader in loaders.items():
            batches, waits, steps = loader.epoch(epoch), [], []
            for _ in range(len(loader)):
                started = perf_counter()
                batch = next(batches)
                arrived = perf_counter()
                step(batch.to(fabric.device), tau=0.0, alpha_aux=0.0)
                waits.append(arrived - started)
                steps.append(perf_counter() - arrived)
            if epoch and len(waits) > 1:
                rounds[workers].append((sum(waits[1:]) / sum(waits[1:] + steps[1:]), median(steps)))
            next(batches, None)
    return {
        workers: (median(w for w, _ in pairs), median(s for _, s in pairs))
        for workers, pairs in rounds.items()
    }
