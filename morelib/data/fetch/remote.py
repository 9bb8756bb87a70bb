"""A file on a web server, read by byte ranges, with patience for servers and lines that fail."""

import re
import time
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx

from morelib.errors import UserError

# Seconds before each further try. Any byte that arrives starts the row anew.
WAITS = (1.0, 2.0, 4.0, 8.0, 16.0)
# A server may ask for longer waits (Retry-After), up to this.
LONGEST_WAIT = 120.0
TIMEOUT = 30.0
BUSY = {408, 425, 429, 500, 502, 503, 504}
# The directory of an archive of thousands of files stays far below this.
LONGEST_READ = 1 << 26
AGAIN = "run the same command again, it goes on where it stopped"


class RangesIgnored(UserError):
    """The server would send the whole file; another address of the same file may do better."""


class TryFailed(Exception):
    """A try that went wrong in a way in which the next one may not; `wait`: seconds the server asks for."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(" ".join(reason.split()))
        self.wait = wait


class Server:
    """GET requests to one server. Redirects are followed to https, or within a host that has only http."""

    def __init__(self, url: str) -> None:
        try:
            base = httpx.URL(url)
        except httpx.InvalidURL as error:
            raise UserError(f"{url!r}: no web address ({error}); give one like https://host/path") from None
        if base.scheme not in ("http", "https") or not base.host:
            raise UserError(f"{url!r}: no web address; give one like https://host/path")
        self.host, self._secure, self._reached = base.host, base.scheme == "https", False
        try:
            self._client = httpx.Client(
                # Ranges count the bytes as stored, so nothing may be compressed on the way.
                headers={"User-Agent": "morelib", "Accept-Encoding": "identity"},
                timeout=TIMEOUT,
                follow_redirects=True,
                event_hooks={"request": [self._stay_in_place]},
            )
        except (ImportError, OSError, ValueError) as error:  # proxy variables, certificate files
            reason = " ".join(str(error).split())
            raise UserError(f"proxy or certificate settings: {reason}; correct the environment") from error

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def _stay_in_place(self, request: httpx.Request) -> None:
        url = request.url
        if url.scheme != "https" and (self._secure or url.host != self.host or url.scheme != "http"):
            raise UserError(
                f"{self.host}: redirects to {url.scheme}://{url.host}, which is not followed;"
                " check that no login page stands in between"
            )

    @contextmanager
    def get(self, url: str, headers: dict[str, str] | None = None) -> Iterator[httpx.Response]:
        """One try: an answer of status 200, 206 or 416, its body not read yet. Raises TryFailed, UserError."""
        try:
            with self._client.stream("GET", url, headers=headers) as answer:
                self._reached = True
                status = answer.status_code
                if status in BUSY:
                    raise TryFailed(f"the server answers {status}", _retry_after(answer))
                if status not in (200, 206, 416):
                    raise UserError(
                        f"{answer.url}: the server answers {status}; check the address, or try later"
                    )
                if answer.headers.get("Content-Encoding", "identity") != "identity":
                    raise UserError(f"{answer.url}: sent compressed, unasked; try from another network")
                yield answer
        except httpx.TooManyRedirects:
            raise UserError(f"{url}: redirects without end; check the address, or try later") from None
        except httpx.TransportError as error:
            raise TryFailed(str(error) or type(error).__name__) from error

    def pause(self, failures: int, failed: TryFailed) -> None:
        """Wait before the next try, or raise UserError where `failures` in a row are enough."""
        if not self._reached and failures > 2:
            raise UserError(
                f"{self.host}: cannot be reached ({failed});"
                " check the network, then run the same command again, it keeps what is there"
            ) from failed
        if failures > len(WAITS):
            raise UserError(f"{self.host}: {failures} tries without progress ({failed}); {AGAIN}") from failed
        time.sleep(min(max(WAITS[failures - 1], failed.wait), LONGEST_WAIT))

    def read(self, url: str, limit: int) -> bytes:
        """The whole body of `url`, at most `limit` bytes. Raises UserError."""
        failures = 0
        while True:
            try:
                body = bytearray()
                with self.get(url) as answer:
                    for chunk in answer.iter_raw():
                        body += chunk
                        if len(body) > limit:
                            raise UserError(f"{url}: answers with more than {limit} bytes; check the address")
                return bytes(body)
            except TryFailed as failed:
                failures += 1
                self.pause(failures, failed)


class RemoteFile:
    """A file of known `size` (bytes) at `url`: `read` and `seek` for small parts, `stream` for long ones.

    All parts come from one and the same file: one that changes in between is noticed by its ETag or size.
    """

    def __init__(self, server: Server, url: str, size: int) -> None:
        self.url, self.size = url, size
        self._server, self._at, self._etag = server, 0, ""

    def tell(self) -> int:
        """Where the next `read` starts, in bytes."""
        return self._at

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go to `offset` from the start (0), from here (1) or from the end (2). Raises ValueError."""
        at = offset + (0, self._at, self.size)[whence]
        if at < 0:
            raise ValueError("a place before the start of the file")
        self._at = at
        return at

    def read(self, size: int = -1) -> bytes:
        """Up to `size` bytes, fewer at the end only. Raises UserError; ValueError where that is very many."""
        stop = self.size if size < 0 else min(self.size, self._at + size)
        if stop - self._at > LONGEST_READ:
            raise ValueError("a part too long to be read at once")
        with closing(self.stream(self._at, stop)) as chunks:
            part = b"".join(chunks)
        self._at += len(part)
        return part

    def stream(self, start: int, stop: int) -> Generator[bytes, None, None]:
        """Bytes `start` to `stop` (excluded) as they arrive, over as many connections as it takes.

        Raises UserError where there is no progress, the server ignores ranges, or the file has changed. Close
        the iterator (`contextlib.closing`).
        """
        failures = 0
        while start < stop:
            try:
                with self._server.get(self.url, {"Range": f"bytes={start}-{stop - 1}"}) as answer:
                    self._check(answer, start, stop)
                    for chunk in answer.iter_raw():
                        wanted = chunk[: stop - start]
                        if not wanted:  # more was sent than asked for
                            break
                        start, failures = start + len(wanted), 0
                        yield wanted
                if start < stop:
                    raise TryFailed("the server sent too few bytes")
            except TryFailed as failed:
                failures += 1
                self._server.pause(failures, failed)

    def _check(self, answer: httpx.Response, start: int, stop: int) -> None:
        # Compared here rather than sent as If-Range, which some servers answer with the whole file.
        etag = answer.headers.get("ETag", "")
        changed = f"{self.url}: the file on the server has changed; run the same command again"
        if answer.status_code == 416 or (etag and self._etag and etag != self._etag):
            raise UserError(changed)
        if answer.status_code == 200:
            raise RangesIgnored(
                f"{self.url}: the server ignores byte ranges and would send all {self.size / 1e9:.1f} GB;"
                " try from another network or later"
            )
        sent = answer.headers.get("Content-Range", "")
        match = re.fullmatch(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)", sent)
        if not match or int(match[1]) != start or not start <= int(match[2]) < stop:
            raise TryFailed(f"bytes {start}-{stop - 1} asked for, {sent!r} sent")
        if match[3] not in ("*", str(self.size)):
            raise UserError(changed)
        self._etag = self._etag or etag


def _retry_after(answer: httpx.Response) -> float:
    value = answer.headers.get("Retry-After", "")
    if re.fullmatch(r"[0-9]+", value):
        return float(value)
    try:
        return (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds()
    except (TypeError, ValueError):
        return 0.0
