"""Files of noise to read, in the fastMRI layout."""

from pathlib import Path

import h5py
import numpy as np

_HEADER = """<?xml version="1.0" encoding="UTF-8"?>
<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD"><encoding>
  <encodedSpace><matrixSize><x>{y}</x><y>{x}</y><z>1</z></matrixSize></encodedSpace>
  <reconSpace><matrixSize><x>{size}</x><y>{size}</y><z>1</z></matrixSize></reconSpace>
  <encodingLimits><kspace_encoding_step_1>
    <minimum>0</minimum><maximum>{last}</maximum><center>{center}</center>
  </kspace_encoding_step_1></encodingLimits>
</encoding></ismrmrdHeader>"""


def noise_files(folder: Path, files: int, size: tuple[int, int, int], slices: int = 1) -> Path:
    """A new folder of `files`, each with `slices` of `size` (readout, phase, coils); the folder."""
    folder.mkdir()
    for number in range(files):
        write_noise(folder / f"file{number:05d}.h5", slices, size, number)
    return folder


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
