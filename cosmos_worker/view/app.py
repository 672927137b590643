"""The web application: routes, methods, headers of every answer, and errors as pages."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cosmos_worker.view.compare_page import ComparePage
from cosmos_worker.view.dataset_pages import DatasetPages
from cosmos_worker.view.folders import NotShownError
from cosmos_worker.view.pages import Viewer
from cosmos_worker.view.rendering import script, style

LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")
SECURE = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Frame-Options": "DENY",
}


def page_policy(nonce: str) -> str:
    """The Content-Security-Policy of a page: what it loads comes from here, and its one script has the nonce."""
    return (
        f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'self'; img-src 'self' data:; media-src 'self'; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )


def host_name(header: str) -> str:
    """The name in a Host header without the port: example.org, or ::1 of [::1]:8080."""
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.rpartition(":")[0] if ":" in header else header


class Guarded:
    """Refuses names of hosts that are not ours, and adds the headers that every answer has.

    A page of a stranger could otherwise let its own name lead to this machine and read what is shown here.
    """

    def __init__(self, app: ASGIApp, hosts: Sequence[str]) -> None:
        self._app = app
        self._hosts = {host.lower() for host in hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope.setdefault("state", {})["nonce"] = nonce = secrets.token_urlsafe(16)
        host = host_name(Headers(scope=scope).get("host", "")).lower()

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURE.items():
                    headers.setdefault(name, value)
                headers.setdefault("Content-Security-Policy", page_policy(nonce))
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        if host not in self._hosts and "*" not in self._hosts:
            sentence = f"host {host[:100]!r} is not served here; start with --allow-host NAME"
            await PlainTextResponse(sentence, 421)(scope, receive, send_guarded)
            return
        await self._app(scope, receive, send_guarded)


def _static(content: bytes, kind: str) -> Any:  # noqa: ANN401 - an endpoint
    async def answer(request: Request) -> Response:
        return Response(content, media_type=kind, headers={"Cache-Control": "private, no-cache"})

    return answer


async def _healthy(request: Request) -> Response:
    return PlainTextResponse("ok")


def build_app(viewer: Viewer, hosts: Sequence[str] = ()) -> ASGIApp:
    """The application.

    Args:
        viewer: makes the pages.
        hosts: names under which it is served beside those of this machine; "*" = any.
    """

    async def on_error(request: Request, error: Exception) -> Response:
        status, headers = 404, None
        if isinstance(error, HTTPException):
            status, headers = error.status_code, error.headers
        return _error_page(viewer, request, status, headers)

    datasets, compare = DatasetPages(viewer), ComparePage(viewer)
    routes = [
        Route("/", viewer.jobs),
        Route("/compare", compare.compare),
        Route("/datasets", datasets.datasets),
        Route("/datasets/{address:path}", datasets.dataset),
        Route("/jobs/{address:path}", viewer.job),
        Route("/files/{address:path}", viewer.file),
        Route("/static/style.css", _static(style(), "text/css")),
        Route("/static/view.js", _static(script(), "text/javascript")),
        Route("/healthz", _healthy),
    ]
    inner = Starlette(
        routes=routes, exception_handlers={HTTPException: on_error, NotShownError: on_error}
    )
    return Guarded(inner, [*LOCAL_HOSTS, *hosts])


SENTENCES = {
    404: "Nothing that may be shown has this address. It may have been removed, or it is a link out of the folder.",
    405: "This address only answers GET and HEAD.",
}


def _error_page(
    viewer: Viewer, request: Request, status: int, headers: Mapping[str, str] | None
) -> Response:
    values = {
        "status": status,
        "title": "Not found" if status == 404 else f"Error {status}",
        "sentence": SENTENCES.get(status, "The request cannot be answered."),
    }
    text = viewer.page(request, "error.html.j2", "", values)
    return HTMLResponse(text, status, headers=dict(headers or {}))
