"""Takes the objects out of the lists that kopf asks for, page by page.

kopf would make a task of its own for each listed object, which takes longer than all else of a restart with thousands
of jobs. It goes on to ask for the next page, and then watches from the version of the list.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import aiohttp

from cosmos_operator.kube.kinds import Manifest


@dataclass(frozen=True)
class ListedPage:
    """A page of a list of all objects of a kind."""

    kind: str
    items: list[Manifest]
    version: str
    """resourceVersion of the whole list."""
    is_first: bool
    is_last: bool


TakePage = Callable[[ListedPage], Coroutine[Any, Any, None]]


def make_response_class(kinds: Collection[str], take: TakePage) -> type[aiohttp.ClientResponse]:
    """A class of answers that are read as lists without objects; the objects are taken before.

    Args:
        kinds: kinds whose lists are taken; other answers are read as they are.
        take: receives each page. The next one is asked for when it returns.
    """

    class Response(aiohttp.ClientResponse):
        """An answer of the API server."""

        async def json(self, **options: Any) -> Any:  # noqa: ANN401 - as in aiohttp
            """The JSON document in the answer; if it is a list of these kinds, without its items."""
            document = await super().json(**options)
            kind = str(document.get("kind", "")).removesuffix("List")
            if kind not in kinds or "items" not in document:
                return document
            metadata = document["metadata"]
            items, document["items"] = document["items"] or [], []
            for item in items:  # those of built-in kinds come without the two
                item["kind"], item["apiVersion"] = kind, document["apiVersion"]
            version = str(metadata.get("resourceVersion", ""))
            is_first = "continue" not in self.url.query
            is_last = not metadata.get("continue")
            await take(ListedPage(kind, items, version, is_first=is_first, is_last=is_last))
            return document

    return Response


class Handover:
    """Hands pages over to the event loop of another thread, which takes one while the next is asked for.

    Args:
        loop: the other event loop.
        take: is called there with each page.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, take: TakePage) -> None:
        self._loop, self._take = loop, take
        self._taking: dict[str, Future[None]] = {}

    async def take(self, page: ListedPage) -> None:
        """Hand a page over once the one before has been taken; wait for the last one, which the watch follows."""
        await self._until_taken(page.kind)
        self._taking[page.kind] = asyncio.run_coroutine_threadsafe(self._take(page), self._loop)
        if page.is_last:
            await self._until_taken(page.kind)

    async def _until_taken(self, kind: str) -> None:
        taking = self._taking.pop(kind, None)
        if taking is not None:
            await asyncio.wrap_future(taking)
