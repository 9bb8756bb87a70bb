"""Downloading some subjects of a remote zip archive: what arrives, what is kept, what is refused."""

import errno
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from morelib.data.fetch import FetchReport, archive, fetch_m4raw, m4raw, remote
from morelib.errors import UserError
from tests.data.hostile_server import (
    CONTRASTS,
    FILE_SIZE,
    SUBJECTS,
    HostileServer,
    content,
    write_archive,
)

Step = tuple[str, int, int]  # file, bytes done, of how many
FIRST = f"{SUBJECTS[0]}_FLAIR01.h5"  # the first in the order of names


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "WAITS", (0.01,) * 3)
    monkeypatch.setattr(m4raw, "SHA256", {})
    for name in ("HTTP_PROXY", "ALL_PROXY", "http_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[HostileServer]:
    with HostileServer(write_archive(tmp_path / "archive.zip")) as running:
        yield running


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def assert_right(report: FetchReport) -> None:
    for path in (*report.fetched, *report.kept):
        assert path.read_bytes() == content(path.name)
    assert names(report.folder) == sorted(path.name for path in (*report.fetched, *report.kept))


def refusal(server: HostileServer, out: Path, *parts: str, **arguments: object) -> str:
    with pytest.raises(UserError) as caught:
        fetch_m4raw(out, base_url=server.url, **{"subjects": 1, **arguments})
    line = str(caught.value)
    assert "\n" not in line and ";" in line
    for part in parts:
        assert part in line
    return line


def test_the_first_subjects_arrive_whole_and_little_else_is_transferred(
    server: HostileServer, tmp_path: Path
) -> None:
    seen: list[Step] = []
    report = fetch_m4raw(
        tmp_path / "out", subjects=1, base_url=server.url, progress=lambda *step: seen.append(step)
    )
    assert_right(report)
    assert [path.name for path in report.fetched] == sorted(f"{SUBJECTS[0]}_{c}.h5" for c in CONTRASTS)
    assert report.folder == tmp_path / "out" / "multicoil_val"
    assert (report.kept, report.note) == ((), "")
    assert server.n_sent < 3 * FILE_SIZE + 20_000
    # One request a file: servers count them.
    assert sum(server.is_of_member(start) for start, _ in server.ranges) == 3
    assert {total for _, _, total in seen} == {3 * FILE_SIZE}
    assert [done for _, done, _ in seen] == sorted(done for _, done, _ in seen)
    assert seen[-1] == (f"{SUBJECTS[0]}_T102.h5", 3 * FILE_SIZE, 3 * FILE_SIZE)


def test_what_is_there_is_kept_and_the_rest_is_fetched(server: HostileServer, tmp_path: Path) -> None:
    first = fetch_m4raw(tmp_path, subjects=1, base_url=server.url)
    written = [path.stat().st_mtime_ns for path in first.fetched]
    seen: list[Step] = []
    second = fetch_m4raw(tmp_path, subjects=2, base_url=server.url, progress=lambda *step: seen.append(step))
    assert_right(second)
    assert second.kept == first.fetched and len(second.fetched) == 3
    assert [path.stat().st_mtime_ns for path in second.kept] == written
    assert seen[-1][1:] == (6 * FILE_SIZE, 6 * FILE_SIZE)


def test_asking_for_too_many_subjects_is_said(server: HostileServer, tmp_path: Path) -> None:
    report = fetch_m4raw(tmp_path, subjects=40, base_url=server.url)
    assert_right(report)
    assert len(report.fetched) == 3 * len(SUBJECTS)
    assert "40 subjects asked for" in report.note and "has 3" in report.note


@pytest.mark.parametrize("there", [b"mine", bytes(FILE_SIZE), None])
def test_a_different_file_is_never_replaced(
    server: HostileServer, tmp_path: Path, there: bytes | None
) -> None:
    mine = tmp_path / "multicoil_val" / f"{SUBJECTS[0]}_T102.h5"
    mine.parent.mkdir()
    if there is None:
        mine.symlink_to("nowhere")
    else:
        mine.write_bytes(there)
    refusal(server, tmp_path, str(mine), "move or delete it")
    assert mine.is_symlink() if there is None else mine.read_bytes() == there
    assert names(mine.parent) == [mine.name]


@pytest.mark.parametrize("n_bytes", [1, 100_000, FILE_SIZE])
def test_a_partial_file_is_continued_where_it_stopped(
    server: HostileServer, tmp_path: Path, n_bytes: int
) -> None:
    part = tmp_path / "multicoil_val" / f"{FIRST}.part"
    part.parent.mkdir()
    part.write_bytes(content(FIRST)[:n_bytes])
    assert_right(fetch_m4raw(tmp_path, subjects=1, base_url=server.url))
    assert server.n_sent < 3 * FILE_SIZE - n_bytes + 20_000


@pytest.mark.parametrize("leftover", [b"", b"x" * 1000, b"x" * FILE_SIZE, b"x" * (FILE_SIZE + 1)])
def test_a_partial_file_of_something_else_is_never_glued_in(
    server: HostileServer, tmp_path: Path, leftover: bytes
) -> None:
    part = tmp_path / "multicoil_val" / f"{FIRST}.part"
    part.parent.mkdir()
    part.write_bytes(leftover)
    assert_right(fetch_m4raw(tmp_path, subjects=1, base_url=server.url))


def test_an_interrupted_download_leaves_its_part_and_goes_on(server: HostileServer, tmp_path: Path) -> None:
    def interrupt(file: str, done: int, total: int) -> None:
        if done > FILE_SIZE // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch_m4raw(tmp_path, subjects=1, base_url=server.url, progress=interrupt)
    folder = tmp_path / "multicoil_val"
    assert names(folder) == [f"{FIRST}.part"]
    done = (folder / f"{FIRST}.part").read_bytes()
    assert len(done) > FILE_SIZE // 2 and content(FIRST).startswith(done)
    seen: list[Step] = []
    assert_right(
        fetch_m4raw(tmp_path, subjects=1, base_url=server.url, progress=lambda *step: seen.append(step))
    )
    assert seen[0][1] > len(done)


def test_a_published_sha256_is_checked(
    server: HostileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(m4raw, "SHA256", {FIRST: "0" * 64})
    refusal(server, tmp_path, FIRST, "SHA-256")
    assert names(tmp_path / "multicoil_val") == []


def test_packed_members_and_archives_beyond_4_gb_are_read(tmp_path: Path) -> None:
    packed = write_archive(tmp_path / "packed.zip", zipfile.ZIP_DEFLATED)
    huge = write_archive(tmp_path / "huge.zip", at=5 << 30)  # a hole in the file, not on the disk
    for path in (packed, huge):
        with HostileServer(path) as server:
            part = tmp_path / path.stem / "multicoil_val" / f"{FIRST}.part"
            part.parent.mkdir(parents=True)
            part.write_bytes(content(FIRST)[:1000])
            assert_right(fetch_m4raw(tmp_path / path.stem, subjects=1, base_url=server.url))


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ({"split": "../val"}, "split"),
        ({"subjects": 0}, "subjects 0"),
        ({"base_url": "ftp://host/record"}, "no web address"),
        ({"base_url": "http://host:port"}, "no web address"),
        ({"base_url": ""}, "no web address"),
    ],
)
def test_bad_arguments_are_refused(tmp_path: Path, arguments: dict[str, object], part: str) -> None:
    with pytest.raises(UserError, match=part):
        fetch_m4raw(tmp_path, **arguments)


def test_a_disk_that_is_too_small_or_full_or_no_folder_is_said(
    server: HostileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"")
    refusal(server, tmp_path / "file", "file", "choose another folder")
    with monkeypatch.context() as patch:
        patch.setattr(m4raw.shutil, "disk_usage", lambda _: _Disk)
        refusal(server, tmp_path, "make room")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(archive.os, "replace", full)
    refusal(server, tmp_path, "the disk is full", "goes on where it stopped")
    assert names(tmp_path / "multicoil_val") == [f"{FIRST}.part"]


def test_a_record_that_does_not_end_is_not_read_to_the_end(
    server: HostileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(m4raw, "LONGEST_RECORD", 10)
    refusal(server, tmp_path, "answers with more than 10 bytes", "check the address")


class _Disk:
    free = 1000


def test_two_downloads_into_one_folder_do_not_mix(server: HostileServer, tmp_path: Path) -> None:
    folder = tmp_path / "multicoil_val"
    folder.mkdir()
    with m4raw._alone_in(folder):
        refusal(server, tmp_path, "another download")
    assert_right(fetch_m4raw(tmp_path, subjects=1, base_url=server.url))
