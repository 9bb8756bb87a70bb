"""Downloading from servers that break off, lie, or change their mind: right bytes or one line, never less."""

import io
import socket
import zipfile
from pathlib import Path

import pytest

from morelib.data.fetch import fetch_m4raw, remote
from morelib.errors import UserError
from tests.data import hostile_server as hostile
from tests.data.hostile_server import FILE_SIZE, HostileServer, content, times, write_archive
from tests.data.test_fetch import FIRST, _impatient, assert_right, names, refusal, server

__all__ = ["_impatient", "server"]

FAULTS = {
    "drops": hostile.drop_after(1000),
    "drops at once": hostile.drop_after(0),
    "stalls": hostile.stall,
    "short": hostile.send_short,
    "shifted": hostile.send_shifted,
    "wrong": hostile.send_wrong,
    "503": hostile.status(503),
    "429": hostile.status(429, Retry_After="1"),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_one_fault_is_survived(
    server: HostileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: hostile.Fault
) -> None:
    monkeypatch.setattr(remote, "TIMEOUT", 0.3)
    monkeypatch.setattr(remote, "LONGEST_WAIT", 0.01)
    server.fault = times(1, fault)
    assert_right(fetch_m4raw(tmp_path, subjects=1, base_url=server.url))
    server.fault, server.fault_everywhere = times(1, fault), True  # in the archive's directory
    if fault is not hostile.send_wrong:
        assert_right(fetch_m4raw(tmp_path / "second", subjects=1, base_url=server.url))


def test_any_number_of_drops_is_survived_while_bytes_arrive(server: HostileServer, tmp_path: Path) -> None:
    server.fault = hostile.drop_after(FILE_SIZE // 20)
    assert_right(fetch_m4raw(tmp_path, subjects=1, base_url=server.url))
    assert len(server.ranges) > 60


@pytest.mark.parametrize("name", ["drops at once", "shifted", "503"])
def test_without_progress_it_gives_up_and_the_same_command_goes_on(
    server: HostileServer, tmp_path: Path, name: str
) -> None:
    after = [2]

    def later(handler: hostile.Handler, start: int, stop: int) -> bool:
        after[0] -= 1
        fault = hostile.drop_after(100_000) if after[0] >= 0 else FAULTS[name]
        return fault(handler, start, stop)

    server.fault = later
    refusal(server, tmp_path, "127.0.0.1", "4 tries", "goes on where it stopped")
    part = tmp_path / "multicoil_val" / f"{FIRST}.part"
    assert 100_000 < part.stat().st_size < FILE_SIZE and content(FIRST).startswith(part.read_bytes())
    server.fault, before = None, server.n_sent
    assert_right(fetch_m4raw(tmp_path, subjects=1, base_url=server.url))
    assert server.n_sent - before < 3 * FILE_SIZE - 100_000 + 20_000


def test_a_server_that_asks_for_a_pause_gets_it_up_to_a_limit(
    server: HostileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    monkeypatch.setattr(remote.time, "sleep", slept.append)
    asked = iter(["7", "86400", "9" * 400, "Thu, 01 Jan 2060 00:00:00 GMT", "soon", "-1", None])

    def busy(handler: hostile.Handler, start: int, stop: int) -> bool:
        value = next(asked, None)
        # A byte of progress in between starts the count of tries anew.
        return value is not None and hostile.status(429, Retry_After=value)(handler, start, stop)

    monkeypatch.setattr(remote, "WAITS", (0.5,) * 6)
    server.fault = busy
    fetch_m4raw(tmp_path, subjects=1, base_url=server.url)
    assert slept == [7, 120, 120, 120, 0.5, 0.5]


@pytest.mark.parametrize("everywhere", [True, False])
def test_a_server_that_ignores_ranges_is_refused_and_nothing_is_left(
    server: HostileServer, tmp_path: Path, everywhere: bool
) -> None:
    server.fault, server.fault_everywhere = hostile.send_all, everywhere
    refusal(server, tmp_path / "out", "ignores byte ranges")
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]


def test_where_the_api_ignores_ranges_the_page_for_readers_is_asked(
    server: HostileServer, tmp_path: Path
) -> None:
    server.fault, server.fault_everywhere, server.fault_on_page = hostile.send_all, True, False
    assert_right(fetch_m4raw(tmp_path, subjects=1, base_url=server.url))


def test_lasting_wrong_bytes_are_refused_and_nothing_is_left(server: HostileServer, tmp_path: Path) -> None:
    server.fault = hostile.send_wrong
    refusal(server, tmp_path, FIRST, "CRC-32")
    assert names(tmp_path / "multicoil_val") == []


@pytest.mark.parametrize("sign", ["ETag", "size"])
def test_an_archive_that_changes_is_not_glued_together(
    server: HostileServer, tmp_path: Path, sign: str
) -> None:
    def change(handler: hostile.Handler, start: int, stop: int) -> bool:
        if sign == "ETag":
            server.etag = '"two"'
        else:
            write_archive(server.archive, at=10)
        return False

    server.fault = change
    refusal(server, tmp_path, "has changed", "run the same command again")
    server.fault = times(1, hostile.drop_after(100_000))
    assert_right(fetch_m4raw(tmp_path, subjects=1, base_url=server.url))


def test_a_part_of_an_older_archive_is_not_glued_to_the_new_one(
    server: HostileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = [0]

    def fail_later(handler: hostile.Handler, start: int, stop: int) -> bool:
        calls[0] += 1
        return (hostile.drop_after(100_000) if calls[0] == 1 else hostile.status(404))(handler, start, stop)

    server.fault = fail_later
    refusal(server, tmp_path, "404")
    assert names(tmp_path / "multicoil_val") == [f"{FIRST}.part"]
    monkeypatch.setattr(hostile, "content", lambda name: content(f"new {name}"))
    write_archive(server.archive)
    server.fault, server.etag = None, '"new"'
    for path in fetch_m4raw(tmp_path, subjects=1, base_url=server.url).fetched:
        assert path.read_bytes() == content(f"new {path.name}")


def test_redirects_within_the_host_are_followed_and_others_refused(
    server: HostileServer, tmp_path: Path
) -> None:
    server.fault = hostile.status(302, Location="/elsewhere")
    assert_right(fetch_m4raw(tmp_path / "a", subjects=1, base_url=server.url))
    for place in (f"http://localhost:{server.port}/elsewhere", "file:///etc/passwd", "ftp://127.0.0.1/x"):
        server.fault = hostile.status(302, Location=place)
        refusal(server, tmp_path / "b", "is not followed", place.split(":")[0])
    server.fault = hostile.status(302, Location=hostile.CONTENT)
    refusal(server, tmp_path / "b", "redirects without end")


def test_bytes_compressed_on_the_way_are_refused(server: HostileServer, tmp_path: Path) -> None:
    server.fault = hostile.send_packed
    refusal(server, tmp_path, "compressed")


def test_no_network_is_said_in_one_line(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # taken, but nobody listens
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/record"
        with pytest.raises(UserError, match=r"127\.0\.0\.1: cannot be reached \(.*\); check the network"):
            fetch_m4raw(tmp_path / "out", base_url=url)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "record",
    [
        b"<html>please log in</html>",
        b"\xff\xfe",
        b"[" * 100_000,
        b"[]",
        b'{"files": [3]}',
        b'{"files": [{"key": "M4RawV1.5_multicoil_val.zip", "size": "1"}]}',
        b'{"files": [{"key": "M4RawV1.5_multicoil_val.zip", "size": -1}]}',
        b'{"files": [{"key": "other.zip", "size": 1}]}',
    ],
)
def test_a_record_that_is_none_is_refused(server: HostileServer, tmp_path: Path, record: bytes) -> None:
    server.record = record
    refusal(server, tmp_path, server.url, "check the address")


@pytest.mark.parametrize(
    ("member", "why"),
    [
        (f"../{FIRST}", "leads outside"),
        (f"a/../../{FIRST}", "leads outside"),
        (f"/tmp/{FIRST}", "leads outside"),
        (f"..\\..\\{FIRST}", "leads outside"),
        ("../../.bashrc", "leads outside"),
        (f"again/{FIRST}", "is there twice"),
    ],
)
def test_a_malicious_member_name_is_refused(
    server: HostileServer, tmp_path: Path, member: str, why: str
) -> None:
    with zipfile.ZipFile(server.archive, "a") as archive:
        archive.writestr(member, b"x")
    refusal(server, tmp_path / "deep" / "out", why)
    assert [path.name for path in tmp_path.rglob("*")] == ["archive.zip"]


def test_a_member_that_unpacks_to_more_than_announced_is_refused(
    server: HostileServer, tmp_path: Path
) -> None:
    with zipfile.ZipFile(server.archive, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(FIRST, bytes(10 * FILE_SIZE))
    body = bytearray(server.archive.read_bytes())
    at = body.index(b"PK\x01\x02") + 24  # the unpacked size
    body[at : at + 4] = FILE_SIZE.to_bytes(4, "little")
    server.archive.write_bytes(body)
    refusal(server, tmp_path, FIRST, "more than the archive's directory says")
    assert names(tmp_path / "multicoil_val") == []


def test_archives_that_are_none_are_refused(server: HostileServer, tmp_path: Path) -> None:
    whole = server.archive.read_bytes()
    start = zipfile.ZipFile(io.BytesIO(whole)).start_dir
    encrypted = bytearray(whole)
    for at in range(start, len(whole)):
        if whole[at : at + 4] == b"PK\x01\x02":
            encrypted[at + 8] |= 1
    directory_elsewhere = whole[: start - 10] + b"PK\x01\x02" + whole[start - 6 :]
    for body in (b"x" * 1000, whole[:-30], whole[1000:], bytes(encrypted), directory_elsewhere[:start]):
        server.archive.write_bytes(body)
        refusal(server, tmp_path / "out", server.url)
