"""Which readouts of an ISMRMRD raw file are lines of the image, and where in k-space each goes.

Kept are image lines: no noise, navigator, phase-correction, feedback or dummy scans, and no calibration lines unless
they are image lines too or the header calls them embedded. Of several repetitions, contrasts, sets or phases the
first is kept. A line goes where its counters and the header's centres say, in fastMRI's layout: the centre at
n // 2, readout oversampling kept, places never measured zero.

Files that GE's converter made for mridata.org differ in two ways: lines beyond the header's limit are calibration
scans of fast spin echo, without a flag; and the user parameters ChopY, ChopZ = 0 tell that every other line has still
to change its sign.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ismrmrd
import numpy as np
from numpy.typing import NDArray

from morelib.data.readers.ismrmrd_header import Header, header_number, header_text
from morelib.errors import UserError

LARGEST = 4096  # samples along an axis; more is a damaged header
NOT_IMAGING = (
    ismrmrd.ACQ_IS_NOISE_MEASUREMENT,
    ismrmrd.ACQ_IS_NAVIGATION_DATA,
    ismrmrd.ACQ_IS_PHASECORR_DATA,
    ismrmrd.ACQ_IS_HPFEEDBACK_DATA,
    ismrmrd.ACQ_IS_DUMMYSCAN_DATA,
    ismrmrd.ACQ_IS_RTFEEDBACK_DATA,
    ismrmrd.ACQ_IS_SURFACECOILCORRECTIONSCAN_DATA,
    ismrmrd.ACQ_IS_PHASE_STABILIZATION_REFERENCE,
    ismrmrd.ACQ_IS_PHASE_STABILIZATION,
)
SAME_FOR_ALL = ("number_of_samples", "active_channels", "discard_pre", "discard_post", "center_sample")


@dataclass(frozen=True)
class Lines:
    """The image lines of a file. `numbers` (line,) count its readouts; the next four say where each line goes.

    `partitions` lie along the second phase encode of 3-D files (`depth` of them), `columns` along the first (`width`);
    of a stored readout the samples `keep` go to `rows` of `height`. `recon` is the header's image size (h, w, z).
    """

    numbers: NDArray[np.int64]
    slabs: NDArray[np.int64]
    partitions: NDArray[np.int64]
    columns: NDArray[np.int64]
    signs: NDArray[np.int64]
    n_coils: int
    height: int
    width: int
    depth: int
    keep: slice
    rows: slice
    recon: tuple[int, int, int]

    @property
    def sampled(self) -> NDArray[np.bool_]:
        """Which places have a line: (slab, partition, column)."""
        sampled = np.zeros((int(self.slabs.max()) + 1, self.depth, self.width), bool)
        sampled[self.slabs, self.partitions, self.columns] = True
        return sampled


def image_lines(heads: NDArray[Any], header: Header, path: Path) -> Lines:
    """Sort the readouts, given their `heads` (the package's `acquisition_header_dtype`). Raises UserError."""
    numbers, encoding = _imaging(heads, header, path)
    heads = heads[numbers]
    for field in SAME_FOR_ALL:
        if len(np.unique(heads[field])) > 1:
            raise UserError(
                f"{path}: its image lines differ in {field}; leave it out, or convert each scan apart"
            )

    def size(query: str) -> int:
        number = header_number(encoding, path, query, 1)
        if number > LARGEST:
            raise UserError(f"{path}: {query} is {number} in its header, which cannot be; check the header")
        return number

    def position(step: str, length: int) -> NDArray[np.int64]:
        centre = f"encodingLimits/kspace_encoding_step_{step}/center"
        known = header_text(encoding, centre) is not None
        counter = heads["idx"][f"kspace_encode_step_{step}"].astype(np.int64)
        placed = counter - (header_number(encoding, path, centre) if known else length // 2) + length // 2
        if placed.min() < 0 or placed.max() >= length:
            raise UserError(f"{path}: phase-encode lines lie outside the header's {length}; check the header")
        return placed

    is_3d = len(np.unique(heads["idx"]["kspace_encode_step_2"])) > 1
    width, depth = size("encodedSpace/matrixSize/y"), size("encodedSpace/matrixSize/z") if is_3d else 1
    columns = position("1", width)
    slabs = np.unique(heads["idx"]["slice"], return_inverse=True)[1].astype(np.int64)
    if (int(slabs.max()) + 1) * depth * width > 100 * len(numbers):
        raise UserError(
            f"{path}: holds {len(numbers)} image lines of {depth} x {width} per slice; check the file"
        )
    keep, rows, height = _readout(heads[0], size("encodedSpace/matrixSize/x"), path)
    return Lines(
        numbers=numbers,
        slabs=slabs,
        partitions=position("2", depth) if is_3d else np.zeros_like(columns),
        columns=columns,
        signs=_signs(heads, header),
        n_coils=int(heads["active_channels"][0]),
        height=height,
        width=width,
        depth=depth,
        keep=keep,
        rows=rows,
        recon=(
            min(size("reconSpace/matrixSize/x"), height),
            min(size("reconSpace/matrixSize/y"), width),
            min(size("reconSpace/matrixSize/z"), depth),
        ),
    )


def _imaging(heads: NDArray[Any], header: Header, path: Path) -> tuple[NDArray[np.int64], Header]:
    """The numbers of the image lines, and their encoding in the header."""

    def flagged(*flags: int) -> NDArray[np.bool_]:
        return (heads["flags"] & np.uint64(sum(1 << (flag - 1) for flag in flags))) != 0

    imaging = ~flagged(*NOT_IMAGING)
    encodings = header.findall("{*}encoding")
    used = np.unique(heads["encoding_space_ref"][imaging])
    if len(used) != 1 or used[0] >= len(encodings):
        raise UserError(
            f"{path}: its {int(imaging.sum())} image lines use {len(used)} of the header's {len(encodings)} encodings,"
            " expected one; convert each scan apart"
        )
    encoding = encodings[used[0]]
    if (trajectory := header_text(encoding, "trajectory") or "cartesian") != "cartesian":
        raise UserError(
            f"{path}: its trajectory is {trajectory[:40]}; only cartesian files can be read, leave it out"
        )
    if header_text(encoding, "parallelImaging/calibrationMode") != "embedded":
        calibration = flagged(ismrmrd.ACQ_IS_PARALLEL_CALIBRATION)
        imaging &= ~calibration | flagged(ismrmrd.ACQ_IS_PARALLEL_CALIBRATION_AND_IMAGING)
    limit = "encodingLimits/kspace_encoding_step_1/maximum"
    if header_text(encoding, limit) is not None:
        imaging &= heads["idx"]["kspace_encode_step_1"] <= header_number(encoding, path, limit)
    if bool((imaging & flagged(ismrmrd.ACQ_IS_REVERSE)).any()):
        raise UserError(
            f"{path}: has reversed readouts (echo-planar), which need a phase correction; leave it out"
        )
    for counter in ("repetition", "contrast", "set", "phase"):
        values = heads["idx"][counter]
        imaging &= values == values[imaging].min(initial=np.iinfo(values.dtype).max)
    if not imaging.any():
        raise UserError(f"{path}: none of its {len(heads)} readouts is an image line; give another file")
    return np.flatnonzero(imaging), encoding


def _readout(head: NDArray[Any], encoded: int, path: Path) -> tuple[slice, slice, int]:
    """Which samples of a readout to keep, the rows they go to, and of how many.

    A readout that fills the encoded matrix is taken as it is: an echo off the middle only adds a phase to the image.
    A shorter one (partial echo) is put with its centre sample at n // 2.
    """
    first, last = int(head["discard_pre"]), int(head["number_of_samples"]) - int(head["discard_post"])
    height = max(encoded, last - first)
    start = height // 2 - (int(head["center_sample"]) - first) if last - first < encoded else 0
    if last <= first or head["active_channels"] < 1 or not 0 <= start <= height - (last - first):
        raise UserError(
            f"{path}: readouts of {head['number_of_samples']} samples (centre {head['center_sample']}) from"
            f" {head['active_channels']} coils do not fit the header's {encoded}; check the file"
        )
    return slice(first, last), slice(start, start + last - first), height


def _signs(heads: NDArray[Any], header: Header) -> NDArray[np.int64]:
    """-1 for lines whose sign the scanner changed, if the header says that this was left in the data."""
    turns = np.zeros(len(heads), np.int64)
    for parameter in header.findall("{*}userParameters/{*}userParameterLong"):
        step = {"ChopY": "1", "ChopZ": "2"}.get(header_text(parameter, "name") or "")
        if step and header_text(parameter, "value") == "0":
            turns += heads["idx"][f"kspace_encode_step_{step}"]
    return 1 - 2 * (turns % 2)
