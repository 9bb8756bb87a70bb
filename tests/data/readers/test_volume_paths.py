"""Which files of a folder are volumes: links are followed, loops end, nothing is listed twice."""

import os
from pathlib import Path

import pytest

from morelib.data.readers import read_info, volume_paths
from morelib.errors import UserError
from tests.data import fixtures


def names(folder: Path) -> list[str]:
    return [str(path.relative_to(folder)) for path in volume_paths(folder)]


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def test_all_depths_sorted_without_hidden_and_other_files(tmp_path: Path) -> None:
    for name in (
        "b/2.h5",
        "a/deep/1.h5",
        "0.h5",
        ".half.h5",
        ".hidden/3.h5",
        "notes.txt",
        "c/x.nii.gz",
        "c/._x.nii.gz",
    ):
        touch(tmp_path / name)
    (tmp_path / "folder.h5").mkdir()
    assert names(tmp_path) == ["0.h5", "a/deep/1.h5", "b/2.h5", "c/x.nii.gz"]
    assert names(tmp_path) == names(Path(str(tmp_path)))


def test_links(tmp_path: Path) -> None:
    data, elsewhere = tmp_path / "data", tmp_path / "elsewhere"
    touch(data / "real/1.h5")
    touch(elsewhere / "2.h5")
    (data / "linked").symlink_to(elsewhere)
    (data / "again").symlink_to(elsewhere)
    (data / "alias").symlink_to(data / "real")
    (data / "loop").symlink_to(data)
    (data / "real/up").symlink_to("..")
    (data / "self").symlink_to("self")
    (data / "zz.h5").symlink_to(data / "real/1.h5")
    found = names(data)
    assert len(found) == 2, found
    assert {os.path.realpath(data / name) for name in found} == {
        str(data / "real/1.h5"),
        str(elsewhere / "2.h5"),
    }
    assert names(data / "linked") == ["2.h5"]


def test_dead_links(tmp_path: Path) -> None:
    (tmp_path / "gone.h5").symlink_to(tmp_path / "nothing")
    (tmp_path / "loop.h5").symlink_to("loop.h5")
    assert names(tmp_path) == ["gone.h5", "loop.h5"]
    for path in volume_paths(tmp_path):
        with pytest.raises(UserError, match="no such file"):
            read_info(path)


def test_labels_maps_and_cines_are_no_volumes(tmp_path: Path) -> None:
    fixtures.write_acdc_tree(tmp_path / "acdc", patients=(1,), testing=(101,))
    fixtures.write_prostate158_tree(tmp_path / "prostate", train=(20,), test=(1,))
    frames = [f"{part}/{name}/{name}_frame{number}.nii.gz" for part, name in
              (("testing", "patient101"), ("training", "patient001")) for number in ("01", "03")]  # fmt: skip
    assert names(tmp_path / "acdc") == frames
    assert names(tmp_path / "prostate") == [
        "prostate158_test/test/001/dwi.nii.gz",
        "prostate158_test/test/001/t2.nii.gz",
        "prostate158_train/train/020/dwi.nii.gz",
        "prostate158_train/train/020/t2.nii.gz",
    ]
    with pytest.raises(UserError, match=r"holds no \.h5 files and no NIfTI images; make data with"):
        volume_paths(touch(tmp_path / "labels/t2_anatomy_reader1.nii.gz").parent)


def test_a_folder_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path / "1.h5")
    locked = tmp_path / "locked"
    locked.mkdir(0)
    if os.geteuid() == 0:  # the superuser may read everything
        scandir = os.scandir

        def refuse(path: Path) -> object:
            if Path(path) == locked:
                raise PermissionError(13, "Permission denied")
            return scandir(path)

        monkeypatch.setattr("os.scandir", refuse)
    with pytest.raises(UserError, match="locked: may not be read; change its permissions"):
        volume_paths(tmp_path)
    monkeypatch.undo()
    locked.chmod(0o700)
