"""Watches: what changed since a version, then every change as it happens."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

from aiohttp import web

from support.fakekube import errors
from support.fakekube.resources import Object
from support.fakekube.selection import Test, parse_fields, parse_labels
from support.fakekube.store import Event, Store

if TYPE_CHECKING:
    from support.fakekube.server import Call

BOOKMARK_S = 60.0
LONGEST_S = 1800.0
END_OF_LIST = {"k8s.io/initial-events-end": "true"}


class Watches:
    """The open watches."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.bookmark_s = BOOKMARK_S
        self._queues: dict[asyncio.Queue[Event | None], Call] = {}
        store.listeners.append(self._deliver)

    def _deliver(self, event: Event) -> None:
        for queue in self._queues:
            queue.put_nowait(event)

    def open(self) -> list[Call]:
        """The watches that are open now."""
        return list(self._queues.values())

    def drop(self) -> None:
        """Close all watches, as a server that restarts."""
        for queue in self._queues:
            queue.put_nowait(None)

    async def serve(self, call: Call, request: web.Request) -> web.StreamResponse:
        """Answer a watch until its time is over or the client leaves."""
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        queue: asyncio.Queue[Event | None] = asyncio.Queue()
        try:
            first = self._first_lines(call)
            self._queues[queue] = call  # before anything else can happen
            for line in first:
                await response.write(line)
            await self._follow(call, queue, response)
        except errors.ApiError as error:
            event = {"type": "ERROR", "object": error.to_status()}
            await response.write(json.dumps(event).encode() + b"\n")
        except ConnectionResetError:
            pass
        finally:
            self._queues.pop(queue, None)
        return response

    def _first_lines(self, call: Call) -> list[bytes]:
        """Events since the client's version; without one, all objects."""
        test, asked = _selection(call), call.query.get("resourceVersion", "")
        starts_with_list = call.has("sendInitialEvents")
        if asked in ("", "0") or starts_with_list:
            found = self.store.list(call.resource.key, call.namespace)
            lines = [_line("ADDED", call.shown(obj)) for obj in found if test(obj)]
            return [*lines, self._bookmark(call, END_OF_LIST)] if starts_with_list else lines
        since = int(asked)
        if since < self.store.oldest:
            raise errors.expired(since, self.store.oldest)
        missed = [event for event in self.store.history if event.version > since]
        return [line for event in missed if (line := _line_for(event, call, test))]

    async def _follow(
        self, call: Call, queue: asyncio.Queue[Event | None], response: web.StreamResponse
    ) -> None:
        loop, test = asyncio.get_running_loop(), _selection(call)
        end = loop.time() + float(call.query.get("timeoutSeconds") or LONGEST_S)
        while (left := end - loop.time()) > 0:
            try:
                event = await asyncio.wait_for(queue.get(), min(left, self.bookmark_s))
            except TimeoutError:
                if call.has("allowWatchBookmarks"):
                    await response.write(self._bookmark(call))
                continue
            if event is None:
                return
            line = _line_for(event, call, test)
            if line:
                await response.write(line)

    def _bookmark(self, call: Call, annotations: dict[str, str] | None = None) -> bytes:
        meta: Object = {"resourceVersion": str(self.store.version)}
        if annotations:
            meta["annotations"] = annotations
        resource = call.resource
        obj = {"kind": resource.kind, "apiVersion": resource.api_version, "metadata": meta}
        return _line("BOOKMARK", obj)


def _line(event_type: str, obj: Object) -> bytes:
    return json.dumps({"type": event_type, "object": obj}).encode() + b"\n"


def _selection(call: Call) -> Test:
    labels = parse_labels(call.query.get("labelSelector", ""))
    fields = parse_fields(call.query.get("fieldSelector", ""))
    fields_with_name = parse_fields(f"metadata.name={call.name}") if call.name else fields
    return lambda obj: labels(obj) and fields(obj) and fields_with_name(obj)


def _line_for(event: Event, call: Call, test: Test) -> bytes | None:
    """The event as this watch sees it: an object that leaves the selection is gone."""
    if event.resource.key != call.resource.key:
        return None
    if call.namespace and event.obj["metadata"].get("namespace") != call.namespace:
        return None
    was = event.previous is not None and test(event.previous)
    now = event.type != "DELETED" and test(event.obj)
    if not (now or was):
        return None
    kind = "DELETED" if not now else "MODIFIED" if was else "ADDED"
    return _line(kind, call.shown(event.obj)) if call.only_metadata else event.line(kind)
