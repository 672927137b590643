"""Hostile and damaged archives, and servers that misbehave."""

import bz2
import gzip
import io
import logging
import lzma
import re
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import SimpleNamespace

import pytest

from cosmos_worker.config.source import UrlSource
from cosmos_worker.errors import DataError, RetryableError
from cosmos_worker.sources import archive as archives
from cosmos_worker.sources import tar_stream
from cosmos_worker.sources.archive import extract_file, extract_url
from cosmos_worker.storage.volumes import sha256_of_file


def add_file(archive: tarfile.TarFile, name: str, content: bytes = b"data", **fields) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    for key, value in fields.items():
        setattr(member, key, value)
    archive.addfile(member, io.BytesIO(content) if member.isreg() else None)


def pack(path: Path, *members: tuple[str, dict], mode: str = "w:gz") -> str:
    with tarfile.open(path, mode) as archive:
        add_file(archive, "good/first.txt", b"first")
        for name, fields in members:
            add_file(archive, name, **fields)
    return path.as_uri()


@contextmanager
def serve(
    status: int, body: bytes = b"", length: int | str | None = None, **headers: str
) -> Iterator[str]:
    """A loopback server that gives every request the same answer."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status)
            self.send_header("Content-Length", str(len(body) if length is None else length))
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/data.tar.gz"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_extract_url_writes_files_of_any_compression(tmp_path: Path, mode):
    url = pack(
        tmp_path / "a.tar", ("./deep/er/second.txt", {"content": b"2", "mode": 0o4777}), mode=mode
    )
    folder = tmp_path / "out"

    extract_url(UrlSource(url=url, sha256=sha256_of_file(tmp_path / "a.tar").upper()), folder)

    files = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
    assert {name: path.read_bytes() for name, path in files.items()} == {
        "good/first.txt": b"first",
        "deep/er/second.txt": b"2",
    }
    assert all(path.stat().st_mode & 0o7111 == 0 for path in files.values())


@pytest.mark.parametrize(
    ("name", "fields", "problem"),
    [
        ("../evil.txt", {}, "leaves the folder"),
        ("good/../../evil.txt", {}, "leaves the folder"),
        ("/tmp/evil.txt", {}, "has an absolute path"),
        ("evil", {"type": tarfile.SYMTYPE, "linkname": "/etc"}, "is a link to '/etc'"),
        ("evil", {"type": tarfile.LNKTYPE, "linkname": "good/first.txt"}, "is a link to 'good/f"),
        ("evil", {"type": tarfile.CHRTYPE}, "is a device or pipe"),
        ("evil", {"type": tarfile.BLKTYPE}, "is a device or pipe"),
        ("evil", {"type": tarfile.FIFOTYPE}, "is a device or pipe"),
        ("good/./first.txt", {}, "comes twice"),
        ("good/first.txt/evil", {}, "lies in a file"),
        ("good", {}, "is a file and a folder"),
        ("good/first.txt", {"type": tarfile.DIRTYPE}, "is a folder and a file"),
        ("evil" + "n" * 300, {}, "has a name of more than 255 bytes"),
        ("evil/" * 300, {}, "has a path of more than 1024 bytes"),
        ("evil\nforged line", {}, "has a control character in its name"),
        ("evil\x1b[31m", {}, "has a control character in its name"),
    ],
)
def test_extract_url_refuses_member(tmp_path: Path, name, fields, problem):
    url = pack(tmp_path / "a.tar.gz", (name, fields))

    with pytest.raises(DataError, match="pack plain files with relative paths only") as caught:
        extract_url(UrlSource(url=url), tmp_path / "out" / "in")

    assert f"a.tar.gz: member {name[:200].rstrip('/')!r}"[:-1] in str(caught.value)
    assert problem in str(caught.value)
    assert not list(tmp_path.rglob("evil*"))
    assert not Path("/tmp/evil.txt").exists()


def test_extract_url_refuses_other_digest(tmp_path: Path):
    url = pack(tmp_path / "a.tar.gz")

    with pytest.raises(DataError, match=r"sha256 is [0-9a-f]{64}, expected 0{64}; correct sha256"):
        extract_url(UrlSource(url=url, sha256="0" * 64), tmp_path / "out")


@pytest.mark.parametrize("damage", ["cut", "text"])
def test_extract_url_reports_damaged_archive(tmp_path: Path, damage):
    path = tmp_path / "a.tar.gz"
    pack(path, ("big.bin", {"content": bytes(range(256)) * 400}))
    path.write_bytes(path.read_bytes()[:-60] if damage == "cut" else b"hello\n" * 500)

    problem = (
        "damaged or no tar archive: .*; give"
        if damage == "cut"
        else "got text instead of an .*; .* give"
    )
    with pytest.raises(DataError, match=rf"a\.tar\.gz: {problem} a \.tar"):
        extract_url(UrlSource(url=path.as_uri()), tmp_path / "out")


def test_extract_url_reads_http(tmp_path: Path):
    pack(tmp_path / "a.tar.gz")

    with serve(200, (tmp_path / "a.tar.gz").read_bytes()) as url:
        extract_url(UrlSource(url=url), tmp_path / "out")

    assert (tmp_path / "out/good/first.txt").read_bytes() == b"first"


def test_extract_url_asks_to_retry_when_the_connection_ends_early(tmp_path: Path):
    pack(tmp_path / "a.tar")
    body = (tmp_path / "a.tar").read_bytes()

    with (
        serve(200, body[:-40], length=len(body)) as url,
        pytest.raises(RetryableError, match=r"connection (ended|lost).*; run again"),
    ):
        extract_url(UrlSource(url=url), tmp_path / "out")


@pytest.mark.parametrize(
    ("status", "error"), [(404, DataError), (403, DataError), (503, RetryableError)]
)
def test_extract_url_reports_status(tmp_path: Path, status, error):
    with (
        serve(status) as url,
        pytest.raises(error, match=f"the server answers {status} .*; check the address"),
    ):
        extract_url(UrlSource(url=url), tmp_path / "out")


PAGE = b"<!doctype html>\n<html><head><title>Sign in</title></head>" + b"<p>x" * 9000


@pytest.mark.parametrize("kind", ["text/html; charset=utf-8", "application/gzip"])
def test_extract_url_refuses_a_page_with_its_title(tmp_path: Path, kind: str):
    with serve(200, PAGE, **{"Content-Type": kind}) as url, pytest.raises(DataError) as caught:
        extract_url(UrlSource(url=f"{url}?token=secret"), tmp_path / "out")

    assert str(caught.value).startswith(
        f"{url}?...: got an HTML page titled 'Sign in' instead of the file; a login page, a proxy or"
    )


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"error": "token expired"}', 'got JSON instead of an archive: \'{"error": "token exp'),
        (b"rate limited,\ntry later " * 90, "got text instead of an archive: 'rate limited, try"),
        (
            "<Error>caf\u00e9 \u2192".encode() * 99,
            "got text instead of an archive: '<Error>caf\u00e9",
        ),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
            "a Git LFS pointer",
        ),
        (b"PK\x03\x04" + bytes(600), "a zip archive; pack the files as .tar"),
        (b"\xff\xfe\x00garbage" * 90, "damaged or no tar archive: "),
        (b"\x00\x01" * 300, "damaged or no tar archive: "),
    ],
)
def test_what_is_no_archive_is_called_what_it_is(tmp_path: Path, body: bytes, message: str):
    with serve(200, body) as url, pytest.raises(DataError) as caught:
        extract_url(UrlSource(url=url), tmp_path / "out")

    assert str(caught.value).startswith(f"{url}: {message}")


def test_extract_url_refuses_a_compressed_page(tmp_path: Path):
    headers = {"Content-Encoding": "gzip", "Content-Type": "text/html"}
    with (
        serve(200, gzip.compress(PAGE), **headers) as url,
        pytest.raises(DataError, match=r"got an HTML page titled 'Sign in' instead"),
    ):
        extract_url(UrlSource(url=url), tmp_path / "out")


def test_extract_url_takes_an_archive_that_is_called_compressed(tmp_path: Path):
    pack(tmp_path / "a.tar.gz")
    body = (tmp_path / "a.tar.gz").read_bytes()

    with serve(200, body, **{"Content-Encoding": "x-gzip"}) as url:
        extract_url(UrlSource(url=url), tmp_path / "out")

    assert (tmp_path / "out/good/first.txt").read_bytes() == b"first"


def test_extract_url_takes_an_archive_that_is_called_a_page(tmp_path: Path):
    pack(tmp_path / "a.tar.gz")

    with serve(200, (tmp_path / "a.tar.gz").read_bytes(), **{"Content-Type": "text/html"}) as url:
        extract_url(UrlSource(url=url), tmp_path / "out")

    assert (tmp_path / "out/good/first.txt").read_bytes() == b"first"


def test_extract_url_tells_where_a_redirect_to_a_page_went(tmp_path: Path):
    with serve(200, PAGE) as login, serve(302, Location=f"{login}?next=secret") as url:
        message = rf"{url}: got an HTML page titled 'Sign in' \(from {login}\?\.\.\.\) instead of"
        with pytest.raises(DataError, match=message):
            extract_url(UrlSource(url=url), tmp_path / "out")


@pytest.mark.parametrize(
    ("status", "headers", "body", "words"),
    [
        (
            301,
            {"Location": "/data.tar.gz"},
            b"",
            "answers 301 again and again, a loop of redirects; check",
        ),
        (302, {"Location": "file:///etc/passwd"}, b"", r"'file:///etc/passwd'.* not allowed"),
        (
            404,
            {},
            PAGE,
            "the server answers 404 Not Found with an HTML page titled 'Sign in'; check the address",
        ),
        (
            410,
            {},
            b"moved to the\narchive",
            "the server answers 410 Gone: moved to the archive; check",
        ),
        (451, {}, PAGE, "451 Unavailable For Legal Reasons with an HTML page titled 'Sign in'"),
        (
            403,
            {},
            b"<Error><Message>Request has expired</Message></Error>",
            "403 Forbidden: Request has expired;",
        ),
        (200, {}, b"", "the server sends an empty file; check the address"),
    ],
)
def test_extract_url_tells_what_the_server_says(tmp_path: Path, status, headers, body, words):
    with serve(status, body, **headers) as url, pytest.raises(DataError, match=words) as caught:
        extract_url(UrlSource(url=url), tmp_path / "out")

    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("length", ["many", "-1", ""])
def test_extract_url_does_without_a_length_that_is_none(tmp_path: Path, length: str):
    pack(tmp_path / "a.tar.gz")

    with serve(200, (tmp_path / "a.tar.gz").read_bytes(), length) as url:
        extract_url(UrlSource(url=url), tmp_path / "out")

    assert (tmp_path / "out/good/first.txt").read_bytes() == b"first"


def test_extract_url_shows_no_signature(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    pack(tmp_path / "a.tar.gz")
    body = (tmp_path / "a.tar.gz").read_bytes()

    with caplog.at_level(logging.INFO), serve(200, body) as url:
        extract_url(UrlSource(url=f"{url}?signature=secret"), tmp_path / "out")
        wrong = UrlSource(url=f"{url}?signature=secret", sha256="0" * 64)
        with pytest.raises(DataError, match=r"data\.tar\.gz\?\.\.\.: sha256 is") as caught:
            extract_url(wrong, tmp_path / "other")

    assert "secret" not in caplog.text + str(caught.value)


def test_extract_url_asks_to_retry_without_a_server(tmp_path: Path):
    with serve(200) as url:
        pass

    with pytest.raises(RetryableError, match="check the network and run again"):
        extract_url(UrlSource(url=url), tmp_path / "out")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("ftp://host/a.tar", "scheme 'ftp'; use one of http, https, file"),
        ("a.tar", "scheme ''; use one of"),
        ("file:///nowhere/a.tar", "No such file"),
        ("file:///etc", "file:///etc: is a folder; give it as path, or pack it"),
        ("http://127.0.0.1:1/a b.tar", "no valid address .*write spaces and letters other than"),
        ("http://127.0.0.1:1/ä.tar", "no valid address"),
        ("http://127.0.0.1:port/a.tar", "no valid address"),
    ],
)
def test_extract_url_refuses_address(tmp_path: Path, url, message):
    with pytest.raises(DataError, match=message):
        extract_url(UrlSource(url=url), tmp_path / "out")


# --- archives that are not whole, or larger than they look --------------------------------------


def refused(path: Path, folder: Path) -> str:
    """The message with which an archive on disk is refused; nothing else than a DataError passes."""
    with pytest.raises(DataError) as caught:
        extract_file(path, folder, "a.tar")
    return str(caught.value)


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_every_truncation_is_noticed(tmp_path: Path, mode: str):
    path, cut = tmp_path / "a.tar", tmp_path / "cut.tar"
    pack(path, *((f"f{n}", {}) for n in range(20)), mode=mode)
    whole = path.read_bytes()
    end = (
        len(whole) if ":" in mode else 512 * 2 * 21
    )  # the zeros after the first block may be absent

    for number, size in enumerate(range(0, end, max(1, end // 60))):
        cut.write_bytes(whole[:size])
        assert "a.tar: " in refused(cut, tmp_path / f"out{number}")


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2", "w:xz"])
def test_every_flipped_bit_of_a_compressed_archive_is_noticed(tmp_path: Path, mode: str):
    path, flipped = tmp_path / "a.tar", tmp_path / "flipped.tar"
    pack(path, *((f"f{n}", {"content": bytes([n]) * 700}) for n in range(8)), mode=mode)
    extract_file(path, tmp_path / "whole", "a.tar")
    whole, right = path.read_bytes(), contents(tmp_path / "whole")
    refusals = 0

    for number, place in enumerate(range(0, len(whole), max(1, len(whole) // 80))):
        content = bytearray(whole)
        content[place] ^= 1 << number % 8
        flipped.write_bytes(content)
        out = tmp_path / f"out{number}"
        try:
            extract_file(flipped, out, "a.tar")
        except DataError:
            refusals += 1
        else:  # a bit that says nothing, such as one of the time in the header of gzip
            assert contents(out) == right
    assert refusals > 60


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_flipped_bit_in_a_header_of_a_plain_archive_is_noticed(tmp_path: Path):
    path = tmp_path / "a.tar"
    pack(path, ("second", {}), ("third", {}), mode="w")
    content = bytearray(path.read_bytes())
    content[1024 + 3] ^= 1
    path.write_bytes(content)

    assert "a header is wrong (bad checksum)" in refused(path, tmp_path / "out")


def test_second_archive_behind_the_first_is_noticed(tmp_path: Path):
    path = tmp_path / "a.tar"
    pack(path, mode="w")
    path.write_bytes(path.read_bytes() * 2)

    assert "something follows the end of the archive" in refused(path, tmp_path / "out")


def test_parts_that_are_compressed_one_by_one_are_read(tmp_path: Path):
    path, out = tmp_path / "a.tar", tmp_path / "out"
    pack(path, ("second", {"content": bytes(5000)}), mode="w")
    whole = path.read_bytes()
    for number, compress in enumerate((gzip.compress, bz2.compress, lzma.compress)):
        path.write_bytes(compress(whole[:1000]) + compress(whole[1000:]))
        extract_file(path, out / str(number), "a.tar")

        assert (out / str(number) / "second").read_bytes() == bytes(5000)


def test_zeros_that_are_compressed_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tar_stream, "FREE_BYTES", 1 << 20)
    path = tmp_path / "a.tar"
    for mode in ("w:gz", "w:bz2", "w:xz"):
        pack(path, ("zeros", {"content": bytes(8 << 20)}), mode=mode)

        assert "over 200 times as many" in refused(path, tmp_path / mode[2:])


@pytest.mark.parametrize(
    "kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK]
)
def test_header_of_gigabytes_is_refused_before_it_is_read(tmp_path: Path, kind: bytes):
    header = tarfile.TarInfo("header")
    header.type, header.size = kind, 3 << 30
    path = tmp_path / "a.tar"
    path.write_bytes(header.tobuf() + bytes(10240))

    assert "a header of 3221225472 bytes" in refused(path, tmp_path / "out")


def sparse_member(name: str, size: int) -> bytes:
    """An archive with one file that is a hole, as GNU tar writes it (format 1.0)."""
    header = tarfile.TarInfo(f"GNUSparseFile.0/{name}")
    header.pax_headers = {
        "GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": name, "GNU.sparse.realsize": str(size),
    }  # fmt: skip
    content = b"1\n0\n1\n".ljust(512, b"\0") + b"x".ljust(512, b"\0")
    header.size = 513
    return header.tobuf(tarfile.PAX_FORMAT) + content + bytes(10240)


def test_sparse_file_is_refused(tmp_path: Path):
    path = tmp_path / "a.tar"
    path.write_bytes(sparse_member("big.mp4", 10 << 30))

    assert "member 'big.mp4' is a sparse file" in refused(path, tmp_path / "out")


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({"path": "a\0b"}, "a header is wrong|has a control character in its name|damaged"),
        ({"size": "-5"}, "has -5 bytes|a header"),
        ({"size": "99999999999999"}, "has 99999999999999 bytes"),
        ({"path": "../evil"}, "leaves the folder"),
        ({"path": "/evil"}, "has an absolute path"),
    ],
)
def test_attributes_of_a_member_are_checked_too(tmp_path: Path, headers, message):
    header = tarfile.TarInfo("f")
    header.pax_headers = headers
    path = tmp_path / "a.tar"
    path.write_bytes(header.tobuf(tarfile.PAX_FORMAT) + bytes(10240))

    assert re.search(message, refused(path, tmp_path / "out"))


def test_number_of_members_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(archives, "MAX_MEMBERS", 10)
    path = tmp_path / "a.tar"
    pack(path, *((f"f{n}", {}) for n in range(20)), mode="w")

    assert "has more than 10 members" in refused(path, tmp_path / "out")


def test_file_that_is_larger_than_the_disk_is_told_before_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "a.tar"
    pack(path, ("big", {"content": bytes(1000)}), mode="w")
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda _: SimpleNamespace(free=999))

    with pytest.raises(
        RetryableError, match=r"'big' has 1000 bytes, and .* has 999 left; make room"
    ):
        extract_file(path, tmp_path / "out", "a.tar")
    assert not (tmp_path / "out" / "big").exists()
