"""The process ``cosmos-operator``: connects, acquires the lease, then watches and carries out jobs until stopped.

The only file of the operator that turns errors into exit codes.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import logging
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cosmos_operator.controller.cache import Cache
from cosmos_operator.controller.health import HealthServer
from cosmos_operator.controller.lease import (
    DURATION_S,
    Lease,
    LeaseLost,
    own_identity,
)
from cosmos_operator.controller.metrics import Metrics
from cosmos_operator.controller.neighbours import Neighbours
from cosmos_operator.controller.orphans import OrphanCollector
from cosmos_operator.controller.planning_process import PlanningProcess
from cosmos_operator.controller.reconcile import Reconciler
from cosmos_operator.controller.router import Router
from cosmos_operator.controller.served_crd import ServedCrd
from cosmos_operator.controller.watcher import Watcher
from cosmos_operator.controller.work_queue import Handle, WorkQueue
from cosmos_operator.errors import OperatorError
from cosmos_operator.kube.cluster import KubeCluster, connect
from cosmos_operator.kube.kinds import JobKey
from cosmos_operator.settings import Settings, load_settings
from cosmos_worker.config.addresses import redacted
from cosmos_worker.config.log_lines import LineFormatter, cut
from cosmos_worker.errors import EXIT_BUG, EXIT_OK

MAX_PASS_S = 300.0
"""Seconds after which a pass counts as hanging: each request in it has a deadline."""
PASS_GRACE_S = 1.5
"""Seconds that a running pass has to end when the operator stops."""
RELEASE_S = 1.0
"""Seconds that releasing the lease may take when the operator stops."""

GARBAGE_THRESHOLDS = (20_000, 20, 20)
"""New objects after which garbage is looked for, with Python's defaults of 700, 10 and 10: a page of listed objects has
50,000, none of them garbage, and half of the processor time of a long list went into looking at them."""

LIBRARY_LOG_LEVELS = {
    "kopf": logging.WARNING,
    "kopf._core.reactor.orchestration": logging.CRITICAL,
    "kopf._core.reactor.running": logging.CRITICAL,
}
"""Levels below which kopf is not logged: it logs every event, and long tracebacks where we report one line."""


@dataclass(frozen=True)
class Parts:
    """The objects that passes over jobs need."""

    cluster: KubeCluster
    cache: Cache
    router: Router
    settings: Settings
    metrics: Metrics
    wake: Callable[[JobKey], object]
    """Asks for a pass over a job."""
    crd: ServedCrd
    """The schemas of the API server, which a status must fit."""
    planner: PlanningProcess
    """Plans the jobs, with limits."""


MakeHandle = Callable[[Parts], Handle]

logger = logging.getLogger("cosmos_operator.controller.manager")


def make_reconcile(parts: Parts) -> Handle:
    """The function that carries out one pass over a job."""
    return Reconciler(
        parts.cluster,
        parts.cache,
        parts.router,
        parts.settings,
        parts.metrics,
        parts.wake,
        parts.cluster.now,
        crd=parts.crd,
        planner=parts.planner,
    ).reconcile


class Operator:
    """A running operator with all its parts."""

    def __init__(
        self, cluster: KubeCluster, settings: Settings, make_handle: MakeHandle = make_reconcile
    ) -> None:
        self._metrics = Metrics()
        self._queue = WorkQueue(self._pass, workers=settings.queue_workers)
        cache = Cache()
        router = Router(cache)
        self._crd = ServedCrd(cluster)
        self._metrics.follow_crd(self._crd.num_lacking)
        self._planner = PlanningProcess()
        wake = self._queue.add
        self._handle = make_handle(
            Parts(cluster, cache, router, settings, self._metrics, wake, self._crd, self._planner)
        )
        self._metrics.follow_queue(self._queue)
        self._lease = Lease(
            cluster, settings.lease, own_identity(), watched=settings.watch_namespaces
        )
        self._orphans = OrphanCollector(cluster, settings, cluster.now)
        self._watcher = Watcher(cluster, settings, cache, router, self._queue, self._metrics)
        self._neighbours = Neighbours(cluster, settings, self._metrics)
        self._health = HealthServer(
            health=self.problems,
            readiness=self.obstacles,
            details=self.details,
            metrics=self._metrics,
            health_port=settings.health_port,
            metrics_port=settings.metrics_port,
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Acquire the lease, then carry out jobs until ``stop`` is set.

        Raises:
            OperatorError: the lease or the watches are lost.
        """
        ports = await self._health.start()
        logger.info("serving health_port=%d metrics_port=%d", *ports)
        try:
            if await self._acquire(stop):
                self._metrics.note_leader(is_leader=True)
                await self._lead(stop)
        finally:
            self._metrics.note_leader(is_leader=False)
            with suppress(OperatorError, asyncio.TimeoutError):
                await asyncio.wait_for(self._lease.release(), RELEASE_S)
            await self._planner.stop()
            await self._health.stop()

    def problems(self) -> Iterator[str]:
        """Problems for which the process should be restarted, one line each."""
        yield from self._watcher.problems()
        longest_s = self._queue.longest_run_s()
        if longest_s > MAX_PASS_S:
            yield f"a pass over a job has run for {longest_s:.0f} s"
        age_s = self._lease.age_s
        if age_s is not None and age_s > DURATION_S:
            yield f"the lease was renewed {age_s:.0f} s ago and lasts {DURATION_S:.0f} s"

    def obstacles(self) -> Iterator[str]:
        """Reasons for which this operator neither carries out jobs nor could take over, one line each."""
        if self._lease.age_s is None:
            if self._lease.other_holder is None:
                yield "the API server gives no answer about the lease"
        elif not self._watcher.is_caught_up:
            yield "the watches have not delivered all existing objects yet"

    def details(self) -> Iterator[str]:
        """Remarks that /readyz tells beside, one line each."""
        holder = self._lease.other_holder
        if holder is not None:
            yield f"standby: the lease is held by {holder or 'nobody yet'}"
        yield from self._neighbours.notes()
        yield from self._watcher.left_out()
        yield from self._crd.problems()

    async def _acquire(self, stop: asyncio.Event) -> bool:
        """Wait for the lease; False if ``stop`` was set before."""
        tasks = [asyncio.create_task(self._lease.acquire()), asyncio.create_task(stop.wait())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if tasks[0].done():
                tasks[0].result()
        finally:
            await _cancel(tasks)
        return not stop.is_set()

    async def _lead(self, stop: asyncio.Event) -> None:
        """Carry out jobs until ``stop`` is set; then end the watches, and let running passes end."""
        await self._crd.refresh()
        queue = asyncio.create_task(self._queue.run(), name="queue")
        others = [
            asyncio.create_task(stop.wait(), name="stop"),
            asyncio.create_task(self._lease.renew_until_lost(), name="lease"),
            asyncio.create_task(self._watcher.watch(), name="watch"),
            asyncio.create_task(self._watcher.resync(), name="resync"),
            asyncio.create_task(self._crd.keep_fresh(), name="schemas"),
            asyncio.create_task(self._orphans.run(), name="orphans"),
            asyncio.create_task(self._neighbours.look_out(), name="neighbours"),
        ]
        grace_s = PASS_GRACE_S
        try:
            done, _ = await asyncio.wait((queue, *others), return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            if not stop.is_set():
                raise RuntimeError(f"{', '.join(task.get_name() for task in done)} ended by itself")
        except LeaseLost:
            grace_s = 0.0  # another operator may act now
            raise
        finally:
            await asyncio.gather(self._queue.close(grace_s), _cancel(others))
            await _cancel([queue])

    async def _pass(self, key: JobKey) -> float | None:
        if not self._watcher.watches(key.namespace):
            return None  # all jobs are queued once the namespace is known
        with self._metrics.time_pass():
            return await self._handle(key)


async def _cancel(tasks: Sequence[asyncio.Task[object]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def run_operator(
    settings: Settings, kubeconfig: Path | None, make_handle: MakeHandle = make_reconcile
) -> None:
    """Run an operator until SIGTERM or SIGINT.

    Raises:
        OperatorError: no connection, or the lease or the watches are lost.
    """
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    cluster = await connect(kubeconfig)
    try:
        await Operator(cluster, settings, make_handle).run(stop)
    finally:
        await cluster.close()


def build_parser() -> argparse.ArgumentParser:
    """The argument parser."""
    parser = argparse.ArgumentParser(
        prog="cosmos-operator",
        description="Carry out the PostTrainingJobs of a Kubernetes cluster.",
    )
    parser.add_argument(
        "--settings",
        type=Path,
        metavar="FILE",
        help="YAML file of settings (default: the defaults of all settings)",
    )
    parser.add_argument(
        "--kubeconfig",
        type=Path,
        metavar="FILE",
        help="credentials of the cluster (default: those of the pod that this runs in, else $KUBECONFIG)",
    )
    levels = ("debug", "info", "warning", "error")
    parser.add_argument(
        "--log-level", choices=levels, default="info", help="least severe messages to log"
    )
    parser.add_argument(
        "--log-format", choices=("text", "json"), default="text", help="form of the log lines"
    )
    return parser


def main(arguments: Sequence[str] | None = None, make_handle: MakeHandle = make_reconcile) -> int:
    """Entry point of ``cosmos-operator``; returns the exit code."""
    options = build_parser().parse_args(arguments)
    configure_logging(options.log_level, options.log_format)
    gc.freeze()  # what was imported stays
    gc.set_threshold(*GARBAGE_THRESHOLDS)
    try:
        settings = load_settings(options.settings) if options.settings else Settings()
        asyncio.run(run_operator(settings, options.kubeconfig, make_handle))
    except OperatorError as error:
        logger.error("%s", error)
        return error.exit_code
    except Exception:  # an edge: whatever it is, the exit code says that it is ours
        logger.exception("a bug in the operator")
        return EXIT_BUG
    logger.info("stopped")
    return EXIT_OK


def configure_logging(level: str, log_format: str) -> None:
    """Log to stderr; of the libraries only warnings and errors."""
    handler = logging.StreamHandler()
    handler.setFormatter(
        JsonFormatter()
        if log_format == "json"
        else TextFormatter("%(asctime)s %(levelname)s %(name)s %(message)s")
    )
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("cosmos_operator").setLevel(level.upper())
    for name, library_level in LIBRARY_LOG_LEVELS.items():
        logging.getLogger(name).setLevel(library_level)


class TextFormatter(LineFormatter):
    """Writes lines like those of the worker, with the time in UTC to the second."""

    converter = staticmethod(time.gmtime)
    default_time_format = "%Y-%m-%dT%H:%M:%SZ"
    default_msec_format = ""


class JsonFormatter(logging.Formatter):
    """Writes each log record as one JSON object on a line."""

    def format(self, record: logging.LogRecord) -> str:
        """The JSON line of one log record."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname,
            "logger": record.name,
            "message": cut(redacted(record.getMessage())),
        }
        if record.exc_info:
            line["error"] = redacted(self.formatException(record.exc_info))
        return json.dumps(line)


if __name__ == "__main__":
    sys.exit(main())
