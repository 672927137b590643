"""A Hugging Face Hub on the loopback interface: the few routes that a snapshot download needs."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import unquote, urlsplit

import pytest
from huggingface_hub import constants

COMMIT = "0123456789abcdef0123456789abcdef01234567"
DEFAULT_REPO = "owner/name"


class FakeHub:
    """Repositories, each with the files of a folder. A file is called by its name, of owner/name, else repo/name."""

    def __init__(self, folders: dict[str, Path], repo_type: str) -> None:
        self.folders = folders
        self.repo_type = repo_type
        self.url = ""
        self.token: str | None = None
        """The token that every request must have; None = none is needed."""
        self.downloads: list[str] = []
        """Files that were downloaded, in order."""
        self.failing: set[str] = set()
        """Files for which the server answers 403."""
        self.refusals: dict[str, tuple[int, dict[str, str], bytes]] = {}
        """Files, or ``api`` for everything else, that get this answer."""
        self.pause_s: dict[str, float] = {}
        """Files for which the server waits so long near the end."""
        self.breaks: dict[str, int] = {}
        """Files whose connection ends near the end, and how often."""
        self.ranges: list[tuple[str, str | None]] = []
        """Files and the range that was asked for, in order."""

    def file_of(self, path: str) -> str | None:
        """The file that a path stands for."""
        prefix = "/datasets" if self.repo_type == "dataset" else ""
        match = re.match(rf"^{prefix}/([^/]+/[^/]+)/resolve/{COMMIT}/(.+)$", path)
        if match is None or match[1] not in self.folders:
            return None
        return match[2] if match[1] == DEFAULT_REPO else f"{match[1]}/{match[2]}"

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of a request."""
        kind = self.file_of(path) or "api"
        if kind in self.refusals:
            return self.refusals[kind]
        api = re.match(rf"^/api/{self.repo_type}s/([^/]+/[^/]+)(/revision/.+|/tree/.+)?$", path)
        if api is not None and api[1] in self.folders:
            return self._describe(api[1], api[2] or "")
        name = self.file_of(path)
        if name is None:
            return 404, {"X-Error-Code": "RepoNotFound"}, b""
        if name in self.failing:
            return 403, {}, b""
        repo, _, file = path.lstrip("/").partition(f"/resolve/{COMMIT}/")
        content = (self.folders[repo.removeprefix("datasets/")] / file).read_bytes()
        etag = hashlib.sha256(content).hexdigest()
        return 200, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT}, content

    def respond(
        self, path: str, name: str | None, sent: Mapping[str, str]
    ) -> tuple[int, dict[str, str], bytes]:
        """Like :meth:`answer`, with token and range of the request; name is that of a file that is downloaded."""
        if self.token is not None and sent.get("Authorization") != f"Bearer {self.token}":
            return 401, {}, b""
        status, headers, body = self.answer(path)
        if name is None or status != 200:
            return status, headers, body
        wanted = sent.get("Range")
        self.ranges.append((name, wanted))
        if wanted is None:
            return status, headers, body
        start = int(wanted.removeprefix("bytes=").partition("-")[0])
        part = f"bytes {start}-{len(body) - 1}/{len(body)}"
        return 206, {**headers, "Content-Range": part}, body[start:]

    def _describe(self, repo: str, what: str) -> tuple[int, dict[str, str], bytes]:
        if what in ("", "/revision/main", f"/revision/{COMMIT}"):
            return self._json({"id": repo, "sha": COMMIT, "siblings": []})
        if what != f"/tree/{COMMIT}":
            return 404, {"X-Error-Code": "RevisionNotFound"}, b""
        folder = self.folders[repo]
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        return self._json([self._entry(path, folder) for path in paths])

    def _entry(self, path: Path, folder: Path) -> dict[str, object]:
        name = path.relative_to(folder).as_posix()
        oid = hashlib.sha256(path.read_bytes()).hexdigest()[:40]
        return {"type": "file", "path": name, "size": path.stat().st_size, "oid": oid}

    def _json(self, value: object) -> tuple[int, dict[str, str], bytes]:
        return 200, {"Content-Type": "application/json"}, json.dumps(value).encode()


@contextmanager
def serve_hub(folder: Path | dict[str, Path], repo_type: str = "model") -> Iterator[FakeHub]:
    """Serve the files of a folder as repository owner/name, or several by their names; revision main."""
    hub = FakeHub(folder if isinstance(folder, dict) else {DEFAULT_REPO: folder}, repo_type)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = unquote(urlsplit(self.path).path)
            name = hub.file_of(path) if self.command == "GET" else None
            status, headers, body = hub.respond(path, name, self.headers)
            name = name if status < 300 else None
            self.send_response(status)
            for header, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(header, value)
            self.end_headers()
            if self.command == "GET":
                self.send_body(name, body)

        def send_body(self, name: str | None, body: bytes) -> None:
            cut = len(body) * 9 // 10
            self.wfile.write(body[:cut])
            self.wfile.flush()
            if name is not None and hub.breaks.get(name, 0):
                hub.breaks[name] -= 1
                self.close_connection = True
                return
            time.sleep(hub.pause_s.get(name or "", 0))
            self.wfile.write(body[cut:])
            if name is not None:
                hub.downloads.append(name)

        do_HEAD = do_GET

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        hub.url = f"http://127.0.0.1:{server.server_port}"
        try:
            yield hub
        finally:
            server.shutdown()
            thread.join()


def point_client(
    monkeypatch: pytest.MonkeyPatch, url: str, cache: Path, *, offline: bool = False
) -> None:
    """Set what the client library takes from HF_ENDPOINT, HF_HUB_CACHE and HF_HUB_OFFLINE at its import."""
    template = url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
