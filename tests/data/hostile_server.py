"""A web server with the JSON of a record and one zip archive, and the ways in which real ones misbehave.

A fault is a function (handler, start, stop) -> whether it has answered the request for those bytes of the archive.
"""

import json
import random
import re
import socket
import threading
import zipfile
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any

NAME = "M4RawV1.5_multicoil_val.zip"
CONTENT = f"/api/record/files/{NAME}/content"
PAGE = f"/record/files/{NAME}?download=1"
FILE_SIZE = 300_000
SUBJECTS = ("2022061201", "2022061202", "2022061203")
CONTRASTS = ("T101", "T102", "FLAIR01")


def content(name: str) -> bytes:
    """What the file of this name holds: noise, always the same."""
    return random.Random(name).randbytes(FILE_SIZE)


def write_archive(path: Path, compression: int = zipfile.ZIP_STORED, at: int = 0) -> Path:
    """Three subjects with three files each, the last subject first; `at` bytes of nothing come before."""
    with path.open("wb") as file:
        file.seek(at)
        with zipfile.ZipFile(file, "w", compression) as archive:
            archive.writestr("multicoil_val/", b"")
            archive.writestr("README.md", b"M4Raw")
            for subject in reversed(SUBJECTS):
                for contrast in CONTRASTS:
                    name = f"{subject}_{contrast}.h5"
                    archive.writestr(f"multicoil_val/{name}", content(name))
    return path


Fault = Callable[["Handler", int, int], bool]


class HostileServer(ThreadingMixIn, HTTPServer):
    """Serves `archive` on 127.0.0.1 while in a `with` block; `fault` is asked first, for members only."""

    def __init__(self, archive: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.port = self.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/api/record"
        self.archive = archive
        self.etag = '"one"'
        self.record: bytes | None = None
        self.fault: Fault | None = None
        self.fault_everywhere = False
        self.fault_on_page = True
        self.ranges: list[tuple[int, int]] = []
        self.n_sent = 0

    def __enter__(self) -> "HostileServer":
        self.thread = threading.Thread(target=self.serve_forever, args=(0.01,))
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.thread.join()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """The other side hung up: expected here."""

    def is_of_member(self, start: int) -> bool:
        if self.fault_everywhere:
            return True
        with zipfile.ZipFile(self.archive) as listing:
            return start < listing.start_dir


class Handler(BaseHTTPRequestHandler):
    server: HostileServer
    protocol_version = "HTTP/1.1"
    timeout = 5
    disable_nagle_algorithm = True  # else every answer waits 40 ms

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        server = self.server
        size = server.archive.stat().st_size
        if self.path == "/api/record":
            files = [{"key": NAME, "size": size, "checksum": "md5:0123", "links": {}}]
            self.answer(200, server.record or json.dumps({"id": 8056074, "files": files}).encode())
        elif self.path in (CONTENT, PAGE, "/elsewhere"):
            start, last = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers["Range"] or "bytes=0-0").groups()
            start, stop = int(start), int(last) + 1
            server.ranges.append((start, stop))
            hostile = self.path == CONTENT or (self.path == PAGE and server.fault_on_page)
            faulty = hostile and server.fault and server.is_of_member(start)
            if faulty and server.fault(self, start, stop):
                return
            self.part(start, stop, self.bytes(start, stop))
        else:
            self.answer(404, b"")

    def bytes(self, start: int, stop: int) -> bytes:
        with self.server.archive.open("rb") as file:
            file.seek(start)
            return file.read(stop - start)

    def part(self, start: int, stop: int, body: bytes, length: int | None = None, **headers: str) -> None:
        size = self.server.archive.stat().st_size
        headers = {"Content_Range": f"bytes {start}-{stop - 1}/{size}", **headers}
        self.answer(206, body, length, **headers)

    def answer(self, status: int, body: bytes, length: int | None = None, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"ETag": self.server.etag, **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.server.n_sent += len(body)
        self.wfile.write(body)


def times(count: int, fault: Fault) -> Fault:
    """`fault` for the first `count` requests, then none."""
    left = [count]

    def limited(handler: Handler, start: int, stop: int) -> bool:
        left[0] -= 1
        return left[0] >= 0 and fault(handler, start, stop)

    return limited


def drop_after(n_bytes: int) -> Fault:
    """The connection breaks after `n_bytes` of the body."""

    def fault(handler: Handler, start: int, stop: int) -> bool:
        handler.part(start, stop, handler.bytes(start, min(stop, start + n_bytes)), stop - start)
        handler.close_connection = True
        handler.connection.shutdown(socket.SHUT_RDWR)
        return True

    return fault


def stall(handler: Handler, start: int, stop: int) -> bool:
    """Half of the body, then silence until the client hangs up."""
    handler.part(start, stop, handler.bytes(start, (start + stop) // 2), stop - start)
    handler.rfile.read(1)
    handler.close_connection = True
    return True


def send_short(handler: Handler, start: int, stop: int) -> bool:
    """A body of half the length that the Content-Range announces."""
    handler.part(start, stop, handler.bytes(start, (start + stop) // 2))
    return True


def send_wrong(handler: Handler, start: int, stop: int) -> bool:
    """One bit in the middle is wrong."""
    body = bytearray(handler.bytes(start, stop))
    body[len(body) // 2] ^= 1
    handler.part(start, stop, bytes(body))
    return True


def send_shifted(handler: Handler, start: int, stop: int) -> bool:
    """Bytes of another place, and a Content-Range that says so."""
    handler.part(start + 1, stop + 1, handler.bytes(start + 1, stop + 1))
    return True


def send_all(handler: Handler, start: int, stop: int) -> bool:
    """The whole archive, whatever was asked for."""
    handler.answer(200, handler.bytes(0, handler.server.archive.stat().st_size))
    return True


def send_packed(handler: Handler, start: int, stop: int) -> bool:
    """Marked as compressed on the way."""
    handler.part(start, stop, handler.bytes(start, stop), Content_Encoding="gzip")
    return True


def status(code: int, **headers: str) -> Fault:
    """Nothing but a status."""

    def fault(handler: Handler, start: int, stop: int) -> bool:
        handler.answer(code, b"", **headers)
        return True

    return fault
