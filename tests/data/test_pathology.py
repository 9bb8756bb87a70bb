"""Boxes of pathology: written, read back, and refused where they are no boxes."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from morelib.data.pathology import ATTRIBUTE, Box, boxes_text, read_boxes
from morelib.errors import UserError

BOXES = [Box(0, "Mass", 3, 4, 5, 6), Box(2, "Meniscus Tear", 0, 0, 1, 1)]


def write(path: Path, stored: object) -> Path:
    with h5py.File(path, "w") as file:
        if stored is not None:
            file.attrs[ATTRIBUTE] = stored
    return path


@pytest.mark.parametrize("encode", [str, np.bytes_, str.encode])
def test_what_is_written_is_read(tmp_path, encode):
    assert read_boxes(write(tmp_path / "a.h5", encode(boxes_text(BOXES)))) == BOXES
    assert read_boxes(str(write(tmp_path / "b.h5", encode(boxes_text([]))))) == []


def test_a_file_without_boxes_has_none(tmp_path):
    assert read_boxes(write(tmp_path / "a.h5", None)) == []


@pytest.mark.parametrize(
    "stored",
    [
        "",
        "[",
        "7",
        "{}",
        '{"slice": 0}',
        '[{"slice": 0}]',
        "[[0, 1]]",
        "[" * 100_000,
        np.arange(3),
        h5py.Empty("f"),
        boxes_text(BOXES).replace('"x": 3', '"x": -3'),
        boxes_text(BOXES).replace('"x": 3', '"x": 3.5'),
        boxes_text(BOXES).replace('"x": 3', '"x": true'),
        boxes_text(BOXES).replace('"width": 5', '"width": 0'),
        boxes_text(BOXES).replace('"Mass"', "null"),
        boxes_text(BOXES).replace('"slice"', '"plane"'),
    ],
    ids=range(16),
)
def test_malformed_boxes_are_refused_in_one_line(tmp_path, stored):
    path = write(tmp_path / "a.h5", stored if not isinstance(stored, str) else stored[:60_000])
    with pytest.raises(UserError, match="attribute pathology") as caught:
        read_boxes(path)
    assert str(caught.value).startswith(str(path))
    assert len(str(caught.value).splitlines()) == 1


def test_no_file_and_no_hdf5(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        read_boxes(tmp_path / "gone.h5")
    (tmp_path / "text.h5").write_text("not HDF5")
    with pytest.raises(UserError, match="not a readable HDF5"):
        read_boxes(tmp_path / "text.h5")
