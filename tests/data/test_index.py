"""Headers are remembered as long as their files stay the same, and a spoilt index costs time, nothing else."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from morelib.data import index as index_module
from morelib.data.index import Index, find_volumes
from morelib.data.readers import read_info
from morelib.data.volume import VolumeInfo
from morelib.errors import UserError


@pytest.fixture
def folder(tmp_path: Path, write_file: Callable[..., Path]) -> Path:
    folder = tmp_path / "volumes"
    folder.mkdir()
    for number, acquisition in enumerate(("AXT2", "AXFLAIR", "CORPD_FBK")):
        write_file(folder / f"{number}.h5", acquisition, f"patient-{number}", seed=number)
    return folder


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files whose headers are read."""
    names: list[str] = []

    def read(path: Path) -> VolumeInfo:
        names.append(path.name)
        return read_info(path)

    monkeypatch.setattr(index_module, "read_info", read)
    return names


def test_a_second_start_opens_no_file_and_says_the_same(folder: Path, opened: list[str]) -> None:
    index = folder.parent / "runs" / "index.json"
    first = find_volumes(folder, index)
    assert opened == ["0.h5", "1.h5", "2.h5"]
    written = index.stat().st_mtime_ns
    assert find_volumes(folder, index) == first == find_volumes(folder)
    assert opened == ["0.h5", "1.h5", "2.h5"] * 2  # the second three: without an index
    assert index.stat().st_mtime_ns == written  # nothing new, nothing written


def test_only_what_changed_is_read_again(
    folder: Path, opened: list[str], write_file: Callable[..., Path]
) -> None:
    index = folder.parent / "index.json"
    find_volumes(folder, index)
    opened.clear()
    write_file(folder / "1.h5", "AXT1", "somebody", slices=3)
    os.utime(folder / "2.h5", ns=(1, 1))
    write_file(folder / "3.h5", "AXT1", "anybody")
    (folder / "0.h5").unlink()
    found = find_volumes(folder, index)
    assert opened == ["1.h5", "2.h5", "3.h5"]
    assert [(v.name, v.n_slices) for v in found] == [("1.h5", 3), ("2.h5", 2), ("3.h5", 2)]
    assert {Path(key).name for key in json.loads(index.read_text())["files"]} == {"1.h5", "2.h5", "3.h5"}


def test_folders_share_an_index_under_any_spelling(
    folder: Path, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    index = folder.parent / "index.json"
    find_volumes(folder, index)
    monkeypatch.chdir(folder.parent)
    with Index(index) as remembered:
        assert remembered.read(Path("volumes/0.h5")).path == Path("volumes/0.h5")
    assert len(find_volumes("volumes", index)) == 3
    assert len(opened) == 3


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b"{}",
        b'{"made_by": "somebody", "files": {}}',
        b'{"made_by": "OURS", "files": [1]}',
        b'{"made_by": "OURS", "files": {"PATH": 3}}',
        b'{"made_by": "OURS", "files": {"PATH": [1, 2, "short"]}}',
    ],
)
def test_a_damaged_or_foreign_index_is_made_anew(folder: Path, content: bytes, opened: list[str]) -> None:
    index = folder.parent / "index.json"
    ours = content.replace(b"OURS", index_module._made_by().encode())
    index.write_bytes(ours.replace(b"PATH", bytes(folder / "0.h5")))
    expected = find_volumes(folder)
    opened.clear()
    assert find_volumes(folder, index) == expected
    assert find_volumes(folder, index) == expected
    assert len(opened) == 3


def test_what_was_read_before_an_error_is_kept(folder: Path, opened: list[str]) -> None:
    index = folder.parent / "index.json"
    whole = (folder / "1.h5").read_bytes()
    (folder / "1.h5").write_bytes(b"no volume")
    for _ in range(2):
        with pytest.raises(UserError, match=r"1\.h5"):
            find_volumes(folder, index)
    (folder / "1.h5").write_bytes(whole)
    assert len(find_volumes(folder, index)) == 3
    assert opened == ["0.h5", "1.h5", "1.h5", "1.h5", "2.h5"]


def test_an_index_that_cannot_be_written_is_done_without(folder: Path) -> None:
    (folder.parent / "file").write_text("")
    assert len(find_volumes(folder, folder.parent / "file" / "index.json")) == 3


def test_progress_and_a_folder_without_volumes(folder: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    find_volumes(folder, on_file=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]
    with pytest.raises(UserError, match="no such folder"):
        find_volumes(tmp_path / "none", tmp_path / "index.json")
    assert not (tmp_path / "index.json").exists()
