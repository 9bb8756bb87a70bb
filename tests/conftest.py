"""What the whole suite shares: tiny synthetic files in fastMRI layout, and one run of all notebooks."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from morelib.companion.reproduce import Outcome, reproduce
from tests.data.fixtures import write_fastmri_file
from tests.pair import Pair, pair_of, torchrun


@pytest.fixture(scope="session")
def smoke() -> tuple[list[Outcome], Path]:
    """What `make reproduce` gives: the outcome of every chapter, and the book's start page.

    It runs in the repository itself, so that the command and the tests share what was already run.
    """
    return reproduce("smoke", Path(__file__).parents[1])


@pytest.fixture(scope="session")
def write_file() -> Callable[..., Path]:
    """`write_fastmri_file`, for tests that need files of their own."""
    return write_fastmri_file


@pytest.fixture(scope="session")
def fastmri_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 14 files, 2 per category of the paper's Table I, 2 slices each; do not write into it.

    Brains: 2 coils, k-space 48x32, target 24x24, one patient per file. Knees: 3 coils, k-space 50x33, target
    25x25; each of the 2 patients has one CORPD_FBK and one CORPDFS_FBK file.
    """
    folder = tmp_path_factory.mktemp("fastmri")
    for kind, acquisition in enumerate(("AXFLAIR", "AXT1POST", "AXT2", "AXT1", "AXT1PRE")):
        for number in range(2):
            name = f"file_brain_{acquisition}_{number:04d}.h5"
            write_fastmri_file(folder / name, acquisition, f"brain-{kind}-{number}", seed=10 * kind + number)
    for kind, acquisition in enumerate(("CORPDFS_FBK", "CORPD_FBK")):
        for number in range(2):
            path = folder / f"file10000{kind}{number}.h5"
            write_fastmri_file(
                path,
                acquisition,
                f"knee-{number}",
                coils=3,
                phase=33,
                size=25,
                empty_columns=1,
                seed=100 + kind,
            )
    return folder


@pytest.fixture(scope="session")
def pair() -> Iterator[Pair]:
    """Two processes as torchrun starts them, the same for all tests: starting them takes longer than most tests."""
    with pair_of(torchrun) as pair:
        yield pair
