"""Kubeflow training-operator v1.9.4 as far as PyTorchJobs need it: pods, services, environment, conditions."""

from __future__ import annotations

import copy
from collections.abc import Iterator

from support.fakekube.errors import ApiError
from support.fakekube.resources import Object
from support.fakekube.store import Event, utc_now
from support.fakekube.world import Controller, Key, is_true, key_of, reference, set_condition

PYTORCHJOBS = "pytorchjobs.kubeflow.org"
PREFIX = "training.kubeflow.org"
PORT = 23456
INIT_IMAGE = "alpine:3.10"


class PyTorchJobController(Controller):
    """One pod and one Service for each replica; the master decides."""

    def keys(self, event: Event) -> Iterator[Key]:
        """A PyTorchJob, or that of a pod or Service."""
        if event.resource.key == PYTORCHJOBS:
            yield key_of(event.obj)
        elif event.resource.key in ("pods", "services"):
            for owner in event.obj["metadata"].get("ownerReferences", ()):
                if owner["kind"] == "PyTorchJob":
                    yield event.obj["metadata"]["namespace"], owner["name"]

    def sync(self, key: Key) -> None:
        """Look at one PyTorchJob."""
        job = self.store.find(PYTORCHJOBS, *key) if self.store.serves(PYTORCHJOBS) else None
        if job is None or "deletionTimestamp" in job["metadata"]:
            return
        status = copy.deepcopy(job.get("status", {}))
        if "conditions" not in status:
            text = f"PyTorchJob {key[1]} is created."
            status["conditions"] = set_condition([], "Created", "True", "PyTorchJobCreated", text)
        pods = self.world.owned("pods", job)
        conditions = status["conditions"]
        if is_true(conditions, "Succeeded") or is_true(conditions, "Failed"):
            self._clean_up(job, pods, is_finished=True)
            self._complete_replicas(status)
        elif job["spec"].get("runPolicy", {}).get("suspend"):
            self._clean_up(job, pods, is_finished=False)
            self._suspend(job, status)
        else:
            self._run(job, status, pods)
        if status != job.get("status", {}):
            self.store.patch_status(PYTORCHJOBS, job, **status)

    def _complete_replicas(self, status: Object) -> None:
        if is_true(status["conditions"], "Succeeded"):
            for replica in status.get("replicaStatuses", {}).values():
                replica["succeeded"] = replica.get("succeeded", 0) + replica.pop("active", 0)

    def _suspend(self, job: Object, status: Object) -> None:
        text = f"PyTorchJob {job['metadata']['name']} is suspended."
        conditions = status["conditions"]
        if is_true(conditions, "Running"):
            conditions = set_condition(conditions, "Running", "False", "PyTorchJobSuspended", text)
        conditions = set_condition(conditions, "Suspended", "True", "PyTorchJobSuspended", text)
        for replica in status.get("replicaStatuses", {}).values():
            replica.pop("active", None)
        status["conditions"] = conditions

    def _run(self, job: Object, status: Object, pods: list[Object]) -> None:
        name = job["metadata"]["name"]
        if is_true(status["conditions"], "Suspended"):
            about = ("False", "PyTorchJobResumed", f"PyTorchJob {name} is resumed.")
            status["conditions"] = set_condition(status["conditions"], "Suspended", *about)
            status["startTime"] = utc_now()
        status.setdefault("startTime", utc_now())
        by_name = {pod["metadata"]["name"]: pod for pod in pods}
        services = {service["metadata"]["name"] for service in self.world.owned("services", job)}
        status["replicaStatuses"] = {}
        for kind, spec in job["spec"]["pytorchReplicaSpecs"].items():
            counts: dict[str, int] = {}
            for index in range(spec.get("replicas", 1)):
                pod_name = f"{name}-{kind.lower()}-{index}"
                self._ensure(job, kind, index, pod_name not in by_name, pod_name not in services)
                phase = by_name[pod_name]["status"]["phase"] if pod_name in by_name else "Pending"
                field = {"Running": "active", "Succeeded": "succeeded", "Failed": "failed"}.get(
                    phase
                )
                if field:
                    counts[field] = counts.get(field, 0) + 1
            status["replicaStatuses"][kind] = counts
        self._conclude(job, status)

    def _conclude(self, job: Object, status: Object) -> None:
        name, conditions = job["metadata"]["name"], status["conditions"]
        for kind, spec in job["spec"]["pytorchReplicaSpecs"].items():
            counts = status["replicaStatuses"][kind]
            running, done = counts.get("active", 0), counts.get("succeeded", 0)
            failed, replicas = counts.get("failed", 0), spec.get("replicas", 1)
            if kind == "Master" and running:
                about = ("True", "PyTorchJobRunning", f"PyTorchJob {name} is running.")
                conditions = set_condition(conditions, "Running", *about)
            if kind == "Master" and done == replicas:
                text = f"PyTorchJob {name} is successfully completed."
                conditions = self._finish(job, conditions, "Succeeded", text)
                status["completionTime"] = utc_now()
                break
            if failed and replicas > done + running:
                text = f"PyTorchJob {name} is failed because {failed} {kind} replica(s) failed."
                conditions = self._finish(job, conditions, "Failed", text)
                status.setdefault("completionTime", utc_now())
                break
        status["conditions"] = conditions

    def _finish(self, job: Object, conditions: list[Object], kind: str, text: str) -> list[Object]:
        self.world.write_event(job, "Normal", f"PyTorchJob{kind}", text, "pytorchjob-controller")
        conditions = [{**c, "status": "False"} if c["type"] == "Running" else c for c in conditions]
        return set_condition(conditions, kind, "True", f"PyTorchJob{kind}", text)

    def _clean_up(self, job: Object, pods: list[Object], *, is_finished: bool) -> None:
        policy = job["spec"].get("runPolicy", {}).get("cleanPodPolicy", "None")
        if is_finished and policy == "None":
            return
        for pod in pods:
            if (
                is_finished
                and policy == "Running"
                and pod["status"]["phase"] not in ("Running", "Pending")
            ):
                continue
            if "deletionTimestamp" not in pod["metadata"]:
                self.store.delete("pods", *key_of(pod))
            if self.store.find("services", *key_of(pod)) is not None:
                self.store.delete("services", *key_of(pod))

    # --- pods ----------------------------------------------------------------------------------

    def _ensure(self, job: Object, kind: str, index: int, no_pod: bool, no_service: bool) -> None:
        try:
            if no_pod:
                self.store.create("pods", _build_pod(job, kind, index))
            if no_service:
                self.store.create("services", _build_service(job, kind, index))
        except ApiError as error:
            if error.reason == "AlreadyExists":
                self.again(key_of(job), self.world.timing.retry_s)
                return
            text = f"Error creating: {error}"
            self.world.write_event(job, "Warning", "FailedCreatePod", text, "pytorchjob-controller")
            self.again(key_of(job), self.world.timing.retry_s)


