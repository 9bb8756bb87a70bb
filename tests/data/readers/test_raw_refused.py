"""ISMRMRD raw files that are not read: each is refused in one line."""

from collections.abc import Callable
from pathlib import Path

import h5py
import ismrmrd
import numpy as np
import pytest

from morelib.data.readers import read_info
from morelib.errors import UserError
from tests.data.fixtures_raw import replace, two_encodings, write_raw_file

Acquisition = ismrmrd.Acquisition


def odd_lines(field: str, value: int) -> Callable[[Acquisition], None]:
    def edit(line: Acquisition) -> None:
        if line.idx.kspace_encode_step_1 % 2:
            setattr(line, field, value)

    return edit


def every(field: str, value: int) -> Callable[[Acquisition], None]:
    return lambda line: setattr(line, field, value)


def flag_all(flag: int) -> Callable[[Acquisition], None]:
    return lambda line: line.setFlag(flag)


REFUSED: dict[str, tuple[dict[str, object], str]] = {
    "radial": ({"header": replace(">cartesian<", ">radial<")}, "trajectory is radial"),
    "echo-planar": ({"header": replace(">cartesian<", ">epi<")}, "trajectory is epi"),
    "reversed": ({"edit": flag_all(ismrmrd.ACQ_IS_REVERSE)}, "reversed readouts"),
    "two encodings": ({"header": two_encodings, "edit": odd_lines("encoding_space_ref", 1)}, "use 2 of the header's 2"),
    "no such encoding": ({"edit": odd_lines("encoding_space_ref", 4)}, "encodings, expected one"),
    "no image": ({"edit": flag_all(ismrmrd.ACQ_IS_NOISE_MEASUREMENT)}, "0 image lines"),
    "only calibration": ({"edit": flag_all(ismrmrd.ACQ_IS_PARALLEL_CALIBRATION)}, "none of its 57 readouts"),
    "centres differ": ({"edit": odd_lines("center_sample", 3)}, "differ in center_sample"),
    "all discarded": ({"edit": every("discard_pre", 48)}, "do not fit the header's 48"),
    "no room": ({"header": replace("<x>48</x>", "<x>400</x>"), "edit": every("center_sample", 999)}, "header's 400"),
    "no matrix": ({"header": replace("<y>32</y>", "")}, "no whole number from 1 at encodedSpace/matrixSize/y"),
    "negative image": ({"header": replace("<x>24</x>", "<x>-24</x>")}, "no whole number from 1 at reconSpace"),
    "absurd matrix": ({"header": replace("<x>48</x>", "<x>999999</x>")}, "which cannot be"),
    "sparse matrix": ({"header": replace("<y>32</y>", "<y>4000</y>")}, "image lines of"),
    "small matrix": ({"header": replace("<y>32</y>", "<y>20</y>")}, "outside the header's 20"),
    "document type": ({"header": replace("<ismrmrdH", '<!DOCTYPE a [<!ENTITY b "c">]><ismrmrdH')}, "document type"),
    "no XML": ({"header": lambda text: text[:400]}, "not valid XML"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_read_is_refused_in_one_line(case: str, tmp_path: Path) -> None:
    path = tmp_path / "scan.h5"
    options, expected = REFUSED[case]
    write_raw_file(path, **options)
    with pytest.raises(UserError, match=expected) as error:
        read_info(path)
    message = str(error.value)
    assert str(path) in message and ";" in message and "\n" not in message


def test_tables_of_another_kind_are_refused(tmp_path: Path) -> None:
    other = np.zeros(3, [("head", [("flags", "u8")]), ("data", "f4")])
    tables = (np.zeros(4), other, np.zeros((2, 2), other.dtype), np.zeros(0, other.dtype))
    for number, table in enumerate(tables):
        write_raw_file(tmp_path / f"{number}.h5")
        with h5py.File(tmp_path / f"{number}.h5", "a") as file:
            del file["dataset/data"]
            file["dataset/data"] = table
        with pytest.raises(UserError, match=rf"{number}\.h5: .*;"):
            read_info(tmp_path / f"{number}.h5")
