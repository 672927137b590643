"""The parts of each kind of object that the cache keeps: those that a decision reads, and no more. Pure.

What is not named here does not reach a decision, and a change of it alone causes no pass.
"""

from __future__ import annotations

from typing import Any, Final

from cosmos_operator.api.base import GROUP
from cosmos_operator.kube.containers import DEFAULT_CONTAINER
from cosmos_operator.kube.kinds import JOB_KINDS, Manifest

ALL: Final = None
"""Shape of a value that is kept whole."""
Shape = dict[str, Any]
"""Name of a field → shape of its value; the shape of a list is that of its items."""


def _fields(names: str, **shapes: Shape) -> Shape:
    return {**dict.fromkeys(names.split(), ALL), **shapes}


_METADATA = _fields(
    "name namespace uid labels ownerReferences creationTimestamp deletionTimestamp deletionGracePeriodSeconds"
)
_CONDITION = _fields("type status reason message lastTransitionTime")
_CONTAINER = _fields("name image resources restartPolicy")
_TEMPLATE_CONTAINER = _fields("name image command resources restartPolicy")
_STATE = {
    "running": _fields("startedAt"),
    "waiting": _fields("reason message"),
    "terminated": _fields("exitCode reason message startedAt finishedAt signal"),
}
_CONTAINER_STATUS = _fields("name image restartCount", state=_STATE, lastState=_STATE)
_POD_STATUS = _fields(
    "phase reason message startTime",
    conditions=_CONDITION,
    containerStatuses=_CONTAINER_STATUS,
    initContainerStatuses=_CONTAINER_STATUS,
)
_POD_SPEC = _fields("nodeName schedulerName", containers=_CONTAINER, initContainers=_CONTAINER)
_TEMPLATE_SPEC = {**_POD_SPEC, "containers": _TEMPLATE_CONTAINER}
_ENDED_PODS = _fields("failed succeeded")
_WORKLOAD_STATUS = _fields("startTime completionTime", conditions=_CONDITION)

SHAPES: dict[str, Shape] = {
    "Job": {
        "spec": _fields("suspend activeDeadlineSeconds", template={"spec": _TEMPLATE_SPEC}),
        "status": {**_WORKLOAD_STATUS, **_ENDED_PODS},
    },
    "PyTorchJob": {
        "spec": {"runPolicy": _fields("suspend")},
        "status": {
            **_WORKLOAD_STATUS,
            "replicaStatuses": {"Master": _ENDED_PODS, "Worker": _ENDED_PODS},
        },
    },
    "TrainJob": {
        "spec": _fields(
            "suspend", runtimeRef=_fields("kind name"), runtimePatches=_fields("manager")
        ),
        "status": {**_WORKLOAD_STATUS, "jobsStatus": _ENDED_PODS},
    },
    "Pod": {"spec": _POD_SPEC, "status": _POD_STATUS},
    "ConfigMap": {},
    "Service": {"spec": _fields("selector")},
    "PersistentVolumeClaim": {
        "spec": _fields("accessModes storageClassName resources volumeName"),
        "status": _fields("phase"),
    },
    "LocalQueue": {"spec": _fields("clusterQueue")},
    "Workload": {"spec": _fields("active queueName"), "status": {"conditions": _CONDITION}},
    "Node": {
        "spec": {"taints": _fields("key")},
        "status": _fields("allocatable", conditions=_fields("type status")),
    },
}
"""Fields beside apiVersion, kind and metadata that are kept of each kind."""

_READ_POD_CONDITIONS = (
    ("PodScheduled", "False"),
    ("PodScheduled", "True"),
    ("DisruptionTarget", "True"),
)
_ENDS = ("Succeeded", "Failed")
_ENDED_JOB: Shape = {
    "metadata": _fields("name namespace uid generation creationTimestamp deletionTimestamp"),
    "spec": {
        "runPolicy": _fields("ttlSecondsAfterFinished retry"),
        "outputs": _fields("name"),
        "storage": {"checkpoints": _fields("claimName subPath")},
    },
    "status": _fields("state startTime completionTime conditions retry observedGeneration"),
}


def trim(kind: str, manifest: Manifest) -> Manifest:
    """The parts of an object that are kept, as a new dictionary; a job stays whole until it has ended."""
    if kind in JOB_KINDS:
        return _trim_job(manifest)
    shape = {**SHAPES[kind], "metadata": _METADATA}
    kept: Manifest = _pick(manifest, shape)
    annotations = manifest["metadata"].get("annotations") or {}
    own = {
        name: value
        for name, value in annotations.items()
        if name.startswith(GROUP) or name == DEFAULT_CONTAINER
    }
    if own:
        kept["metadata"]["annotations"] = own
    if kind == "Pod" and "status" in kept:
        conditions = kept["status"].get("conditions") or ()
        kept["status"]["conditions"] = [
            one for one in conditions if (one["type"], one["status"]) in _READ_POD_CONDITIONS
        ]
    return kept


def has_ended(job: Manifest) -> bool:
    """True if a job has succeeded, or has failed and is not told to try again."""
    status = job.get("status") or {}
    ends = {
        one["type"]
        for one in status.get("conditions") or ()
        if one["type"] in _ENDS and one["status"] == "True"
    }
    policy = (job.get("spec") or {}).get("runPolicy") or {}
    is_told = (policy.get("retry") or 0) > (status.get("retry") or 0)
    return "Succeeded" in ends or ("Failed" in ends and not is_told)


def is_new(job: Manifest) -> bool:
    """True for a job that has had no pass: of its status there is what the API server fills in, if anything."""
    return not (job.get("status") or {}).get("conditions")


def was_edited(job: Manifest) -> bool:
    """True if the specification of a job has changed since its status was written."""
    generation = job["metadata"].get("generation", 0)
    return bool((job.get("status") or {}).get("observedGeneration", 0) != generation)


def _trim_job(job: Manifest) -> Manifest:
    if has_ended(job):
        kept: Manifest = _pick(job, _ENDED_JOB)
        conditions = kept["status"]["conditions"]
        read = (*_ENDS, "Published")  # InferenceJobs ask whether there is a model
        kept["status"]["conditions"] = [one for one in conditions if one["type"] in read]
        return kept
    metadata = {
        name: value
        for name, value in job["metadata"].items()
        if name not in ("managedFields", "resourceVersion")
    }
    if annotations := metadata.get("annotations"):
        metadata["annotations"] = {
            name: value
            for name, value in annotations.items()
            if not name.startswith("kubectl.kubernetes.io/")
        }
    return {**job, "metadata": metadata}


def _pick(value: Any, shape: Shape | None) -> Any:  # noqa: ANN401 - JSON values
    """The parts of a JSON value that a shape names."""
    if shape is ALL or value is None:
        return value
    if isinstance(value, list):
        return [_pick(item, shape) for item in value]
    return {name: _pick(value[name], inner) for name, inner in shape.items() if name in value}
