"""Boxes around pathology, as fastMRI+ has them: slice, label, corner and size in pixels of the target."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from morelib.data.readers.hdf5 import open_hdf5, text_of
from morelib.errors import UserError

# The HDF5 attribute that holds a volume's boxes: a JSON list of objects with the fields of `Box`.
ATTRIBUTE = "pathology"


@dataclass(frozen=True)
class Box:
    """`x` and `y` are the first column and row inside; rows count downwards from the top of the target.

    Labels are those of fastMRI+ (Zhao et al., Scientific Data 9 (2022) 152).
    """

    slice: int
    label: str
    x: int
    y: int
    width: int
    height: int


def boxes_text(boxes: list[Box]) -> str:
    """The boxes as the JSON text that `read_boxes` reads."""
    return json.dumps([asdict(box) for box in boxes])


def read_boxes(path: Path | str) -> list[Box]:
    """The boxes of an HDF5 volume; none for a file without the attribute.

    Raises:
        UserError: the file cannot be read, or its boxes are not as described here.
    """
    path = Path(path)
    with open_hdf5(path) as file:
        stored = file.attrs.get(ATTRIBUTE, "[]")
    try:
        rows = json.loads(text_of(stored))
        if not isinstance(rows, list):
            raise TypeError(f"it is a {type(rows).__name__}")
        boxes = [Box(**row) for row in rows]
    except (TypeError, ValueError, RecursionError) as error:
        raise UserError(
            f"{path}: attribute {ATTRIBUTE} is not a list of boxes ({error}); make the file again"
        ) from error
    for box in boxes:
        numbers = (box.slice, box.x, box.y, box.width, box.height)
        if not (
            isinstance(box.label, str)
            and all(type(number) is int and number >= 0 for number in numbers)
            and box.width
            and box.height
        ):
            raise UserError(f"{path}: attribute {ATTRIBUTE} holds an impossible {box}; make the file again")
    return boxes
