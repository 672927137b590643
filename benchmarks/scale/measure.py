"""The measurements: the life of one job, rest, a restart, jobs that are applied together."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field
from statistics import median, quantiles
from typing import Any

from scale import fleet
from scale.api import JOBS, Api, Object, Refusal, in_parallel
from scale.operator_process import OperatorProcess, Requests

PATIENCE_S = 1800
BURST_STEPS = 60
STATES: dict[str, Callable[[Object], bool]] = {
    "running": lambda status: bool(status.get("progress", {}).get("lastReportTime")),
    "waiting": lambda status: bool(status.get("attempts")),
    "suspended": lambda status: status.get("state") == "Suspended",
}
"""Part of the live jobs → whether a status is that of a job of the part."""
EDITED_SHARE = 10
"""One of so many live jobs is edited while the operator is down."""


@dataclass
class Measured:
    """The figures at one size."""

    live: int
    finished: int
    parts: dict[str, int] = field(default_factory=dict)
    """Live jobs by what they do."""
    watched_objects: dict[str, int] = field(default_factory=dict)
    """Number of Jobs and pods."""
    rest_percent_of_core: float = 0.0
    rest_seconds: float = 0.0
    rest_requests_per_s: float = 0.0
    rest_requests: dict[str, int] = field(default_factory=dict)
    rest_passes_per_s: float = 0.0
    rest_rss_mb: float = 0.0
    rest_peak_mb: float = 0.0
    restart_s: float | None = None
    """From the start of the process until every live job has had its pass."""
    restart_edited_s: float | None = None
    """The same until the status of each edited job shows that it was seen."""
    restart_peak_mb: float = 0.0
    restart_processor_s: float = 0.0
    restart_requests: dict[str, int] = field(default_factory=dict)
    burst_jobs: int = 0
    burst_median_s: float | None = None
    burst_p99_s: float | None = None
    burst_max_s: float | None = None
    burst_processor_s: float = 0.0
    """Processor time of the operator until the last of them had its Job."""

    def as_dict(self) -> dict[str, Any]:
        """All figures."""
        return asdict(self)


class Bench:
    """An operator beside an API server, and the measurements."""

    def __init__(
        self, api: Api, operator: OperatorProcess, requests: Requests, documents: fleet.Documents
    ) -> None:
        self.api, self.operator, self.requests = api, operator, requests
        self.documents = documents

    async def wait(self, what: str, test: Callable[[], Awaitable[bool]], every_s: float) -> None:
        """Wait until a test is true.

        Raises:
            TimeoutError: it has not become true.
        """
        end = time.monotonic() + PATIENCE_S
        while not await test():
            self.operator.check()
            if time.monotonic() > end:
                raise TimeoutError(f"not within {PATIENCE_S} s: {what}")
            await asyncio.sleep(every_s)

    async def start_operator(self) -> None:
        """Start the operator, and wait until it is ready."""
        self.operator.start()
        await self.wait("the operator is ready", self.operator.is_ready, 0.2)

    # --- the life of one job ---------------------------------------------------------------------

    async def live_one_job(self, steps: int) -> tuple[float, Counter[str]]:
        """Carry out one job from beginning to end.

        Args:
            steps: of its training.

        Returns:
            Its duration in seconds, and the operator's requests, without those that renew its lease.
        """
        await fleet.make_namespace(self.api, fleet.TEMPLATE_NAMESPACE)
        document = self.documents.job(
            fleet.TEMPLATE_NAMESPACE,
            fleet.TEMPLATE,
            dataset="0",
            pool=fleet.SPARE,
            steps=steps,
            suspend=False,
        )
        self.requests.skip()
        began = time.monotonic()
        await self.api.call("POST", fleet.jobs_path(fleet.TEMPLATE_NAMESPACE), document)
        path = fleet.jobs_path(fleet.TEMPLATE_NAMESPACE, fleet.TEMPLATE)

        async def has_ended() -> bool:
            state = (await self.api.call("GET", path)).get("status", {}).get("state")
            if state == "Failed":
                status = (await self.api.call("GET", path))["status"]
                raise RuntimeError(f"the job failed: {status.get('message')}")
            return bool(state == "Succeeded")

        await self.wait("the job has succeeded", has_ended, 0.5)
        took_s = time.monotonic() - began
        await asyncio.sleep(5)  # what follows the end belongs to its life
        found = self.requests.read()
        return took_s, Counter({k: n for k, n in found.items() if not k.endswith(" leases")})

    # --- the fleet -------------------------------------------------------------------------------

    async def settle(self, part: str, number: int) -> None:
        """Wait until so many live jobs of a part are in their state, and the operator has nothing left to do."""
        test = STATES[part]

        async def is_there() -> bool:
            found = await self._jobs(part)
            return sum(test(one.get("status", {})) for one in found) >= number

        await self.wait(f"{number} jobs are {part}", is_there, 2)
        await self.wait("the queue is empty", self._is_idle, 1)

    async def _jobs(self, part: str) -> list[Object]:
        return await self.api.list(
            f"{JOBS}/posttrainingjobs", labelSelector=f"{fleet.PART}={part}", resourceVersion=0
        )

    async def _is_idle(self) -> bool:
        """True if the queue is empty five times in a row."""
        for _ in range(5):
            if (await self.operator.metrics()).get("cosmos_queue_depth") != 0:
                return False
            await asyncio.sleep(0.5)
        return True

    async def count_objects(self) -> dict[str, int]:
        """Jobs and pods on the API server."""
        found = {}
        for kind, path in (("Job", "/apis/batch/v1/jobs"), ("Pod", "/api/v1/pods")):
            answer = await self.api.call("GET", path, limit=1)
            rest = answer["metadata"].get("remainingItemCount", 0)
            found[kind] = len(answer["items"]) + rest
        return found

    # --- rest --------------------------------------------------------------------------------------

    async def rest(self, measured: Measured, seconds: float) -> None:
        """Measure the operator while nothing changes but the progress of running jobs."""
        operator = self.operator
        self.requests.skip()
        before = (await operator.metrics()).get("cosmos_reconcile_seconds_count", 0)
        began, used_s = time.monotonic(), operator.processor_s()
        await asyncio.sleep(seconds)
        used_s, passed_s = operator.processor_s() - used_s, time.monotonic() - began
        operator.check()
        found = self.requests.read()
        after = (await operator.metrics()).get("cosmos_reconcile_seconds_count", 0)
        memory = operator.memory()
        measured.rest_seconds = passed_s
        measured.rest_percent_of_core = 100 * used_s / passed_s
        measured.rest_requests, measured.rest_requests_per_s = dict(found), found.total() / passed_s
        measured.rest_passes_per_s = (after - before) / passed_s
        measured.rest_rss_mb, measured.rest_peak_mb = memory.now_mb, memory.peak_mb

    # --- a restart ---------------------------------------------------------------------------------

    async def restart(self, measured: Measured, live: fleet.Live) -> None:
        """Stop the operator, edit some jobs, start it, and wait until every live job has had its pass."""
        await self.operator.stop()
        owed = await self._edit()
        self.requests.skip()
        seen = asyncio.create_task(self._observe(owed))
        await asyncio.sleep(1)  # the watch has begun
        began = time.monotonic()
        self.operator.start()

        async def has_passed_all() -> bool:
            is_ready = await self.operator.is_ready()  # it knows all jobs
            metrics = await self.operator.metrics()
            passes = metrics.get("cosmos_reconcile_seconds_count", 0)
            has_time = metrics.get("cosmos_queue_depth") == 0
            return is_ready and has_time and passes >= live.total

        try:
            await self.wait("every job has had its pass", has_passed_all, 0.2)
            measured.restart_s = time.monotonic() - began
            measured.restart_edited_s = await asyncio.wait_for(seen, PATIENCE_S) - began
        finally:
            seen.cancel()
        measured.restart_s = max(measured.restart_s, measured.restart_edited_s)
        measured.restart_processor_s = self.operator.processor_s()
        measured.restart_peak_mb = self.operator.memory().peak_mb
        measured.restart_requests = dict(self.requests.read())

    async def _edit(self) -> dict[str, int]:
        """Edit one of EDITED_SHARE live jobs of each part; uid → the generation that the operator owes."""
        chosen = [
            job for part in asdict(fleet.Live()) for job in (await self._jobs(part))[::EDITED_SHARE]
        ]
        owed: dict[str, int] = {}

        async def edit(job: Object) -> None:
            attempts = job["spec"]["runPolicy"]["maxAttempts"]
            spec = {"runPolicy": {"maxAttempts": attempts + 1}}
            metadata = job["metadata"]
            path = fleet.jobs_path(metadata["namespace"], metadata["name"])
            made = await self.api.call("PATCH", path, {"spec": spec}, "merge")
            owed[metadata["uid"]] = made["metadata"]["generation"]

        await in_parallel(edit, chosen)
        return owed

    async def _observe(self, owed: dict[str, int]) -> float:
        """Wait until each job has been observed; the time of the last one."""
        parts = ",".join(asdict(fleet.Live()))
        query = {"labelSelector": f"{fleet.PART} in ({parts})"}
        async for _, job in self.api.watch(f"{JOBS}/posttrainingjobs", **query):
            wanted = owed.get(job["metadata"]["uid"])
            if wanted is not None and job["status"].get("observedGeneration", 0) >= wanted:
                del owed[job["metadata"]["uid"]]
            if not owed:
                return time.monotonic()
        raise AssertionError("a watch goes on for ever")

    # --- jobs that are applied together --------------------------------------------------------------

    async def burst(self, measured: Measured, number: int) -> None:
        """Apply jobs together; each has its own dataset, so that each needs a Job of its own."""
        namespace = f"burst-{measured.live}"
        await fleet.make_namespace(self.api, namespace)
        applied: dict[str, float] = {}
        created: dict[str, float] = {}
        watch = asyncio.create_task(self._note_first_jobs(namespace, created))
        await asyncio.sleep(1)  # the watch has begun

        async def apply(index: int) -> None:
            document = self.documents.job(
                namespace,
                f"burst-{index:04d}",
                dataset=f"burst-{index}",
                pool=fleet.FULL,
                steps=BURST_STEPS,
                suspend=False,
            )
            asked = time.monotonic()
            made = await self.api.call("POST", fleet.jobs_path(namespace), document)
            applied[made["metadata"]["uid"]] = asked

        used_s = self.operator.processor_s()
        await in_parallel(apply, range(number), limit=number)

        async def all_have_one() -> bool:
            return applied.keys() <= created.keys()

        try:
            await self.wait("each job has its first Job", all_have_one, 0.2)
        finally:
            watch.cancel()
        waits = sorted(created[uid] - at for uid, at in applied.items())
        measured.burst_jobs = number
        measured.burst_processor_s = self.operator.processor_s() - used_s
        measured.burst_median_s, measured.burst_max_s = median(waits), waits[-1]
        measured.burst_p99_s = quantiles(waits, n=100, method="inclusive")[-1]
        await self._remove(namespace)

    async def _note_first_jobs(self, namespace: str, created: dict[str, float]) -> None:
        path = f"/apis/batch/v1/namespaces/{namespace}/jobs"
        async for kind, job in self.api.watch(path):
            if kind == "ADDED":
                for owner in job["metadata"].get("ownerReferences", ()):
                    created.setdefault(owner["uid"], time.monotonic())

    async def _remove(self, namespace: str) -> None:
        """Delete the jobs of a namespace, and wait until their Jobs are gone."""
        await self.api.call("DELETE", fleet.jobs_path(namespace))

        async def is_empty() -> bool:
            try:
                jobs = await self.api.list(f"/apis/batch/v1/namespaces/{namespace}/jobs")
            except Refusal:
                return False
            return not jobs

        await self.wait(f"the jobs of {namespace} are gone", is_empty, 1)
