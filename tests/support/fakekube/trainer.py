"""Kubeflow Trainer v2 in its simplest form: a TrainJob is one indexed Job, as its JobSet would make it."""

from __future__ import annotations

import copy
from collections.abc import Iterator

from support.fakekube.errors import ApiError
from support.fakekube.jobs import INDEX, JOBS
from support.fakekube.patches import strategic_patch
from support.fakekube.resources import Object
from support.fakekube.store import Event
from support.fakekube.world import Controller, Key, is_true, key_of, reference, set_condition

TRAINJOBS = "trainjobs.trainer.kubeflow.org"
RUNTIMES = "clustertrainingruntimes.trainer.kubeflow.org"
OWN_RUNTIMES = "trainingruntimes.trainer.kubeflow.org"
PORT = "29500"


class TrainJobController(Controller):
    """Makes the Job and its Service, and reports its end."""

    def keys(self, event: Event) -> Iterator[Key]:
        """A TrainJob, or that of a Job."""
        if event.resource.key == TRAINJOBS:
            yield key_of(event.obj)
        elif event.resource.key == JOBS:
            for owner in event.obj["metadata"].get("ownerReferences", ()):
                if owner["kind"] == "TrainJob":
                    yield event.obj["metadata"]["namespace"], owner["name"]

    def sync(self, key: Key) -> None:
        """Look at one TrainJob."""
        train = self.store.find(TRAINJOBS, *key) if self.store.serves(TRAINJOBS) else None
        if train is None or "deletionTimestamp" in train["metadata"]:
            return
        status = copy.deepcopy(train.get("status", {}))
        conditions = status.get("conditions", [])
        if is_true(conditions, "Complete") or is_true(conditions, "Failed"):
            return
        wanted = train["spec"]["runtimeRef"]
        is_own = wanted.get("kind") == "TrainingRuntime"
        kind, namespace = (OWN_RUNTIMES, key[0]) if is_own else (RUNTIMES, None)
        runtime = self.store.find(kind, namespace, wanted["name"])
        if runtime is None:
            text = f'TrainingRuntime "{train["spec"]["runtimeRef"]["name"]}" not found'
            conditions = set_condition(
                conditions, "Failed", "True", "TrainingRuntimeNotSupported", text
            )
        else:
            conditions = self._run(train, runtime, status, conditions)
        status["conditions"] = conditions
        if status != train.get("status", {}):
            self.store.patch_status(TRAINJOBS, train, **status)

    def _run(
        self, train: Object, runtime: Object, status: Object, conditions: list[Object]
    ) -> list[Object]:
        namespace, name = key_of(train)
        suspend = bool(train["spec"].get("suspend"))
        job = self.store.find(JOBS, namespace, f"{name}-node-0")
        if job is None:
            self._create(train, runtime)
        elif job["spec"]["suspend"] != suspend:
            new = copy.deepcopy(job)
            new["spec"]["suspend"] = suspend
            self.store.update(JOBS, new)
        if suspend:
            conditions = set_condition(
                conditions, "Suspended", "True", "Suspended", "TrainJob is suspended"
            )
        elif any(c["type"] == "Suspended" for c in conditions):
            conditions = set_condition(
                conditions, "Suspended", "False", "Resumed", "TrainJob is resumed"
            )
        if job is None:
            return conditions
        done = job.get("status", {})
        counts = {field: done.get(field, 0) for field in ("active", "ready", "failed", "succeeded")}
        is_done = is_true(done.get("conditions", []), "Complete")
        status["jobsStatus"] = [
            {"name": "node", "suspended": int(suspend), **counts, "succeeded": int(is_done)}
        ]
        if is_done:
            text = "jobset completed successfully"
            conditions = set_condition(conditions, "Complete", "True", "AllJobsCompleted", text)
        if is_true(done.get("conditions", []), "Failed"):
            text = (
                f"jobset failed due to one or more job failures (first failed job: {name}-node-0)"
            )
            conditions = set_condition(conditions, "Failed", "True", "FailedJobs", text)
        return conditions

    def _create(self, train: Object, runtime: Object) -> None:
        service = {
            "metadata": _metadata(train, train["metadata"]["name"]),
            "spec": {"clusterIP": "None", "publishNotReadyAddresses": True},
        }
        for key, obj in (("services", service), (JOBS, _build_job(train, runtime))):
            try:
                self.store.create(key, obj)
            except ApiError as error:
                if error.reason != "AlreadyExists":
                    raise


def _metadata(train: Object, name: str) -> Object:
    labels = {"jobset.sigs.k8s.io/jobset-name": train["metadata"]["name"]}
    return {"name": name, "namespace": train["metadata"]["namespace"], "labels": labels,
            "ownerReferences": [reference(train)]}  # fmt: skip


def _check_patch(pod: Object) -> None:
    """Refuse patches that the real API server and webhook refuse."""
    for container in pod.get("containers", ()):
        mounted = [mount["name"] for mount in container.get("volumeMounts", ())]
        if len(mounted) != len(set(mounted)):
            raise ApiError(422, "Invalid", f"volumeMounts: duplicate value in {mounted}")
        if container["name"] == "node" and container.get("env"):
            raise ApiError(422, "Invalid", "must not have envs for the node container")


def _build_job(train: Object, runtime: Object) -> Object:
    replicated = next(
        j for j in runtime["spec"]["template"]["spec"]["replicatedJobs"] if j["name"] == "node"
    )
    template = copy.deepcopy(replicated["template"]["spec"]["template"])
    for patch in train["spec"].get("runtimePatches", ()):
        for job in patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]:
            if job["name"] == "node":
                _check_patch(job["template"]["spec"]["template"]["spec"])
                template = strategic_patch(template, job["template"]["spec"]["template"])
    name, trainer = train["metadata"]["name"], train["spec"]["trainer"]
    nodes = trainer.get("numNodes", 1)
    container = next(c for c in template["spec"]["containers"] if c["name"] == "node")
    container.update(
        {field: trainer[field] for field in ("image", "command", "args") if field in trainer}
    )
    if trainer.get("resourcesPerNode"):
        container["resources"] = trainer["resourcesPerNode"]
    values = {
        "PET_NNODES": str(nodes),
        "PET_NPROC_PER_NODE": str(trainer.get("numProcPerNode", "auto")),
        "PET_MASTER_ADDR": f"{name}-node-0-0.{name}",
        "PET_MASTER_PORT": PORT,
    }
    rank = {"fieldRef": {"fieldPath": f"metadata.annotations['{INDEX}']"}}
    container["env"] = [
        *trainer.get("env", []),
        *({"name": key, "value": value} for key, value in values.items()),
        {"name": "PET_NODE_RANK", "valueFrom": rank},
    ]
    labels = template.setdefault("metadata", {}).setdefault("labels", {})
    labels.update({"jobset.sigs.k8s.io/jobset-name": name, "jobset.sigs.k8s.io/replicatedjob-name": "node",
                   "trainer.kubeflow.org/trainjob-ancestor-step": "trainer"})  # fmt: skip
    template["spec"]["subdomain"] = name
    spec = {
        "completionMode": "Indexed",
        "completions": nodes,
        "parallelism": nodes,
        "backoffLimit": replicated["template"]["spec"].get("backoffLimit", 6),
        "suspend": bool(train["spec"].get("suspend")),
        "template": template,
    }
    return {"metadata": _metadata(train, f"{name}-node-0"), "spec": spec}
