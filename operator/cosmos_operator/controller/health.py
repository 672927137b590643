"""The HTTP server of /healthz, /readyz and /metrics."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable

from aiohttp import web

from cosmos_operator.controller.metrics import (
    CONTENT_TYPE,
    Metrics,
)

Problems = Callable[[], Iterable[str]]
"""Returns what is wrong now, one line each; none = all is well."""
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

SHUTDOWN_S = 0.5


class HealthServer:
    """Answers probes on one port and Prometheus on another.

    Args:
        health: problems for which the process should be restarted.
        readiness: problems for which jobs are not carried out yet.
        details: what /readyz tells beside, although it answers that all is well.
        metrics: the metrics.
        health_port: port of /healthz and /readyz; 0 = any free one.
        metrics_port: port of /metrics; 0 = any free one.
        host: address to listen at; None = all.
    """

    def __init__(
        self,
        *,
        health: Problems,
        readiness: Problems,
        details: Problems = tuple,
        metrics: Metrics,
        health_port: int,
        metrics_port: int,
        host: str | None = None,
    ) -> None:
        probes = web.Application()
        probes.router.add_get("/healthz", _probe(health))
        probes.router.add_get("/readyz", _probe(readiness, details))
        exposition = web.Application()
        exposition.router.add_get("/metrics", _exposition(metrics))
        self._sites = ((probes, health_port), (exposition, metrics_port))
        self._host = host
        self._runners: list[web.AppRunner] = []

    async def start(self) -> tuple[int, int]:
        """Listen; returns the ports of the probes and of the metrics."""
        ports = []
        for application, port in self._sites:
            runner = web.AppRunner(application, access_log=None, shutdown_timeout=SHUTDOWN_S)
            self._runners.append(runner)
            await runner.setup()
            await web.TCPSite(runner, self._host, port).start()
            ports.append(runner.addresses[0][1])
        return ports[0], ports[1]

    async def stop(self) -> None:
        """Stop listening."""
        for runner in self._runners:
            await runner.cleanup()
        self._runners.clear()


def _probe(problems: Problems, details: Problems = tuple) -> Handler:
    async def answer(_: web.Request) -> web.Response:
        lines = list(problems())
        text = "\n".join([*(lines or ["ok"]), *details()]) + "\n"
        return web.Response(text=text, status=503 if lines else 200)

    return answer


def _exposition(metrics: Metrics) -> Handler:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=metrics.render(), headers={"Content-Type": CONTENT_TYPE})

    return answer
