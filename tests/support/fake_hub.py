"""A Hugging Face Hub on the loopback interface: the few routes that a snapshot download needs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import unquote, urlsplit

import pytest
from huggingface_hub import constants

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class FakeHub:
    """One repository, owner/name, with the files of a folder."""

    def __init__(self, folder: Path, repo_type: str) -> None:
        self.folder = folder
        self.repo_type = repo_type
        self.url = ""
        self.downloads: list[str] = []
        """Files that were downloaded, in order."""
        self.failing: set[str] = set()
        """Files for which the server answers 403."""

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of a request."""
        api = f"/api/{self.repo_type}s/owner/name"
        prefix = "/datasets" if self.repo_type == "dataset" else ""
        files = f"{prefix}/owner/name/resolve/{COMMIT}/"
        if path in (f"{api}/revision/main", f"{api}/revision/{COMMIT}", api):
            return self._json({"id": "owner/name", "sha": COMMIT, "siblings": []})
        if path.startswith(f"{api}/revision/"):
            return 404, {"X-Error-Code": "RevisionNotFound"}, b""
        if path == f"{api}/tree/{COMMIT}":
            return self._json(
                [self._entry(p) for p in sorted(self.folder.rglob("*")) if p.is_file()]
            )
        if path.startswith(files):
            name = path.removeprefix(files)
            if name in self.failing:
                return 403, {}, b""
            content = (self.folder / name).read_bytes()
            etag = hashlib.sha256(content).hexdigest()
            return 200, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT}, content
        return 404, {"X-Error-Code": "RepoNotFound"}, b""

    def _entry(self, path: Path) -> dict[str, object]:
        name = path.relative_to(self.folder).as_posix()
        oid = hashlib.sha256(path.read_bytes()).hexdigest()[:40]
        return {"type": "file", "path": name, "size": path.stat().st_size, "oid": oid}

    def _json(self, value: object) -> tuple[int, dict[str, str], bytes]:
        return 200, {"Content-Type": "application/json"}, json.dumps(value).encode()


@contextmanager
def serve_hub(folder: Path, repo_type: str = "model") -> Iterator[FakeHub]:
    """Serve the files of a folder as repository owner/name, revision main."""
    hub = FakeHub(folder, repo_type)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = unquote(urlsplit(self.path).path)
            status, headers, body = hub.answer(path)
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)
                if "/resolve/" in path and status == 200:
                    hub.downloads.append(path.split(f"{COMMIT}/")[1])

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
