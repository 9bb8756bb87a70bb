"""`morelib data`: check, index, fetch and manifest, their exit codes, and what an interruption leaves."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from morelib import cli
from morelib.cli import check as checking
from morelib.data import fetch
from morelib.data.manifest import Row, manifest_text, read_manifest
from morelib.data.splits import shared_patients
from morelib.data.volume import VolumeInfo
from tests.data.fixtures import DATASETS

Captured = pytest.CaptureFixture[str]
Write = Callable[..., Path]
REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def there(tmp_path: Path, write_file: Write, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Here, a folder `data` in fastMRI's layout with a.h5 and b.h5 to train and c.h5, and `all.csv` that lists them."""
    monkeypatch.delenv("MORE_DATA_ROOT", raising=False)
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(("multicoil_train/a", "multicoil_train/b", "multicoil_val/c")):
        path = tmp_path / "data" / f"{name}.h5"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, "AXT2", f"p{number}")
    rows = [Row(f"{n}.h5", s, "AXT2", "", coils=2) for n, s in (("a", "train"), ("b", "train"), ("c", "val"))]
    (tmp_path / "all.csv").write_text(manifest_text(rows))
    return tmp_path


def run(*arguments: object) -> int:
    return cli.run(["data", *map(str, arguments)])


def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The slices that a check reads, from here on."""
    read: list[str] = []
    original = checking.read_slice

    def read_slice(info: VolumeInfo, index: int) -> object:
        read.append(f"{info.name} {index}")
        return original(info, index)

    monkeypatch.setattr(checking, "read_slice", read_slice)
    return read


def lines(path: Path) -> dict[str, dict[str, str]]:
    with path.open(newline="") as file:
        return {line["file"]: line for line in csv.DictReader(file)}


def test_check_says_that_all_is_well(there: Path, capsys: Captured) -> None:
    assert run("check", "data", "--manifest", "all.csv") == 0
    out = capsys.readouterr().out
    assert "train: 2 of 2 volumes; val: 1 of 1 volumes\nall is well\n" in out
    assert "│ train │ AXT2" in out


def test_check_reports_every_kind_of_fault_and_exits_with_1(there: Path, capsys: Captured) -> None:
    manifest = there / "all.csv"
    manifest.write_text(
        manifest.read_text().replace("c.h5,val,AXT2,,,,2", "c.h5,val,AXT2,,,,4") + "d.h5,test,AXT1,,,,,,\n"
    )
    cut = there / "data" / "multicoil_train" / "a.h5"
    cut.write_bytes(cut.read_bytes()[:4000])
    assert run("check", "data", "--manifest", "all.csv", "--report", "report.csv") == 1
    out = capsys.readouterr().out
    assert "train: 1 of 2 volumes (1 AXT2 damaged); val: 0 of 1 volumes (1 AXT2 different)" in out
    assert "test: 0 of 1 volumes (1 AXT1 missing)" in out
    assert "not usable yet: no volume of val and test" in out
    report = lines(there / "report.csv")
    assert {name: line["status"] for name, line in report.items()} == {
        "a.h5": "damaged", "b.h5": "found", "c.h5": "different", "d.h5": "missing",
    }  # fmt: skip
    assert report["c.h5"]["note"] == "coils 2 instead of 4"
    assert report["a.h5"]["path"] == str(cut)
    shutil.copy(there / "data" / "multicoil_train" / "b.h5", cut)
    manifest.write_text(manifest_text([Row(f"{n}.h5", "train", "", "") for n in "abd"]))
    assert run("check", "data", "--manifest", "all.csv") == 1
    assert "incomplete; what was found can be used" in capsys.readouterr().out


def test_check_takes_the_folder_from_the_environment(
    there: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.setenv("MORE_DATA_ROOT", str(there / "data"))
    assert run("check", "--manifest", "all.csv") == 0
    assert run("check") == 0
    assert run("check", "data/multicoil_val", "--manifest", "all.csv") == 1  # folders given count alone
    assert "train: 0 of 2 volumes" in capsys.readouterr().out


def test_check_without_a_manifest_counts_what_is_there(
    there: Path, write_file: Write, capsys: Captured
) -> None:
    write_file(there / "data" / "k.h5", "CORPD_FBK", "k", coils=3, phase=33, size=25)
    (there / "data" / "text.h5").write_text("not HDF5")
    assert run("check", "data", "--report", "report.json") == 1
    out = capsys.readouterr().out
    assert "│ AXT2      │ 48x32  │ 2     │ synthetic │       3 │" in out
    assert "│ CORPD_FBK │ 50x33  │ 3     │ synthetic │       1 │" in out
    assert "text.h5: damaged: not a readable HDF5 file" in out
    report = json.loads((there / "report.json").read_text())
    assert (report["checked"], report["of"], report["manifest"]) == (5, 5, None)
    assert {line["file"]: line["status"] for line in report["files"]}["text.h5"] == "damaged"


def test_a_deep_check_reads_every_slice_once_and_goes_on_where_it_was(
    there: Path, write_file: Write, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    read = counted(monkeypatch)
    arguments = ("check", "data", "--manifest", "all.csv", "--deep")
    assert run(*arguments[:-1]) == 0
    assert read == []
    assert run(*arguments) == 0
    assert sorted(read) == [f"{name}.h5 {index}" for name in "abc" for index in (0, 1)]
    read.clear()
    assert run(*arguments) == 0
    assert read == []
    write_file(there / "data" / "multicoil_train" / "b.h5", "AXT2", "p1", seed=1)
    assert run(*arguments) == 0
    assert read == ["b.h5 0", "b.h5 1"]


def test_a_deep_check_finds_what_the_header_hides(there: Path, capsys: Captured) -> None:
    import h5py

    with h5py.File(there / "data" / "multicoil_val" / "c.h5", "a") as file:
        file["kspace"][1, 0, 5, 5] = np.nan
    assert run("check", "data", "--manifest", "all.csv") == 0
    for _ in range(2):  # a failure is not remembered as read
        assert run("check", "data", "--manifest", "all.csv", "--deep") == 1
        assert "kspace of slice 1 holds NaN or infinite values" in capsys.readouterr().out


def test_an_interrupted_check_keeps_what_it_has(
    there: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    read = counted(monkeypatch)
    counting = checking.read_slice

    def interrupted(info: VolumeInfo, index: int) -> object:
        if info.name == "b.h5":
            raise KeyboardInterrupt
        return counting(info, index)

    monkeypatch.setattr(checking, "read_slice", interrupted)
    arguments = ("check", "data", "--manifest", "all.csv", "--deep", "--report", "report.json")
    assert run(*arguments) == 130
    report = json.loads((there / "report.json").read_text())
    assert (report["checked"], report["of"]) == (1, 3)
    monkeypatch.setattr(checking, "read_slice", counting)
    read.clear()
    assert run(*arguments) == 0
    assert read == ["b.h5 0", "b.h5 1", "c.h5 0", "c.h5 1"]
    assert json.loads((there / "report.json").read_text())["checked"] == 3


def test_reports_are_saved_on_the_way(there: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checking, "SAVE_EVERY_S", -1.0)
    sizes: list[int] = []
    save = checking.Report.save
    monkeypatch.setattr(
        checking.Report, "save", lambda report: (sizes.append(len(report.findings)), save(report))
    )
    assert run("check", "data", "--manifest", "all.csv", "--report", "report.csv") == 0
    assert sizes == [1, 2, 3, 3]
    assert len(lines(there / "report.csv")) == 3


def test_many_notes_are_cut_short(there: Path, write_file: Write, capsys: Captured) -> None:
    for number in range(10):
        (there / "data" / f"text{number}.h5").write_text("not HDF5")
    assert run("check", "data") == 1
    out = capsys.readouterr().out
    assert out.count("not a readable HDF5 file") == 8
    assert "and 2 more; `--report check.csv` lists all" in out


def test_index_freezes_a_split(there: Path, write_file: Write, capsys: Captured) -> None:
    write_file(there / "data" / "multicoil_val" / "d.h5", "AXT2", "p3")
    assert run("index", "data", "--out", "mine.csv") == 0
    assert capsys.readouterr().out == "2 train, 1 val, 1 test volumes\nmine.csv\n"
    rows = read_manifest("mine.csv")
    assert {row.file for row in rows if row.split == "train"} == {"a.h5", "b.h5"}
    assert shared_patients({s: [r for r in rows if r.split == s] for s in ("train", "val", "test")}) == set()
    assert run("check", "data", "--manifest", "mine.csv") == 0
    assert run("index", "data", "--out", "mine.csv") == 0
    write_file(there / "data" / "multicoil_val" / "e.h5", "AXT2", "p4")
    frozen = Path("mine.csv").read_bytes()
    assert run("index", "data", "--out", "mine.csv") == 2
    assert "a split once frozen is kept" in capsys.readouterr().err
    assert Path("mine.csv").read_bytes() == frozen


@pytest.mark.parametrize("name", DATASETS)
def test_every_data_set_is_checked_divided_and_found_again(name: str, there: Path, capsys: Captured) -> None:
    (there / name).mkdir()
    DATASETS[name](there / name)
    assert run("check", name, "--deep") == 0
    out = capsys.readouterr().out
    assert ("simulated" in out) == (name in ("acdc", "prostate158"))
    assert run("index", name, "--out", "mine.csv") == 0
    groups: dict[str, list[Row]] = {}
    for row in read_manifest("mine.csv"):
        groups.setdefault(row.split, []).append(row)
    assert set(groups) == {"train", "val", "test"}
    assert shared_patients(groups) == set()
    capsys.readouterr()
    assert run("check", name, "--manifest", "mine.csv", "--report", "report.csv") == 0
    assert {line["note"] for line in lines(there / "report.csv").values()} <= {""} or name == "cc359"


def test_fetch_passes_on_what_was_asked_and_shows_what_came(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    asked: dict[str, object] = {}

    def fetch_m4raw(
        out: Path, *, split: str, subjects: int | None, progress: Callable[..., None]
    ) -> fetch.FetchReport:
        asked.update(out=out, split=split, subjects=subjects)
        progress("2022061203_T101.h5", 5, 10)
        folder = out / f"multicoil_{split}"
        return fetch.FetchReport(
            folder, (folder / "x.h5",), (), "3 subjects asked for, some.zip has 1: all were taken"
        )

    monkeypatch.setattr(fetch, "fetch_m4raw", fetch_m4raw)
    assert run("fetch", "m4raw", tmp_path / "out", "--subjects", 3) == 0
    assert asked == {"out": tmp_path / "out", "split": "val", "subjects": 3}
    out = capsys.readouterr().out
    assert "3 subjects asked for, some.zip has 1: all were taken" in out
    assert "1 files fetched, 0 were there; M4Raw, CC BY 4.0" in out
    assert out.splitlines()[-1] == str(tmp_path / "out" / "multicoil_val")


def test_manifest_gives_the_committed_bytes_and_says_where_they_differ(
    tmp_path: Path, capsys: Captured
) -> None:
    assert run("manifest", "--check", "--root", REPOSITORY) == 0
    assert run("manifest", "--out", tmp_path, "--root", REPOSITORY) == 0
    for path in tmp_path.iterdir():
        assert path.read_bytes() == (REPOSITORY / "data_manifests" / path.name).read_bytes()
    assert run("manifest", "--check", "--out", tmp_path, "--root", REPOSITORY) == 0
    changed = tmp_path / "fastmri.csv"
    changed.write_text(changed.read_text().replace("\n", "\r\n"))
    capsys.readouterr()
    assert run("manifest", "--check", "--out", tmp_path, "--root", REPOSITORY) == 1
    assert capsys.readouterr().err.startswith(f"error: {changed}: is not what the rule draws")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["check"], "no folder to check; give one, or set MORE_DATA_ROOT"),
        (["check", "none"], "none: no such folder"),
        (["check", "empty"], "holds no .h5 files"),
        (["check", "data", "--manifest", "huge"], "manifest 'huge': there is none"),
        (["check", "data", "--manifest", "none.csv"], "none.csv: no such manifest"),
        (["check", "data", "--manifest", "data/multicoil_val/c.h5.csv"], "is not a CSV file"),
        (["check", "data", "--report", "report.txt"], "a report is a .json or .csv file"),
        (["check", "data", "--manifest", "all.csv", "--report", "all.csv"], "is the manifest"),
        (["index", "none"], "no such folder"),
        (["index", "empty"], "holds no .h5 files"),
        (["fetch", "fastmri"], "cannot be fetched, only m4raw can"),
        (["fetch", "m4raw", "--subjects", "0"], "--subjects"),
        (["fetch", "m4raw", "--split", "dev"], "split 'dev': unknown"),
        (["manifest"], "no such table"),
        (["dance"], "No such command 'dance'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_gives_exit_code_2_and_one_line(
    arguments: list[str], message: str, there: Path, capsys: Captured
) -> None:
    (there / "empty").mkdir()
    shutil.copy(there / "data" / "multicoil_val" / "c.h5", there / "data" / "multicoil_val" / "c.h5.csv")
    before = sorted(there.rglob("*.*"))
    assert run(*arguments) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1
    assert message in error[0]
    assert [path for path in sorted(there.rglob("*.*")) if path not in before] == []


@pytest.mark.parametrize("command", ["", "check", "index", "fetch", "manifest"])
def test_help(command: str, capsys: Captured) -> None:
    assert run(*filter(None, [command]), "--help") == 0
    assert "Usage: morelib data" in capsys.readouterr().out
