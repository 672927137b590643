"""A small client of the API server with many connections; it shares no code with the operator that is measured."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any

import aiohttp

CONNECTIONS = 32
"""Requests that are made at the same time."""
JOBS = "/apis/cosmos.dev/v1alpha1"
CONTENT_TYPES = {
    "json": "application/json",
    "merge": "application/merge-patch+json",
    "apply": "application/apply-patch+yaml",
}
PAGE_SIZE = 500

Object = dict[str, Any]


class Refusal(Exception):  # noqa: N818 - it is an answer
    """The API server refused a request."""


class Api:
    """A client of one API server, as an administrator.

    Args:
        url: of the API server.
        tls: knows its certificate authority.
        token: of the administrator.
    """

    def __init__(self, url: str, tls: ssl.SSLContext, token: str) -> None:
        self._url = url
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=tls, limit=0),
            headers={"Authorization": f"Bearer {token}"},
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=30),
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()

    async def call(
        self,
        verb: str,
        path: str,
        body: Object | None = None,
        form: str = "json",
        **query: str | int,
    ) -> Object:
        """The answer to a request.

        Raises:
            Refusal: the API server refused it.
        """
        status, answer = await self.answer(verb, path, body, form, **query)
        if status >= 300:
            raise Refusal(f"{verb} {path}: HTTP {status}: {answer.get('message', answer)}")
        return answer

    async def answer(
        self,
        verb: str,
        path: str,
        body: Object | None = None,
        form: str = "json",
        **query: str | int,
    ) -> tuple[int, Object]:
        """Status and body of an answer."""
        async with self._session.request(
            verb,
            self._url + path,
            params={name: str(value) for name, value in query.items()},
            data=None if body is None else json.dumps(body),
            headers={"Content-Type": CONTENT_TYPES[form]},
        ) as response:
            data = await response.read()
            try:
                return response.status, json.loads(data)
            except ValueError:
                return response.status, {"message": data.decode(errors="replace")}

    async def list(self, path: str, **query: str | int) -> list[Object]:
        """All objects at a path."""
        found, token = [], ""
        while True:
            page = {"limit": PAGE_SIZE, **({"continue": token} if token else {})}
            answer = await self.call("GET", path, **page, **query)
            found += answer["items"]
            token = answer["metadata"].get("continue", "")
            if not token:
                return found

    async def watch(self, path: str, **query: str | int) -> AsyncIterator[tuple[str, Object]]:
        """Type and object of every event for ever, beginning with an ADDED for each object that exists."""
        version = ""
        while True:
            if not version:
                answer = await self.call("GET", path, **query)
                version = answer["metadata"]["resourceVersion"]
                for item in answer["items"]:
                    yield "ADDED", item
            parameters = {"watch": 1, "resourceVersion": version, **query}
            text = {name: str(value) for name, value in parameters.items()}
            async with self._session.get(
                self._url + path, params=text, read_bufsize=2**24
            ) as response:
                async for line in response.content:
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        version = ""
                        break
                    version = event["object"]["metadata"]["resourceVersion"]
                    yield event["type"], event["object"]


async def in_parallel(
    action: Callable[[Any], Awaitable[object]], things: Iterable[Any], limit: int = CONNECTIONS
) -> None:
    """Carry out an action for each thing, several at the same time; ends with the first error."""
    rest = iter(things)

    async def work() -> None:
        for thing in rest:
            await action(thing)

    async with asyncio.TaskGroup() as group:
        for _ in range(limit):
            group.create_task(work())
