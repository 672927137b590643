"""An S3 store on the loopback interface: moto's server behind injected faults of networks and servers."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache, cached_property
from pathlib import Path
from threading import Thread
from typing import Any

import boto3
import botocore.session
import pytest
from botocore.config import Config
from botocore.loaders import Loader
from moto.moto_api._internal.models import moto_api_backend
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

BUCKET = "robots"
KEYS = {"AWS_ACCESS_KEY_ID": "AKIDTEST", "AWS_SECRET_ACCESS_KEY": "very-secret-value"}
PAGE = (
    b"<!DOCTYPE html><html><head><title>Sign in &amp; go on</title></head><body>login</body></html>"
)
XML = """<?xml version="1.0" encoding="UTF-8"?>
<Error><Code>{code}</Code><Message>{message}</Message></Error>"""

Answer = tuple[int, dict[str, str], bytes]


class S3Store:
    """The store, its buckets, and what was asked of it.

    Attributes:
        asked: method, path and range of every request, in order.
        sent_bytes: bytes of objects that went out.
        refuse: gives another answer to a request of (method, path), or None.
        break_after: objects' bytes after which the connection breaks, once.
        spoils: whether objects arrive with other bytes than are stored.
        before_object: called with the key before an object is sent.
    """

    def __init__(self, url: str = "") -> None:
        self.url = url
        self.reset()

    def reset(self) -> None:
        """Empty the store but for one empty bucket, and remove all faults."""
        moto_api_backend.reset()
        self.asked: list[tuple[str, str, str | None]] = []
        self.sent_bytes = 0
        self.refuse: Callable[[str, str], Answer | None] = lambda method, path: None
        self.break_after: int | None = None
        self.spoils = False
        self.before_object: Callable[[str], None] = lambda key: None
        self.authorizations: list[str | None] = []
        if self.url:
            self.client.create_bucket(Bucket=BUCKET)

    @cached_property
    def client(self) -> Any:
        """A client to fill the store with."""
        return boto3.client(
            "s3",
            endpoint_url=self.url,
            region_name="us-east-1",
            aws_access_key_id="filler",
            aws_secret_access_key="filler",
            config=Config(s3={"addressing_style": "path"}),
        )

    def put(self, key: str, body: bytes = b"", **options: Any) -> None:
        """Store an object."""
        self.client.put_object(Bucket=BUCKET, Key=key, Body=body, **options)

    def put_folder(self, folder: Path, prefix: str) -> None:
        """Store all files of a folder below a prefix."""
        client = self.client
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                key = f"{prefix}/{path.relative_to(folder).as_posix()}"
                client.put_object(Bucket=BUCKET, Key=key, Body=path.read_bytes())

    def forget(self) -> None:
        """Forget the requests so far."""
        self.asked.clear()
        self.sent_bytes = 0

    def objects_asked(self) -> list[str]:
        """Keys of the objects that were asked for, in order."""
        return [
            path.removeprefix(f"/{BUCKET}/")
            for method, path, _ in self.asked
            if method == "GET" and path.startswith(f"/{BUCKET}/") and path != f"/{BUCKET}/"
        ]

    def answer(self, app: Any, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """The WSGI application before that of moto."""
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        is_object = method == "GET" and bool(re.match(rf"^/{BUCKET}/.+", path))
        if "filler" not in environ.get("HTTP_AUTHORIZATION", ""):
            self.asked.append((method, path, environ.get("HTTP_RANGE")))
            self.authorizations.append(environ.get("HTTP_AUTHORIZATION"))
            refused = self.refuse(method, path)
            if refused is not None:
                status, headers, body = refused
                headers = {"Content-Length": str(len(body)), **headers}
                start_response(f"{status} Refused", list(headers.items()))
                return [body] if method != "HEAD" else []
            if is_object:
                self.before_object(path.removeprefix(f"/{BUCKET}/"))
        pieces = app(environ, start_response)
        return self._send(pieces) if is_object else pieces

    def _send(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            if self.break_after is not None and len(piece) > self.break_after:
                cut, self.break_after = self.break_after, None
                self.sent_bytes += cut
                yield piece[:cut]
                raise ConnectionResetError
            self.sent_bytes += len(piece)
            yield b"?" * len(piece) if self.spoils else piece


def error_answer(status: int, code: str, message: str = "said the store", **headers: str) -> Answer:
    """An error as S3 answers it."""
    return (
        status,
        {"Content-Type": "application/xml", **headers},
        XML.format(code=code, message=message).encode(),
    )


class _Quiet(WSGIRequestHandler):
    def log(self, *args: Any) -> None:
        pass


@contextmanager
def serve_s3() -> Iterator[S3Store]:
    """Serve an empty store with the bucket ``robots``."""
    store = S3Store()
    app = DomainDispatcherApplication(create_backend_app)
    server = make_server(
        "127.0.0.1",
        0,
        lambda env, start: store.answer(app, env, start),
        threaded=True,
        request_handler=_Quiet,
    )
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    store.url = f"http://127.0.0.1:{server.server_port}"
    store.reset()
    try:
        yield store
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def set_credentials(monkeypatch: pytest.MonkeyPatch, folder: Path, values: dict[str, str]) -> None:
    """Let boto3 see these variables and nothing else of this machine."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    settings = {
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": str(folder / "no-config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(folder / "no-credentials"),
        **values,
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)


@cache
def _descriptions() -> Loader:
    return Loader()


def share_descriptions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let all clients of a test run read botocore's descriptions of services once: they are megabytes of JSON."""
    monkeypatch.setattr(botocore.session, "create_loader", lambda path: _descriptions())
