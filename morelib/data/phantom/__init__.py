"""A synthetic multi-coil data set in the fastMRI layout: seven contrasts of one brain and one knee."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from morelib.data.pathology import Box
from morelib.data.phantom.acquire import FINE, Scanner, root_sum_of_squares
from morelib.data.phantom.brain import BrainSubject
from morelib.data.phantom.knee import KneeSubject
from morelib.data.phantom.knee_template import knee_fields
from morelib.data.phantom.matrix import real_matrix, square_matrix
from morelib.data.phantom.protocol import draw_protocol
from morelib.data.phantom.signal import signals
from morelib.data.phantom.write import ismrmrd_header, write_volume
from morelib.errors import UserError

BRAIN = ("AXFLAIR", "AXT1POST", "AXT2", "AXT1", "AXT1PRE")
KNEE = ("CORPDFS_FBK", "CORPD_FBK")
# fastMRI's images peak around this value.
PEAK = 4e-4


def make_phantom(
    out: Path | str,
    *,
    volumes_per_category: int = 8,
    size: int = 160,
    coils: int = 4,
    slices: int = 4,
    seed: int = 0,
    real_headers: bool = False,
    progress: Callable[[int, int, Path], None] | None = None,
) -> list[Path]:
    """Write `volumes_per_category` volumes of each of the seven fastMRI categories to the folder `out`.

    Every brain volume is a subject of its own; a knee subject gives one CORPD_FBK and one CORPDFS_FBK volume.
    The same arguments give the same bytes, and asking for more volumes leaves the first ones as they were.

    Args:
        out: made if missing; files of the same names are replaced.
        volumes_per_category: 1 to 9999.
        size: matrix of the target, even, 32 to 1024; k-space is (slices, coils, 2 * size, size).
        coils: receive loops, 1 to 32.
        slices: per volume, 1 to 64.
        seed: not negative.
        real_headers: give every volume the matrix and coil count of a real fastMRI file with its contrast,
            scanner, field and protocol, drawn together. Matrices are those times size / 320 and coil counts
            those times coils / 28 (at least 2), so that size=320, coils=28 makes the real ones. Volumes then
            differ in shape, and contrast is confounded with scanner, field, coils and matrix as in fastMRI.
        progress: called after every volume with (done, total, path).

    Returns:
        The files written, by category in the order of `BRAIN` and `KNEE`, then by number.

    Raises:
        UserError: an argument is out of range, or the files cannot be written.
    """
    _check(volumes_per_category, size, coils, slices, seed)
    out = Path(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{out}: cannot be made a folder ({error.strerror}); choose another one") from error
    knee_fields()  # computed once, before two threads want it
    paths: list[Path] = []
    # Two threads: numpy and scipy leave the interpreter free most of the time. One BLAS thread each, so that
    # the last bit does not depend on how many there are.
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(2) as pool:
        futures = [
            pool.submit(_write_one, out, category, number, size, coils, slices, seed, real_headers)
            for category in (*BRAIN, *KNEE)
            for number in range(volumes_per_category)
        ]
        try:
            for future in futures:
                paths.append(future.result())
                if progress:
                    progress(len(paths), len(futures), paths[-1])
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return paths


def _write_one(
    out: Path,
    category: str,
    number: int,
    size: int,
    coils: int,
    slices: int,
    seed: int,
    real_headers: bool = False,
) -> Path:
    """Make and write volume `number` of one category."""
    kind = "brain" if category in BRAIN else "knee"
    # Both contrasts of a knee share the subject; the scan is drawn for each volume.
    subject_name = f"brain-{category}" if kind == "brain" else "knee"
    subject_rng = _generator(seed, number, subject_name)
    scan_rng = _generator(seed, number, f"scan-{category}")
    subject = BrainSubject(subject_rng, slices) if kind == "brain" else KneeSubject(subject_rng, slices)
    texture_seed = int(subject_rng.integers(2**32))

    protocol = draw_protocol(category, scan_rng)
    matrix = real_matrix(protocol, size, coils) if real_headers else square_matrix(size, coils)
    scanner = Scanner(protocol, matrix, subject.geometry, scan_rng)
    levels = signals(protocol, scan_rng)
    middle = float(np.mean(subject.offsets))
    planes, boxes = [], []
    for index in range(slices):
        offset = float(subject.offsets[index])
        tissue = subject.slice(offset, scanner.grid, np.random.default_rng([texture_seed, index]))
        planes.append(scanner.kspace(tissue, levels, offset - middle, scan_rng))
        for found in tissue.findings:
            if rectangle := matrix.to_target(found.rows, found.columns, FINE):
                boxes.append(Box(index, found.label, *rectangle))
    kspace = np.stack(planes)
    target = np.stack([root_sum_of_squares(plane, matrix.target) for plane in kspace])
    factor = np.float32(PEAK * scan_rng.uniform(0.5, 2.0) / target.max())
    path = out / f"file_{kind}_{category}_phantom_{number:04d}.h5"
    patient = f"phantom-{seed}-{subject_name}-{number:04d}"
    header = ismrmrd_header(protocol, matrix, slices, subject.geometry)
    write_volume(path, kspace * factor, target * factor, header, category, patient, boxes)
    return path


def _generator(seed: int, number: int, name: str) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence([seed, number, *name.encode()]))


def _check(volumes_per_category: int, size: int, coils: int, slices: int, seed: int) -> None:
    for name, value, low, high in (
        ("volumes_per_category", volumes_per_category, 1, 9999),
        ("size", size, 32, 1024),
        ("coils", coils, 1, 32),
        ("slices", slices, 1, 64),
        ("seed", seed, 0, 2**63 - 1),
    ):
        if not low <= value <= high:
            raise UserError(f"{name}: {value} is out of range; choose {low} to {high}")
    if size % 2:
        raise UserError(f"size: {size} is odd; choose an even number such as {size + 1}")


__all__ = ["BRAIN", "KNEE", "make_phantom"]
