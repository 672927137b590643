"""Jobs on a cluster from a Python program: a client without async, for scripts and notebooks.

It speaks to the API server in a thread of its own, so that it also works where an event loop runs already, such as in
a notebook.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from cosmos_operator.client import jobs, logs, pull
from cosmos_operator.client.jobs import Outcome
from cosmos_operator.client.results import PARTS, Part, Result, results_of
from cosmos_operator.errors import InvalidSpec
from cosmos_operator.kube.client import Client, load_configuration, load_namespace
from cosmos_operator.kube.cluster import KubeCluster
from cosmos_operator.kube.exec import Executor
from cosmos_operator.kube.kinds import Manifest

T = TypeVar("T")
CLEANUP_S = 30.0
"""Longest time for which an interrupted call is waited for, in which it deletes what it has created."""


def connect(
    kubeconfig: Path | str | None = None,
    *,
    context: str | None = None,
    namespace: str | None = None,
) -> Cosmos:
    """A client for the jobs of one namespace.

    Args:
        kubeconfig: file with address and credentials; None = those of the pod that we run in, otherwise the file of
            $KUBECONFIG or ~/.kube/config.
        context: context of the file; None = its current one.
        namespace: namespace of the jobs; None = that of the context.

    Raises:
        InvalidSpec: no credentials.
    """
    path = None if kubeconfig is None else Path(kubeconfig)
    return Cosmos(path, context, namespace)


class Cosmos:
    """Jobs of one namespace; made by :func:`connect`, and closed at the end of a ``with`` block or by ``close``."""

    def __init__(self, kubeconfig: Path | None, context: str | None, namespace: str | None) -> None:
        self.namespace = namespace or load_namespace(kubeconfig, context)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="cosmos", daemon=True)
        self._thread.start()
        self.cluster: KubeCluster | None = None
        try:
            self._client, self._executor = self.call(_open(kubeconfig, context))
        except BaseException:
            self._stop()
            raise
        self.cluster = KubeCluster(self._client)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        if not self._loop.is_closed():
            self.call(self._client.close())
            self.call(self._executor.close())
            self._stop()

    def _stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    # --- jobs ----------------------------------------------------------------------------------

    def submit(self, file: Path | str) -> str:
        """Create the one job of a YAML file, see ``cosmos submit``; returns its name as KIND/NAME.

        Raises:
            InvalidSpec: the file is wrong, holds several jobs, or a job of that name exists.
            Refused: the API server rejects the job.
        """
        found = self.submit_all(file)
        if len(found) != 1:
            raise InvalidSpec([f"{file}: got {len(found)} jobs; submit_all is for several"])
        return found[0]

    def submit_all(self, file: Path | str) -> list[str]:
        """Create all jobs of a YAML file; returns their names as KIND/NAME."""
        created = self.call(jobs.submit(self._cluster, self.namespace, Path(file)))
        return [reference(job) for job in created]

    def job(self, name: str) -> Manifest:
        """A job as the API server has it.

        Args:
            name: NAME, or KIND/NAME where a PostTrainingJob and an InferenceJob have the same name.

        Raises:
            InvalidSpec: no such job.
        """
        return self.call(jobs.find(self._cluster, self.namespace, name))

    def status(self, name: str) -> Manifest:
        """The status of a job, with state, message, conditions, progress and outputs; empty before it was seen."""
        status: Manifest = self.job(name).get("status") or {}
        return status

    def wait(
        self,
        name: str,
        timeout_s: float | None = None,
        report: Callable[[jobs.Progress], None] = lambda progress: None,
    ) -> Outcome:
        """Wait for the end of a job; returns Succeeded or Failed.

        Args:
            name: the job.
            timeout_s: longest time to wait; None = for ever.
            report: is told each change of its state and message.

        Raises:
            TimeoutError: it has not ended in time.
            InvalidSpec: no such job, or it was deleted.
            ClusterUnavailable: the API server stays away.
        """
        return self.call(_wait(self._cluster, self.job(name), timeout_s, report))

    def results(self, name: str) -> list[Result]:
        """The results that a job has by now."""
        return results_of(self.job(name))

    def stop(self, name: str) -> bool:
        """Suspend a job, which saves its training first; False if it was suspended already."""
        return self.call(jobs.set_suspended(self._cluster, self.job(name), suspended=True))

    def resume(self, name: str) -> bool:
        """Let a suspended job go on; False if it was not suspended."""
        return self.call(jobs.set_suspended(self._cluster, self.job(name), suspended=False))

    def logs(
        self, name: str, *, follow: bool = False, stage: str | None = None, tail: int | None = None
    ) -> Iterator[logs.Line]:
        """The log of the current stage of a job; with follow also those of the next stages, until the job ends."""
        job = self.job(name)
        follows = follow and jobs.outcome_of(job) is None
        read = logs.follow if follows else logs.show
        return self._iterate(read(self._cluster, job, stage, tail))

    def pull(
        self,
        name: str,
        target: Path | str | None = None,
        *,
        parts: Sequence[Part] = PARTS,
        image: str | None = None,
        report: pull.Report = lambda path, done, size: None,
    ) -> list[pull.PulledFile]:
        """Copy model, report and videos of a job into a local folder, by default one of the job's name."""
        job = self.job(name)
        folder = Path(target) if target is not None else Path(str(job["metadata"]["name"]))
        return self.call(
            pull.pull(
                self._cluster,
                self._executor,
                job,
                folder,
                parts=parts,
                image=image,
                report=report,
            )
        )

    def list(self, kind: str, *, everywhere: bool = False) -> list[Manifest]:
        """All jobs of a kind in the namespace, or in all namespaces."""
        return self.call(self._cluster.list(kind, None if everywhere else self.namespace))

    # --- the thread ----------------------------------------------------------------------------

    @property
    def _cluster(self) -> KubeCluster:
        assert self.cluster is not None
        return self.cluster

    def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """The result of a coroutine; an interruption ends it in order."""
        ended = threading.Event()

        async def run() -> T:
            try:
                return await coroutine
            finally:
                ended.set()

        future = asyncio.run_coroutine_threadsafe(run(), self._loop)
        try:
            return future.result()
        except BaseException:
            if not future.done():
                future.cancel()
                ended.wait(CLEANUP_S)
            raise

    def _iterate(self, items: AsyncGenerator[T, None]) -> Iterator[T]:
        """The items of an asynchronous generator."""
        try:
            while (item := self.call(_next(items))) is not None:
                yield item
        finally:
            self.call(items.aclose())


async def _next(items: AsyncGenerator[T, None]) -> T | None:
    """The next item; None after the last."""
    return await anext(items, None)


async def _open(kubeconfig: Path | None, context: str | None) -> tuple[Client, Executor]:
    """The two clients, which must be made in the event loop that uses them."""
    first = await load_configuration(kubeconfig, context)
    second = await load_configuration(kubeconfig, context)
    return Client(first), Executor(second)


async def _wait(
    cluster: KubeCluster,
    job: Manifest,
    timeout_s: float | None,
    report: Callable[[jobs.Progress], None],
) -> Outcome:
    async with asyncio.timeout(timeout_s):
        async for progress in jobs.follow(cluster, job):
            report(progress)
            if progress.outcome is not None:
                return progress.outcome
    raise AssertionError("a job is followed to its end")


def reference(job: Manifest) -> str:
    """A job as KIND/NAME, as kubectl writes it."""
    return f"{job['kind'].lower()}/{job['metadata']['name']}"
