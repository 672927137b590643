from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import pytest

from cosmos_operator.controller.health import HealthServer
from cosmos_operator.controller.metrics import Metrics


class Rig:
    def __init__(self) -> None:
        self.problems: list[str] = []
        self.obstacles: list[str] = []
        self.details: list[str] = []
        self.server = HealthServer(
            health=lambda: self.problems,
            readiness=lambda: self.obstacles,
            details=lambda: self.details,
            metrics=Metrics(),
            health_port=0,
            metrics_port=0,
            host="127.0.0.1",
        )

    async def get(self, path: str) -> tuple[int, str]:
        port = self.ports[1 if path == "/metrics" else 0]
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://127.0.0.1:{port}{path}") as response,
        ):
            return response.status, await response.text()


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    rig = Rig()
    rig.ports = await rig.server.start()
    yield rig
    await rig.server.stop()
    await asyncio.sleep(0)  # the last connections close in the loop's next turn


async def test_probes_are_ok_when_nothing_is_wrong(rig):
    assert await rig.get("/healthz") == (200, "ok\n")
    assert await rig.get("/readyz") == (200, "ok\n")


async def test_problems_fail_the_probe_and_are_named(rig):
    rig.problems += ["watch of Pod: dead", "lease: old"]
    rig.obstacles += ["the lease is not held"]

    assert await rig.get("/healthz") == (503, "watch of Pod: dead\nlease: old\n")
    assert await rig.get("/readyz") == (503, "the lease is not held\n")


async def test_readiness_tells_what_is_left_out_although_all_else_is_well(rig):
    rig.details.append("namespace team-b is left out: gone")

    assert await rig.get("/readyz") == (200, "ok\nnamespace team-b is left out: gone\n")
    assert await rig.get("/healthz") == (200, "ok\n")


async def test_metrics_have_their_own_port(rig):
    status, text = await rig.get("/metrics")

    assert status == 200
    assert "cosmos_leader 0.0" in text
    assert (await rig.get("/nothing"))[0] == 404
