"""Measurements beside fastMRI's package, taken by turns in one run. Here: reading slices."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
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
from rich.table import Table
from torch.utils.data import DataLoader

from morelib.companion.profile import load_profile
from morelib.data.batches import Loader
from morelib.data.dataset import SliceDataset
from morelib.data.index import find_volumes
from morelib.data.readers import hdf5
from morelib.data.volume import VolumeInfo
from morelib.evaluation.cost import by_turns
from morelib.nn import build_model
from morelib.training import TrainConfig
from morelib.training.fit import train_step

ACCELERATION, CENTER_FRACTION = 8, 0.04
TRAINING_STEPS = 6  # of the smallest network, for each number of workers and repeat
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
    on_part: Callable[[str], None] = lambda part: None,
) -> dict[str, Any]:
    """Slices a second, seconds to the first batch, and how long a training step waits for its batch.

    `folder` receives `files` of noise in the fastMRI layout, with `slices` each of `size` (readout, phase, coils).
    Every number is a median of `repeats` rounds in which all variants take turns. The files were just written, so
    they come from the page cache: what is measured is the software, not the disk. Reading has one thread a process,
    training what PyTorch takes. `on_part` is told what is done next. JSON-ready. Raises RuntimeError where the two
    sides do not read the same.
    """
    on_part("writing files")
    data = folder / "multicoil_train"
    data.mkdir()
    for number in range(files):
        _write(data / f"file{number:05d}.h5", slices, size, number)
    volumes = find_volumes(data)
    on_part("reading")
    with _one_thread():
        first_batch, equal = _first_batch(data, folder, repeats), _compare(data, volumes)
        rates = {str(workers): _throughput(data, volumes, workers, repeats) for workers in (0, 2)}
    on_part("training steps")
    return {
        "files": files,
        "slices": slices,
        "size": list(size),
        "repeats": repeats,
        "page_cache": "warm",
        "first_batch_s": first_batch,
        "equal_slices": equal,
        "slices_per_s": rates,
        "waiting": _waiting(volumes, repeats),
    }


def _write(path: Path, slices: int, size: tuple[int, int, int], seed: int) -> None:
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


def _compare(data: Path, volumes: list[VolumeInfo]) -> int:
    """How many slices are bit for bit the same on both sides, and so all of them."""
    theirs, ours = _fastmri(data, masked=True), _ours(volumes)
    for item in range(len(ours)):
        a, b = theirs[item], ours[item]
        same = torch.equal(a.masked_kspace, torch.view_as_real(b.kspace)) and torch.equal(a.target, b.target)
        if not same or not torch.equal(a.mask.flatten(), b.mask.flatten()):
            raise RuntimeError(f"{b.volume}: slice {b.index} is not what fastmri reads")
    return len(ours)


@contextmanager
def _one_thread() -> Iterator[None]:
    """As worker processes have it; where others use the cores too, threads would wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _throughput(data: Path, volumes: list[VolumeInfo], workers: int, repeats: int) -> dict[str, float]:
    options: dict[str, Any] = {"num_workers": workers, "persistent_workers": workers > 0}
    plain = DataLoader(_fastmri(data, masked=False), batch_size=None, **options)
    masked = DataLoader(_fastmri(data, masked=True), **options)
    ours = Loader(_ours(volumes), shuffle=False, workers=workers)

    def rate(batches: Callable[[], Iterator[Any]]) -> float:
        started = perf_counter()
        count = sum(1 for _ in batches())
        return count / (perf_counter() - started)

    return by_turns(
        {
            PLAIN: lambda: rate(lambda: iter(plain)),
            VARNET: lambda: rate(lambda: iter(masked)),
            OURS: lambda: rate(ours.epoch),
        },
        repeats,
    )


def _first_batch(data: Path, folder: Path, repeats: int) -> dict[str, float]:
    """From nothing to the first batch in the hands of the caller."""
    index, pickled = folder / "index.json", folder / "dataset_cache.pkl"

    def seconds(first: Callable[[], Any]) -> float:
        hdf5._place.cache_clear()  # what a new process would not know
        started = perf_counter()
        first()
        return perf_counter() - started

    def theirs(**options: Any) -> Any:
        return next(iter(DataLoader(_fastmri(data, masked=True, **options))))

    def ours() -> Any:
        return next(Loader(_ours(find_volumes(data, index)), shuffle=False).epoch())

    def forgotten() -> float:
        index.unlink(missing_ok=True)
        return seconds(ours)

    return by_turns(
        {
            "fastmri": lambda: seconds(theirs),
            "fastmri, with its cache": lambda: seconds(
                lambda: theirs(use_dataset_cache=True, dataset_cache_file=pickled)
            ),
            "morelib, the first time": forgotten,
            "morelib, index kept": lambda: seconds(ours),
        },
        repeats,
    )


def _waiting(volumes: list[VolumeInfo], repeats: int) -> dict[str, dict[str, float]]:
    """By number of workers: the share of an epoch spent waiting for batches after the first, and a step's seconds."""
    profile = load_profile("smoke")
    torch.manual_seed(0)
    fabric, config = Fabric(), TrainConfig()
    model = build_model("e2e_varnet", cascades=profile.model.cascades, widths=profile.model.widths,
                        sens_widths=profile.model.sens_widths)  # fmt: skip
    wrapped, optimizer = fabric.setup(model, torch.optim.AdamW(model.parameters(), lr=1e-6))
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
                train_step(fabric, wrapped, optimizer, batch.to(fabric.device), config, 0.0)
                waits.append(arrived - started)
                steps.append(perf_counter() - arrived)
            if epoch and len(waits) > 1:
                rounds[workers].append((sum(waits[1:]) / sum(waits[1:] + steps[1:]), median(steps)))
            next(batches, None)
    return {
        str(workers): {"share": median(w for w, _ in pairs), "step_s": median(s for _, s in pairs)}
        for workers, pairs in rounds.items()
    }


def data_table(result: Mapping[str, Any]) -> Table:
    """What `bench_data` returned, as a table for the terminal."""
    size = "x".join(map(str, result["size"]))
    table = Table(
        title=f"{result['files']} files of {result['slices']} slices {size}; medians of {result['repeats']}",
        caption="Files come from the page cache. Comparisons are with fastmri, masked.",
    )
    for column in ("what", "workers", "variant", "measured", "compared"):
        table.add_column(column, justify="right" if column == "measured" else "left")
    for workers, rates in result["slices_per_s"].items():
        for name, rate in rates.items():
            table.add_row("slices per second", workers, name, f"{rate:.0f}", f"{rate / rates[VARNET]:.1f}x")
    times = result["first_batch_s"]
    for name, seconds in times.items():
        sooner = f"{next(iter(times.values())) / seconds:.1f}x sooner"
        table.add_row("first batch", "0", name, f"{1000 * seconds:.1f} ms", sooner)
    for workers, waited in result["waiting"].items():
        step = f"step {1000 * waited['step_s']:.0f} ms"
        table.add_row("training waits", workers, "morelib", f"{100 * waited['share']:.2f} %", step)
    return table
