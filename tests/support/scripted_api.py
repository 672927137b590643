"""An API server that gives the answers that a test has set."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer
from kubernetes.aio.client.configuration import Configuration

from cosmos_operator.kube.client import Client
from cosmos_operator.kube.cluster import KubeCluster


@dataclass
class Answer:
    status: int = 200
    body: Any = field(default_factory=dict)
    delay_s: float = 0.0


def refusal(status: int, reason: str = "", message: str = "because") -> Answer:
    return Answer(status, {"kind": "Status", "reason": reason, "message": message, "code": status})


@dataclass
class Request:
    method: str
    path: str
    query: dict[str, str]
    body: Any
    content_type: str
    headers: dict[str, str]
    raw_path: str


class ScriptedApiServer:
    """Answers with what a test put into ``answers``, by method and path; else 404."""

    def __init__(self) -> None:
        self.answers: dict[str, list[Answer]] = {}
        self.requests: list[Request] = []

    def on(self, request: str, *answers: Answer) -> None:
        """The last answer is given for ever."""
        self.answers[request] = list(answers)

    async def handle(self, request: web.Request) -> web.Response:
        text = await request.text()
        body = json.loads(text) if text else None
        self.requests.append(
            Request(
                request.method,
                request.path,
                dict(request.query),
                body,
                request.content_type,
                dict(request.headers),
                request.raw_path,
            )
        )
        answers = self.answers.get(f"{request.method} {request.path}")
        if answers is None:
            return web.Response(status=404, text="404 page not found\n")
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        await asyncio.sleep(answer.delay_s)
        if isinstance(answer.body, str):
            return web.Response(status=answer.status, text=answer.body)
        return web.json_response(answer.body, status=answer.status)


@dataclass
class Rig:
    api: ScriptedApiServer
    cluster: KubeCluster
    configuration: Configuration

    @property
    def last(self) -> Request:
        return self.api.requests[-1]


@asynccontextmanager
async def scripted_api() -> AsyncIterator[Rig]:
    api = ScriptedApiServer()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", api.handle)
    async with TestServer(app) as server:
        configuration = Configuration(host=str(server.make_url("")).rstrip("/"))
        cluster = KubeCluster(Client(configuration))
        yield Rig(api, cluster, configuration)
        await cluster.close()
