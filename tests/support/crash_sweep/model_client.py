"""The network between one operator and the model of the API server: it delays, refuses, cuts, and lets events wait."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from email.utils import format_datetime
from typing import Any

from cosmos_operator.errors import ClusterUnavailable
from cosmos_operator.kube.client import JSON, TIMEOUT_S, Answer, Query
from cosmos_operator.kube.kinds import JobKey, Manifest
from cosmos_operator.kube.lists import WATCH_S
from cosmos_operator.kube.server_clock import ServerClock
from support.crash_sweep.model_server import (
    Change,
    ModelServer,
    Request,
    _selector,
    _without_contents,
    copied,
    read_request,
    refusal,
)

LATENCY_S = (0.002, 0.12)
"""Seconds, least and most, of the way of a request, and of the way of its answer."""
DELIVERY_S = (0.005, 0.6)
"""The same of an event of a watch."""
PASS: ContextVar[JobKey | None] = ContextVar("PASS", default=None)
"""The job over which the running pass is; None outside of passes."""
FAULTS = ("crash-before", "crash-after", "429", "500", "503", "conflict", "cut-before", "cut-after", "timeout-before",
          "timeout-after", "slow")  # fmt: skip
WRITES = ("POST", "PATCH", "PUT", "DELETE")


@dataclass
class Network:
    """Faults of the way to the API server."""

    chance: random.Random
    stalled_until_s: float = 0.0
    """Time until which no event of a watch arrives."""
    epoch: int = 0
    """Grows when all watches are cut."""
    replays: int = 0
    """Grows when watches send earlier events again."""
    num_replayed: int = 0


@dataclass
class ModelClient:
    """Requests of one process of the operator; has the methods of ``kube.client.Client``."""

    server: ModelServer
    network: Network
    sent: Callable[[ModelClient, Request], None]
    """Told of each request before it is sent."""
    answered: Callable[[ModelClient, Request, Answer], None]
    """Told of each request that the API server has carried out."""
    crash: Callable[[], None]
    clock: ServerClock
    name: str = ""
    is_dead: bool = False
    cut_off_until_s: float = 0.0
    armed: dict[int, str] = field(default_factory=dict)
    """Number of a request from now on → fault that it meets."""
    met: list[str] = field(default_factory=list)
    """Faults that requests have met."""

    async def request(
        self,
        method: str,
        path: str,
        query: Query = (),
        body: Manifest | None = None,
        *,
        content_type: str = JSON,
        accept: str = JSON,
        timeout_s: float = TIMEOUT_S,
        timeout_status: int | None = None,
    ) -> Answer:
        request = read_request(method, path, query, copied(body), accept)
        if self.is_dead:
            raise asyncio.CancelledError
        if request is not None:
            self.sent(self, request)
        fault = self._take_fault(method) if request is not None else ""
        await self._travel(fault, timeout_s)
        if fault in ("429", "500", "503", "conflict"):
            status = 409 if fault == "conflict" else int(fault)
            return refusal(status, "Conflict" if fault == "conflict" else "Injected", "injected")
        answer = self.server.answer(request)
        date = format_datetime(self.server.loop.now(), usegmt=True)
        if request is not None:
            self.answered(self, request, answer)
        if fault == "crash-after":
            self._die()
        if fault in ("cut-after", "timeout-after"):
            await self._lose(fault, timeout_s)
        await asyncio.sleep(self.network.chance.uniform(*LATENCY_S))
        self.clock.note(date)
        return answer

    async def _travel(self, fault: str, timeout_s: float) -> None:
        await asyncio.sleep(self.network.chance.uniform(*LATENCY_S))
        if self.server.loop.time() < self.cut_off_until_s:
            await self._lose("cut-before", timeout_s)
        if fault == "crash-before":
            self._die()
        if fault in ("cut-before", "timeout-before"):
            await self._lose(fault, timeout_s)
        if fault == "slow":
            await asyncio.sleep(timeout_s / 2)
        if self.is_dead:
            raise asyncio.CancelledError

    async def _lose(self, fault: str, timeout_s: float) -> None:
        """End a request without an answer."""
        if fault.startswith("timeout"):
            await asyncio.sleep(timeout_s)
        raise ClusterUnavailable(f"injected: {fault}")

    def _die(self) -> None:
        self.crash()
        raise asyncio.CancelledError

    def _take_fault(self, method: str) -> str:
        self.armed = {number - 1: fault for number, fault in self.armed.items()}
        fault = self.armed.pop(-1, "")
        if fault == "conflict" and method not in ("PATCH", "PUT"):
            return ""
        if fault:
            self.met.append(fault)
        return fault

    # --- watches -------------------------------------------------------------------------------

    async def stream(
        self, path: str, query: Query, *, accept: str = JSON, silence_s: float
    ) -> AsyncIterator[Manifest]:
        request = read_request("GET", path, query, None, accept)
        assert request is not None
        await self._travel("", silence_s)
        network, server, loop = self.network, self.server, self.server.loop
        version, epoch, replays = (
            int(request.query["resourceVersion"]),
            network.epoch,
            network.replays,
        )
        if version < server.oldest:
            yield {"type": "ERROR", "object": {"code": 410, "message": "too old resource version"}}
            return
        ends_s = loop.time() + WATCH_S
        labels = _selector(request.query.get("labelSelector", "")).items()
        sent: list[Manifest] = []
        while loop.time() < ends_s:
            await self._news(request.kind, version, ends_s)
            await asyncio.sleep(network.chance.uniform(*DELIVERY_S))
            await asyncio.sleep(max(0.0, network.stalled_until_s - loop.time()))
            if epoch != network.epoch or self.is_dead or loop.time() < self.cut_off_until_s:
                raise ClusterUnavailable("injected: the watch was cut")
            if replays != network.replays:
                replays = network.replays
                for event in self._older(sent[-network.num_replayed :]):
                    yield copied(event)
            for change in server.since(request.kind, version):
                version = change.version
                if labels <= change.body["metadata"].get("labels", {}).items():
                    event = _event(change, request)
                    sent.append(event)
                    yield copied(event)

    def _older(self, events: list[Manifest]) -> list[Manifest]:
        """Of these events, those that tell an older version of an object that is there."""
        return [event for event in events if self._is_older(event["object"])]

    def _is_older(self, body: Manifest) -> bool:
        metadata = body["metadata"]
        found = self.server.get(body["kind"], metadata["name"], metadata["namespace"])
        if found is None or found["metadata"]["uid"] != metadata["uid"]:
            return False
        return bool(found["metadata"]["resourceVersion"] != metadata["resourceVersion"])

    async def _news(self, kind: str, version: int, until_s: float) -> None:
        """Wait until there is a change of a kind after a version, or anything else that watches notice."""
        if self.server.since(kind, version):
            return
        loop = self.server.loop
        waiter = loop.create_future()
        self.server.waiters[kind].append(waiter)
        timer = loop.call_at(until_s, _resolve, waiter)
        try:
            await waiter
        finally:
            timer.cancel()

    async def connection(self) -> Any:
        raise NotImplementedError

    async def close(self) -> None:
        """There is nothing to close."""


def _resolve(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


def _event(change: Change, request: Request) -> Manifest:
    body = change.body
    return {
        "type": change.type,
        "object": _without_contents(body) if "Partial" in request.accept else body,
    }


def is_write(request: Request) -> bool:
    """True for a request that changes something that jobs consist of."""
    return request.method in WRITES and request.kind not in ("Lease", "Event")
