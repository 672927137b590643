"""Kueue in its simplest form: suspended workloads of a LocalQueue get a Workload, and start while GPUs are left."""

from __future__ import annotations

import copy
from collections.abc import Iterator

from support.fakekube.resources import Object
from support.fakekube.scheduler import quantity
from support.fakekube.store import Event
from support.fakekube.world import Controller, Key, World, is_true, key_of, reference, set_condition

QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
QUEUES = "localqueues.kueue.x-k8s.io"
WORKLOADS = "workloads.kueue.x-k8s.io"
SUSPENDABLE = {
    "jobs.batch": ("spec",),
    "pytorchjobs.kubeflow.org": ("spec", "runPolicy"),
    "trainjobs.trainer.kubeflow.org": ("spec",),
}
"""Kind → where its field ``suspend`` is."""


class Kueue(Controller):
    """Admits the workloads of the kinds in ``integrations`` while ``quota`` GPUs of each queue last."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.integrations = {"jobs.batch"}
        self.quota: dict[str, int] = {}
        """LocalQueue → GPUs; a queue that is not named admits everything."""
        self.store.admission.append(self.suspend_new)

    def suspend_new(self, kind: str, obj: Object) -> None:
        """Suspend a new workload of a managed kind that names a queue, as Kueue's webhook does."""
        is_managed = kind in self.integrations and self.store.serves(WORKLOADS)
        if is_managed and QUEUE_LABEL in obj["metadata"].get("labels", {}):
            _holder(kind, obj)["suspend"] = True

    def keys(self, event: Event) -> Iterator[Key]:
        """Everything that is queued, whatever happens."""
        kinds = {*SUSPENDABLE, QUEUES, WORKLOADS}
        if event.resource.key in kinds and self.store.serves(WORKLOADS):
            for kind in self.integrations:
                for obj in self.store.list(kind):
                    if QUEUE_LABEL in obj["metadata"].get("labels", {}):
                        yield kind, "/".join(key_of(obj))

    def sync(self, key: Key) -> None:
        """Look at one workload."""
        kind, full_name = key
        job = self.store.find(kind, *full_name.split("/"))
        if job is None or "deletionTimestamp" in job["metadata"]:
            return
        name = f"{job['kind'].lower()}-{job['metadata']['name']}"
        workload = self.store.find(WORKLOADS, job["metadata"]["namespace"], name)
        conditions = job.get("status", {}).get("conditions", [])
        is_over = any(is_true(conditions, done) for done in ("Complete", "Succeeded", "Failed"))
        queue = job["metadata"]["labels"][QUEUE_LABEL]
        if workload is None:
            self._enqueue(job, name, queue)
        elif is_over:
            self._set(workload, "Finished", "True", "JobFinished", "Job finished")
        elif is_true(workload.get("status", {}).get("conditions", []), "Admitted"):
            self._suspend(kind, job, suspend=False)
        elif self.store.find(QUEUES, job["metadata"]["namespace"], queue) is None:
            text = f"LocalQueue {queue} doesn't exist"
            self._set(workload, "QuotaReserved", "False", "Inadmissible", text)
        elif self._has_room(queue, workload):
            self._set(
                workload, "QuotaReserved", "True", "QuotaReserved", "Quota reserved in ClusterQueue"
            )
            self._set(workload, "Admitted", "True", "Admitted", "The workload is admitted")
        else:
            text = "couldn't assign flavors to pod set main: insufficient unused quota for nvidia.com/gpu"
            self._set(workload, "QuotaReserved", "False", "Pending", text)

    def _enqueue(self, job: Object, name: str, queue: str) -> None:
        meta = {"name": name, "namespace": job["metadata"]["namespace"], "ownerReferences": [reference(job)],
                "annotations": {"gpus": str(_gpus(job["spec"]))}}  # fmt: skip
        self.store.create(WORKLOADS, {"metadata": meta, "spec": {"queueName": queue}})

    def _has_room(self, queue: str, workload: Object) -> bool:
        if queue not in self.quota:
            return True
        used = 0
        for other in self.store.list(WORKLOADS):
            conditions = other.get("status", {}).get("conditions", [])
            is_counted = is_true(conditions, "Admitted") and not is_true(conditions, "Finished")
            if is_counted and other["spec"]["queueName"] == queue:
                used += int(other["metadata"]["annotations"]["gpus"])
        return used + int(workload["metadata"]["annotations"]["gpus"]) <= self.quota[queue]

    def _suspend(self, kind: str, job: Object, *, suspend: bool) -> None:
        new = copy.deepcopy(job)
        target = _holder(kind, new)
        if target.get("suspend", False) != suspend:
            target["suspend"] = suspend
            self.store.update(kind, new)

    def _set(self, workload: Object, kind: str, status: str, reason: str, text: str) -> None:
        live = self.store.get(WORKLOADS, *key_of(workload))
        old = live.get("status", {}).get("conditions", [])
        conditions = set_condition(old, kind, status, reason, text)
        if conditions != old:
            self.store.patch_status(WORKLOADS, live, conditions=conditions)


def _holder(kind: str, workload: Object) -> Object:
    """The part of a workload that has the field ``suspend``."""
    for part in SUSPENDABLE[kind]:
        workload = workload.setdefault(part, {})
    return workload


def _gpus(value: object) -> int:
    """GPUs of everything in a workload, replicas counted."""
    if isinstance(value, list):
        return sum(_gpus(item) for item in value)
    if not isinstance(value, dict):
        return 0
    own = (
        int(quantity(value.get("limits", {}).get("nvidia.com/gpu", 0))) if "limits" in value else 0
    )
    below = sum(_gpus(inner) for name, inner in value.items() if name not in ("limits", "requests"))
    return (own + below) * int(value.get("replicas", value.get("completions", 1)) or 1)
