"""Downloads over connections that break, from servers that can or cannot resume."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from cosmos_worker.errors import DataError, RetryableError
from cosmos_worker.sources import url as module
from cosmos_worker.sources.url import Download

CONTENT = bytes(range(256)) * 40
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch):
    monkeypatch.setattr(module, "WAIT_S", 0.001)


class BreakingServer(ThreadingHTTPServer):
    """Sends ``piece`` bytes of CONTENT per connection, then hangs up; notes the requested ranges."""

    def __init__(self, piece: int, versions: tuple[str, ...] = (), errors: int = 0) -> None:
        self.piece, self.errors = piece, errors
        self.versions = list(versions)
        self.ranges: list[str | None] = []
        super().__init__(("127.0.0.1", 0), BreakingHandler)


class BreakingHandler(BaseHTTPRequestHandler):
    server: BreakingServer

    def do_GET(self):
        server = self.server
        wanted = self.headers["Range"]
        server.ranges.append(wanted)
        if wanted and server.errors:
            server.errors -= 1
            self.send_error(503)
            return
        version = server.versions.pop(0) if server.versions else '"v1"'
        start = 0
        if wanted and self.headers["If-Range"] == version:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
        self.send_header("ETag", version)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        self.wfile.write(CONTENT[start : start + server.piece])

    def log_message(self, *args):
        pass


@contextmanager
def serve(piece: int, *versions: str, errors: int = 0) -> Iterator[tuple[str, list[str | None]]]:
    with BreakingServer(piece, versions, errors) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/data.tar", server.ranges
        finally:
            server.shutdown()
            thread.join()


def read_all(url: str) -> tuple[bytes, str]:
    with Download(url) as stream:
        pieces = iter(lambda: stream.read(1000), b"")
        return b"".join(pieces), stream.finish()


def test_download_goes_on_where_the_connection_broke():
    with serve(4000) as (url, ranges):
        assert read_all(url) == (CONTENT, DIGEST)

    assert ranges == [None, "bytes=4000-", "bytes=8000-"]


def test_download_waits_for_a_server_that_is_busy():
    with serve(4000, errors=3) as (url, ranges):
        assert read_all(url) == (CONTENT, DIGEST)

    assert ranges[:5] == [None, *["bytes=4000-"] * 4]


def test_download_does_not_mix_two_versions_of_a_file():
    message = r"ended after 4000 of 10240 bytes, and the server does not go on at this byte of this"
    with serve(4000, '"v1"', '"v2"') as (url, _), pytest.raises(RetryableError, match=message):
        read_all(url)


def test_download_gives_up_when_nothing_comes():
    with serve(4000, errors=99) as (url, ranges):
        with pytest.raises(RetryableError, match=r"the server answers 503 .*; run again"):
            read_all(url)

        assert len(ranges) == 1 + module.MAX_FAILURES


def test_download_reads_a_local_file(tmp_path):
    path = tmp_path / "a.tar"
    path.write_bytes(CONTENT)

    assert read_all(path.as_uri()) == (CONTENT, DIGEST)


def test_download_names_a_file_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match=r"a\.tar: .*No such file.*; check the address"):
        Download((tmp_path / "a.tar").as_uri())


def test_user_and_password_of_an_address_go_to_its_host_alone():
    """A host that the first one redirects to must not see them."""
    seen = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            seen[self.path] = self.headers["Authorization"]
            if self.path == "/first":
                self.send_response(302)
                self.send_header("Location", f"http://localhost:{self.server.server_port}/second")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()
            self.wfile.write(CONTENT)

        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            download = Download(f"http://me:p%40ss@127.0.0.1:{server.server_port}/first")
            assert download.finish() == DIGEST
        finally:
            server.shutdown()
            thread.join()

    assert seen == {"/first": "Basic bWU6cEBzcw==", "/second": None}
