"""The operator's Prometheus metrics; the chart's dashboard and alerts use their names."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.process_collector import ProcessCollector

from cosmos_operator.controller.work_queue import WorkQueue
from cosmos_operator.kube.kinds import JobKey

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
BUCKETS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


class Metrics:
    """Metrics of one operator, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._depth = Gauge(
            "cosmos_queue_depth",
            "Jobs that wait for a pass of the operator.",
            registry=self.registry,
        )
        self._seconds = Histogram(
            "cosmos_reconcile_seconds",
            "Duration of one pass over a job, in seconds.",
            buckets=BUCKETS_S,
            registry=self.registry,
        )
        self._errors = Counter(
            "cosmos_reconcile_errors", "Passes over a job that failed.", registry=self.registry
        )
        self._jobs = Gauge(
            "cosmos_jobs", "Jobs by kind and state.", ["kind", "state"], registry=self.registry
        )
        self._attempts = Counter(
            "cosmos_attempts",
            "Training attempts that have ended, by outcome.",
            ["outcome"],
            registry=self.registry,
        )
        self._gpu_hours = Counter(
            "cosmos_gpu_hours",
            "GPU hours that trainings used, repeated after lost steps, and waited for.",
            ["kind"],
            registry=self.registry,
        )
        self._lag = Gauge(
            "cosmos_watch_lag_seconds",
            "Seconds for which the watch of a kind has owed an event.",
            ["kind"],
            registry=self.registry,
        )
        self._left_out = Gauge(
            "cosmos_namespace_left_out",
            "1 while a namespace of watchNamespaces cannot be watched and is left out, otherwise 0.",
            ["namespace"],
            registry=self.registry,
        )
        self._lacking = Gauge(
            "cosmos_crd_lacking_fields",
            "Fields and words that the CustomResourceDefinitions of the cluster lack.",
            registry=self.registry,
        )
        self._leader = Gauge(
            "cosmos_leader",
            "1 while this operator holds the lease, otherwise 0.",
            registry=self.registry,
        )
        self._others = Gauge(
            "cosmos_other_installations",
            "Other installations that carry out the jobs of namespaces that this one watches.",
            registry=self.registry,
        )
        self._states: dict[JobKey, str] = {}

    def render(self) -> bytes:
        """All metrics as text, of type ``CONTENT_TYPE``."""
        return generate_latest(self.registry)

    def follow_queue(self, queue: WorkQueue) -> None:
        """Report the depth of this queue."""
        self._depth.set_function(lambda: queue.depth)

    def follow_watch(self, kind: str, lag_s: Callable[[], float]) -> None:
        """Report the lag of the watch of a kind, as this function tells it."""
        self._lag.labels(kind).set_function(lag_s)

    def note_namespace(self, namespace: str, *, is_left_out: bool) -> None:
        """Take note that a namespace cannot be watched, or can be again."""
        self._left_out.labels(namespace).set(float(is_left_out))

    def follow_crd(self, num_lacking: Callable[[], float]) -> None:
        """Report how much the CustomResourceDefinitions of the cluster lack."""
        self._lacking.set_function(num_lacking)

    @contextmanager
    def time_pass(self) -> Iterator[None]:
        """Measure one pass, and count it if it fails."""
        with self._seconds.time(), self._errors.count_exceptions():
            yield

    def note_job(self, key: JobKey, state: str | None) -> None:
        """Take note of the state of a job; None = the job is gone."""
        before = self._states.get(key)
        if before == state:
            return
        if before is not None:
            self._jobs.labels(key.kind, before).dec()
        if state is None:
            del self._states[key]
        else:
            self._states[key] = state
            self._jobs.labels(key.kind, state).inc()

    def note_attempt(self, outcome: str) -> None:
        """Count an attempt that has ended."""
        self._attempts.labels(outcome).inc()

    def note_gpu_hours(self, kind: str, hours: float) -> None:
        """Add GPU hours that trainings used, repeated or waited for."""
        self._gpu_hours.labels(kind).inc(hours)

    def note_leader(self, *, is_leader: bool) -> None:
        """Take note that this operator holds the lease, or no longer."""
        self._leader.set(float(is_leader))

    def note_other_installations(self, count: int) -> None:
        """Take note of so many other installations that carry out the same jobs."""
        self._others.set(count)
