"""The rest of the cluster: garbage collector, Job controller, and nodes whose pods run a modelled worker."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from cosmos_operator.api.labels import (
    ATTEMPT_LABEL,
    INDEX_ANNOTATION,
    JOB_LABEL,
    JOB_NAME_LABEL,
    STAGE_LABEL,
)
from cosmos_operator.kube.containers import worker_name
from cosmos_operator.kube.kinds import Manifest
from cosmos_operator.kube.objects import format_time, owner_uids
from cosmos_operator.kube.pods import is_over
from support.crash_sweep.model_server import FOREGROUND, UNWATCHED, Change, ModelServer

STEPS = 20
STEP_S = 4.0
STAGE_S = (3.0, 20.0)
CONTROLLER_S = (0.05, 1.5)
"""Seconds, least and most, until a controller looks at a change."""
START_S = (0.5, 8.0)
STOP_S = (0.2, 25.0)
RETRY_S = 10.0
FATAL_CODES = (1, 2)


@dataclass
class Run:
    """A worker that runs in a pod."""

    started_s: float
    first_step: int


class Workloads:
    """Controllers and nodes."""

    def __init__(self, server: ModelServer, chance: random.Random) -> None:
        self.server, self.loop, self.chance = server, server.loop, chance
        self.node_clock_s = 0.0
        """Seconds by which the clocks of the nodes are ahead."""
        self.runs: dict[str, Run] = {}
        self.saved: dict[str, int] = {}
        """Job → step of its last checkpoint."""
        self._failures: dict[str, int] = {}
        self._not_before: dict[str, float] = {}
        self._is_due = False
        self._pods = 0
        server.listeners.append(self._notice)
        server.logs = self._log

    def _notice(self, change: Change) -> None:
        pod = change.body
        if change.kind in UNWATCHED:
            return
        if change.kind == "Pod" and change.type == "ADDED":
            self._later(START_S, self._start, pod["metadata"]["name"], pod["metadata"]["uid"])
        if change.kind == "Pod" and change.type == "MODIFIED" and change.before is not None:
            was_deleted = "deletionTimestamp" in change.before["metadata"]
            if "deletionTimestamp" in pod["metadata"] and not was_deleted:
                self._later(STOP_S, self._stop, pod["metadata"]["name"], pod["metadata"]["uid"])
        self._wake(self.chance.uniform(*CONTROLLER_S))

    def _later(self, span: tuple[float, float], function: Any, *arguments: Any) -> None:
        self.loop.call_later(self.chance.uniform(*span), function, *arguments)

    def _wake(self, delay_s: float) -> None:
        if not self._is_due:
            self._is_due = True
            self.loop.call_later(delay_s, self._sync)

    def _sync(self) -> None:
        self._is_due = False
        self._collect_garbage()
        for job in self.server.all("Job"):
            self._sync_job(job)

    # --- the garbage collector -----------------------------------------------------------------

    def _collect_garbage(self) -> None:
        objects = self.server.objects
        living = {one["metadata"]["uid"]: one for one in objects.values()}
        for key in sorted(objects):
            found = objects.get(key)
            references = found["metadata"].get("ownerReferences") if found is not None else None
            if found is not None and references:
                self._check_owners(found, references, living)
        for key in sorted(objects):
            found = objects.get(key)
            if found is not None and FOREGROUND in found["metadata"].get("finalizers", ()):
                uid = found["metadata"]["uid"]
                if not any(uid in owner_uids(one) for one in objects.values()):
                    self.server.remove(found)

    def _check_owners(
        self, found: Manifest, references: list[Manifest], living: dict[str, Manifest]
    ) -> None:
        solid = [
            one
            for one in references
            if one["uid"] in living
            and FOREGROUND not in living[one["uid"]]["metadata"].get("finalizers", ())
        ]
        if not solid:
            self.server.delete(found)
        elif len(solid) < len(references):
            self.server.change(found, lambda new: new["metadata"].update(ownerReferences=solid))

    # --- the Job controller --------------------------------------------------------------------

    def _sync_job(self, job: Manifest) -> None:
        uid, status = job["metadata"]["uid"], job.get("status", {})
        if status.get("completionTime") or any(
            one["type"] == "Failed" for one in status.get("conditions", ())
        ):
            return
        pods = [one for one in self.server.all("Pod") if uid in owner_uids(one)]
        active = [one for one in pods if not is_over(one)]
        failures = self._failures.get(uid, 0)
        if any(one["status"]["phase"] == "Succeeded" for one in pods) and not active:
            self._end_job(job, "Complete")
        elif failures > job["spec"]["backoffLimit"]:
            for one in active:
                self.server.delete(one)
            if not active:
                self._end_job(job, "Failed")
        elif not active and "deletionTimestamp" not in job["metadata"]:
            wait_s = self._not_before.get(uid, 0.0) - self.loop.time()
            if wait_s > 0:
                self._wake(wait_s + 0.01)
            else:
                self._make_pod(job)

    def _end_job(self, job: Manifest, kind: str) -> None:
        stamp = format_time(self.loop.now())
        condition = {"type": kind, "status": "True", "reason": kind, "message": f"it is {kind}",
                     "lastTransitionTime": stamp}  # fmt: skip
        status = {**job.get("status", {}), "conditions": [condition]}
        status["failed" if kind == "Failed" else "succeeded"] = 1
        if kind == "Complete":
            status["completionTime"] = stamp
        self.server.change(job, lambda new: new.update(status=status))

    def _make_pod(self, job: Manifest) -> None:
        self._pods += 1
        metadata, template = job["metadata"], job["spec"]["template"]
        labels = {
            **template["metadata"]["labels"],
            JOB_NAME_LABEL: metadata["name"],
            INDEX_ANNOTATION: "0",
        }
        owner = {"apiVersion": "batch/v1", "kind": "Job", "name": metadata["name"],
                 "uid": metadata["uid"], "controller": True, "blockOwnerDeletion": True}  # fmt: skip
        self.server.create({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": f"{metadata['name']}-{self._pods}",
                "namespace": metadata["namespace"],
                "labels": labels,
                "annotations": dict(template["metadata"].get("annotations", {})),
                "ownerReferences": [owner],
            },
            "spec": template["spec"],
            "status": {"phase": "Pending"},
        })  # fmt: skip
        started = {**job.get("status", {}), "startTime": format_time(self.loop.now()), "active": 1}
        self.server.change(job, lambda new: new.update(status=started))

    # --- nodes ---------------------------------------------------------------------------------

    def _node_time(self) -> str:
        return format_time(self.loop.now() + timedelta(seconds=self.node_clock_s))

    def _find(self, name: str, uid: str) -> Manifest | None:
        found = self.server.get("Pod", name)
        return found if found is not None and found["metadata"]["uid"] == uid else None

    def _start(self, name: str, uid: str) -> None:
        pod = self._find(name, uid)
        if pod is None or "deletionTimestamp" in pod["metadata"]:
            return
        stamp, labels = self._node_time(), pod["metadata"]["labels"]
        started = {"name": worker_name(pod), "state": {"running": {"startedAt": stamp}}}
        status = {"phase": "Running", "startTime": stamp, "containerStatuses": [started]}
        first = self.saved.get(labels.get(JOB_LABEL, ""), 0) if ATTEMPT_LABEL in labels else 0
        self.runs[uid] = Run(self.loop.time(), first)
        self.server.change(
            pod, lambda new: (new["spec"].update(nodeName="node-1"), new.update(status=status))
        )
        span = (
            (STEPS - first) * STEP_S + 2.0
            if ATTEMPT_LABEL in labels
            else self.chance.uniform(*STAGE_S)
        )
        self.loop.call_later(span, self.end, name, uid, 0, "Succeeded")

    def _stop(self, name: str, uid: str) -> None:
        """The grace period of a pod is over, or its worker has saved and ended before."""
        pod = self._find(name, uid)
        if pod is not None and pod["status"]["phase"] == "Pending":
            self._count_failure(pod, 137)
        elif pod is not None and not is_over(pod):
            self.end(name, uid, 75, "Stopped")
        self._later((0.1, 1.0), self._vanish, name, uid)

    def _vanish(self, name: str, uid: str) -> None:
        pod = self._find(name, uid)
        if pod is not None:
            self.server.remove(pod)

    def step_of(self, pod: Manifest) -> int:
        """Step that the training in a pod has reached."""
        run = self.runs.get(pod["metadata"]["uid"])
        if run is None:
            return 0
        return min(STEPS, run.first_step + int((self.loop.time() - run.started_s) / STEP_S))

    def end(self, name: str, uid: str, code: int, reason: str) -> None:
        """The worker of a pod ends, and with it the pod; nothing happens if it has ended."""
        pod = self._find(name, uid)
        if pod is None or is_over(pod):
            return
        labels = pod["metadata"]["labels"]
        said: dict[str, Any] = {"reason": reason, "message": "it ended"}
        if ATTEMPT_LABEL in labels:
            step = self.step_of(pod)
            said |= {"step": step, "checkpoint": step}
            self.saved[labels[JOB_LABEL]] = max(step, self.saved.get(labels[JOB_LABEL], 0))
        ended = {"exitCode": code, "reason": "Error" if code else "Completed", "message": json.dumps(said),
                 "finishedAt": self._node_time()}  # fmt: skip
        status = {
            **pod["status"],
            "phase": "Failed" if code else "Succeeded",
            "containerStatuses": [{"name": worker_name(pod), "state": {"terminated": ended}}],
        }
        if code:
            self._count_failure(pod, code)
        self.server.change(pod, lambda new: new.update(status=status))

    def _count_failure(self, pod: Manifest, code: int) -> None:
        (owner,) = owner_uids(pod)
        conditions = pod["status"].get("conditions", ())
        is_training = ATTEMPT_LABEL in pod["metadata"]["labels"]
        if not is_training and any(one["type"] == "DisruptionTarget" for one in conditions):
            return
        is_fatal = not is_training and code in FATAL_CODES
        self._failures[owner] = self._failures.get(owner, 0) + (100 if is_fatal else 1)
        self._not_before[owner] = self.loop.time() + RETRY_S

    def evict(self, pod: Manifest) -> None:
        """Evict a pod by the eviction API."""
        condition = {
            "type": "DisruptionTarget",
            "status": "True",
            "reason": "EvictionByEvictionAPI",
            "message": "",
        }
        status = {**pod["status"], "conditions": [condition]}
        self.server.delete(self.server.change(pod, lambda new: new.update(status=status)))

    def running(self) -> list[Manifest]:
        """Pods that run."""
        return [one for one in self.server.all("Pod") if one["status"]["phase"] == "Running"]

    def _log(self, pod: Manifest) -> str | None:
        run = self.runs.get(pod["metadata"]["uid"])
        if run is None:
            return None
        stage = pod["metadata"]["labels"][STAGE_LABEL]
        if ATTEMPT_LABEL not in pod["metadata"]["labels"]:
            return f"{self._node_time()} INFO rank=0 cosmos_worker.{stage} {stage} units=1/2\n"
        step = self.step_of(pod)
        text = f"step={step}/{STEPS} loss=0.5 samples/s=1.0 eta=1:00"
        return f"{self._node_time()} INFO rank=0 cosmos_worker.train {text}\n"
