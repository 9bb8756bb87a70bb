"""Ten thousand reads leave memory and open files as they were."""

import gc
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from morelib.data.batches import Loader
from morelib.data.dataset import SliceDataset
from morelib.data.readers import read_info

STATM = Path("/proc/self/statm")


def _resident_mb() -> float:
    gc.collect()
    return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def _open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.skipif(not STATM.is_file(), reason="reads memory from /proc")
def test_memory_is_flat_over_ten_thousand_reads(tmp_path: Path, write_file: Callable[..., Path]) -> None:
    paths = [write_file(tmp_path / f"{number}.h5", "AXT2", "anna", slices=20) for number in range(5)]
    volumes = [read_info(path) for path in paths]
    loaders = [
        Loader(SliceDataset(volumes, acceleration=4, center_fraction=0.1, train=train), shuffle=train)
        for train in (True, False)
    ]

    def read(first_epoch: int, last_epoch: int) -> None:
        for epoch in range(first_epoch, last_epoch):
            for loader in loaders:
                for _ in loader.epoch(epoch):
                    pass

    read(0, 5)  # what is remembered of files is now remembered
    memory, files = _resident_mb(), _open_files()
    read(5, 55)
    assert _resident_mb() - memory < 5  # one slice in fifty, kept, would be more: 24 KB each
    assert _open_files() == files
