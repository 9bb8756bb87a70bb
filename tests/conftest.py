"""What the whole suite shares: tiny synthetic files in fastMRI layout, and one run of all notebooks."""

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from morelib.companion.reproduce import Outcome, reproduce

HEADER = """<?xml version="1.0" encoding="UTF-8"?>
<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD">
  <acquisitionSystemInformation>
    <systemFieldStrength_T>2.89</systemFieldStrength_T>
  </acquisitionSystemInformation>
  <encoding>
    <encodedSpace><matrixSize><x>{readout}</x><y>{phase}</y><z>1</z></matrixSize></encodedSpace>
    <reconSpace><matrixSize><x>{size}</x><y>{size}</y><z>1</z></matrixSize></reconSpace>
    <encodingLimits><kspace_encoding_step_1>
      <minimum>0</minimum><maximum>{maximum}</maximum><center>{center}</center>
    </kspace_encoding_step_1></encodingLimits>
    <trajectory>cartesian</trajectory>
  </encoding>
</ismrmrdHeader>"""


def write_fastmri_file(
    path: Path,
    acquisition: str,
    patient: str,
    *,
    slices: int = 2,
    coils: int = 2,
    phase: int = 32,
    size: int = 24,
    empty_columns: int = 2,
    seed: int = 0,
) -> Path:
    """A textured disc seen by `coils` smooth coils; `empty_columns` on each side were never acquired."""
    rng = np.random.default_rng(seed)
    readout = 2 * size
    y, x = np.mgrid[-1 : 1 : readout * 1j, -1 : 1 : phase * 1j]
    disc = ((y * 2) ** 2 + x**2 < 0.8) * (1 + 0.3 * np.sin(9 * x + rng.uniform(0, 6)) * np.cos(14 * y))
    angles = 2 * np.pi * np.arange(coils) / coils
    maps = np.stack(
        [np.exp(-((y - 0.5 * np.sin(a)) ** 2) - (x - np.cos(a)) ** 2 + 1j * (x + a)) for a in angles]
    )
    brightness = (1e-4 * (1 - 0.3 * np.arange(slices) / slices))[:, None, None, None]
    kspace = _fft2c(brightness * maps * disc)
    kspace += 1e-6 * (rng.standard_normal(kspace.shape) + 1j * rng.standard_normal(kspace.shape))
    maximum, center = phase - 2 * empty_columns - 1, phase // 2 - empty_columns
    kspace[..., :empty_columns] = 0
    kspace[..., phase - empty_columns :] = 0
    coil_images = _fft2c(kspace.conj()).conj()
    rss = np.sqrt((np.abs(coil_images) ** 2).sum(1))
    top, left = (readout - size) // 2, (phase - size) // 2
    rss = rss[:, top : top + size, left : left + size].astype(np.float32)
    with h5py.File(path, "w") as file:
        file["kspace"] = kspace.astype(np.complex64)
        file["reconstruction_rss"] = rss
        file["ismrmrd_header"] = HEADER.format(
            readout=readout, phase=phase, size=size, maximum=maximum, center=center
        ).encode()
        file.attrs.update(
            acquisition=acquisition,
            patient_id=patient,
            max=float(rss.max()),
            norm=float(np.linalg.norm(rss)),
            synthetic=True,
        )
    return path


def _fft2c(image: np.ndarray) -> np.ndarray:
    axes = (-2, -1)
    return np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(image, axes), norm="ortho"), axes)


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
