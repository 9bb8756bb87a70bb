"""Manifests are written and read without loss, and every kind of bad line is named."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from morelib.data.index import find_volumes
from morelib.data.manifest import COLUMNS, Row, manifest_path, manifest_text, read_manifest, rows_of
from morelib.data.splits import split_by_patient
from morelib.errors import UserError

ROWS = [
    Row("020/t2.nii.gz", "val", "PROSTATE-T2", "020"),
    Row("b.h5", "train", "AXT2", "p2", "Aera, 2", 1.49, 12, (640, 320), 16),
    Row("a.h5", "train", "AXT2", "p1", "Skyra", 2.89, 20, (768, 396), 14),
]


def written(folder: Path, text: str) -> Path:
    path = folder / "some.csv"
    path.write_bytes(text.encode())
    return path


def test_a_manifest_comes_back_sorted_and_its_text_depends_on_the_rows_alone(tmp_path: Path) -> None:
    text = manifest_text(ROWS)
    assert text == manifest_text(ROWS[::-1])
    assert "\r" not in text
    assert text.startswith("file,split,category,patient,scanner,field,coils,matrix,slices\n")
    assert read_manifest(written(tmp_path, text)) == [ROWS[2], ROWS[1], ROWS[0]]
    with_excel = "\ufeff" + text.replace("\n", "\r\n")
    assert read_manifest(written(tmp_path, with_excel)) == [ROWS[2], ROWS[1], ROWS[0]]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a.h5,dev,AXT2,p,,,,,", "line 2: file 'a.h5', split 'dev'; a split is train, val or test"),
        (",train,AXT2,p,,,,,", "line 2: file ''"),
        ("a.h5,train,AXT2,p,,,many,,", "line 2: invalid literal"),
        ("a.h5,train,AXT2,p,,strong,,,", "line 2: could not convert"),
        ("a.h5,train,AXT2,p,,,,640,", "line 2: matrix '640' is not like 640x320"),
        ("a.h5,train", "line 2: has not as many columns"),
        ("a.h5,train,AXT2,p,,,,,,", "line 2: has not as many columns"),
        ("a.h5,train,AXT2,p,,,,,\na.h5,val,AXT2,p,,,,,", "lists a.h5 twice"),
        ("", r"lists no volumes; make one of your data with `morelib data index FOLDER`"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = written(tmp_path, ",".join(COLUMNS) + f"\n{line}\n")
    with pytest.raises(UserError, match=message):
        read_manifest(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"file,split,category\n", "has no column 'patient'"),
        (b"", "has no column 'file'"),
        (b"\x89HDF\r\n\xff\xfe", "is not a CSV file"),
        (b"file\0,split\n", "some.csv: "),
    ],
)
def test_a_file_that_is_no_manifest_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "some.csv"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_manifest(path)


def test_a_manifest_is_found_by_name_or_path(tmp_path: Path) -> None:
    (tmp_path / "data_manifests").mkdir()
    mine = written(tmp_path / "data_manifests", manifest_text(ROWS))
    (mine.parent / "table.csv").write_text("other,columns\n")
    assert manifest_path("some", tmp_path) == mine
    assert manifest_path("else/where.csv", tmp_path) == Path("else/where.csv")
    with pytest.raises(UserError, match=r"manifest 'fast': there is none .* or one of some$"):
        manifest_path("fast", tmp_path)
    with pytest.raises(UserError, match="no such manifest"):
        read_manifest("else/where.csv")


def test_volumes_become_rows_and_their_names_must_differ(
    fastmri_files: Path, tmp_path: Path, write_file: Callable[..., Path]
) -> None:
    volumes = find_volumes(fastmri_files)
    rows = rows_of(split_by_patient(volumes, {"train": 0.5, "val": 0.5}))
    path = written(tmp_path, manifest_text(rows))
    assert sorted(row.file for row in read_manifest(path)) == sorted(v.name for v in volumes)
    row = next(row for row in read_manifest(path) if row.file == "file_brain_AXT2_0000.h5")
    expected = Row(row.file, row.split, "AXT2", "brain-2-0", "", 2.89, 2, (48, 32), 2)
    assert row == expected
    twin = replace(volumes[0], path=tmp_path / "copy" / volumes[0].name)
    with pytest.raises(UserError, match=r"copy/.*: have one name"):
        rows_of({"train": [volumes[0], twin]})