def _labels(job: Object, kind: str, index: int) -> dict[str, str]:
    labels = {
        f"{PREFIX}/operator-name": "pytorchjob-controller",
        f"{PREFIX}/job-name": job["metadata"]["name"],
        f"{PREFIX}/replica-type": kind.lower(),
        f"{PREFIX}/replica-index": str(index),
    }
    if kind == "Master":
        labels[f"{PREFIX}/job-role"] = "master"
    return labels


def _build_pod(job: Object, kind: str, index: int) -> Object:
    specs, name = job["spec"]["pytorchReplicaSpecs"], job["metadata"]["name"]
    template = copy.deepcopy(specs[kind]["template"])
    meta, spec = template.setdefault("metadata", {}), template["spec"]
    meta["labels"] = {**meta.get("labels", {}), **_labels(job, kind, index)}
    meta.update(name=f"{name}-{kind.lower()}-{index}", namespace=job["metadata"]["namespace"])
    meta["ownerReferences"] = [reference(job)]
    policy = specs[kind].get("restartPolicy", "OnFailure")
    spec["restartPolicy"] = "Never" if policy == "ExitCode" else policy
    total = sum(replica.get("replicas", 1) for replica in specs.values())
    processes = str(job["spec"].get("nprocPerNode", "auto"))
    rank, master = index + (kind == "Worker"), f"{name}-master-0"
    world_size = total * (int(processes) if processes.isdigit() else 1)
    values = {
        "PYTHONUNBUFFERED": "1",
        "MASTER_PORT": str(PORT), "PET_MASTER_PORT": str(PORT),
        "MASTER_ADDR": master, "PET_MASTER_ADDR": master,
        "WORLD_SIZE": str(world_size), "RANK": str(rank), "PET_NODE_RANK": str(rank),
        "PET_NPROC_PER_NODE": processes, "PET_NNODES": str(total),
    }  # fmt: skip
    for container in spec["containers"]:
        container["env"] = [
            *container.get("env", []),
            *({"name": key, "value": value} for key, value in values.items()),
        ]
    if kind == "Worker":
        command = ["sh", "-c", f"until nslookup {master}; do sleep 2; done"]
        spec.setdefault("initContainers", []).append(
            {"name": "init-pytorch", "image": INIT_IMAGE, "command": command}
        )
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}


def _build_service(job: Object, kind: str, index: int) -> Object:
    labels = _labels(job, kind, index)
    meta = {
        "name": f"{job['metadata']['name']}-{kind.lower()}-{index}",
        "namespace": job["metadata"]["namespace"],
        "labels": labels,
        "ownerReferences": [reference(job)],
    }
    ports = [{"name": "pytorchjob-port", "port": PORT}]
    spec = {"clusterIP": "None", "selector": labels, "ports": ports}
    return {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": spec}
