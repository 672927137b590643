"""Training → TrainJob of Kubeflow Trainer v2 (trainer.kubeflow.org/v1alpha1, 2.2 or later). Pure.

The runtime ``cosmos-torch``, which the chart installs, holds an empty pod. The TrainJob gives image, command,
environment and resources in ``trainer``, and the rest of the pod as a patch of the runtime. A patch cannot carry all
that a pod template may ask for, such as a priority class: then the attempt gets a TrainingRuntime of its own, with the
whole pod.
"""

from __future__ import annotations

from cosmos_operator.kube.kinds import Manifest
from cosmos_operator.plan.pod import metadata
from cosmos_operator.plan.workload import TrainingAttempt
from cosmos_worker.storage.volumes import content_key

API_VERSION = "trainer.kubeflow.org/v1alpha1"
OWN_RUNTIME_KIND = "TrainingRuntime"
RUNTIME = "cosmos-torch"
CONTAINER = "node"
"""Name of the container, and of the replicated job, in the runtime."""
MANAGER = "cosmos.dev/operator"
"""Manager of our patch of the runtime."""
PATCHED_POD_FIELDS = (
    "affinity", "imagePullSecrets", "nodeSelector", "securityContext", "serviceAccountName", "tolerations", "volumes",
)  # fmt: skip
"""Fields of our pods that a TrainJob may patch in its runtime since Trainer 2.2.

A field that only later versions have would be dropped silently where a program that knows 2.2 writes the TrainJob, as
Kueue 0.17 does."""

RUNTIME_POD_FIELDS = (
    "automountServiceAccountToken", "enableServiceLinks", "restartPolicy", "terminationGracePeriodSeconds",
)  # fmt: skip
"""Fields of our pods that the runtime holds, with the operator's own values."""
CARRIED_CONTAINER_FIELDS = ("env", "resources", "securityContext", "volumeMounts")
"""Fields of a container that a TrainJob carries beside image and command."""


def _fits_a_patch(attempt: TrainingAttempt, pod: Manifest) -> bool:
    """True if a patch of the chart's runtime can carry all of a pod."""
    plain, container = attempt.plain_pod_template()["spec"], pod["containers"][0]
    fields = {*PATCHED_POD_FIELDS, "containers"}
    fields |= {name for name in RUNTIME_POD_FIELDS if pod.get(name) == plain[name]}
    known = {*CARRIED_CONTAINER_FIELDS, *plain["containers"][0]}
    return set(pod) <= fields and set(container) <= known and not _scratch_mounted_twice(pod)


def _scratch_mounted_twice(pod: Manifest) -> bool:
    """True if a volume that is empty at first has several mounts; copies of it would not share their files."""
    fresh = {one["name"] for one in pod["volumes"] if "emptyDir" in one or "ephemeral" in one}
    mounted = [one["name"] for one in pod["containers"][0]["volumeMounts"] if one["name"] in fresh]
    return len(mounted) > len(set(mounted))


def _mount_each_volume_once(pod: Manifest, container: Manifest) -> None:
    """Give each mount a volume of its own: a TrainJob's patch identifies mounts by the names of their volumes."""
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    mounts: list[Manifest] = []
    for mount in container["volumeMounts"]:
        taken = [one["name"] for one in mounts]
        name = mount["name"]
        if name in taken:
            name = f"{name}-{len(taken)}"
            volumes[name] = {**volumes[mount["name"]], "name": name}
        mounts.append({**mount, "name": name})
    pod["volumes"], container["volumeMounts"] = list(volumes.values()), mounts


def build_trainjob(attempt: TrainingAttempt) -> tuple[Manifest, ...]:
    """The TrainJob of one attempt, after its TrainingRuntime if it needs one."""
    template = attempt.pod_template(CONTAINER)
    container = template["spec"]["containers"][0]
    trainer: Manifest = {
        "image": container["image"],
        "command": container["command"],
        "env": container.pop("env"),
        "numNodes": attempt.stage.nodes,
        "numProcPerNode": attempt.stage.processes_per_node,
        "resourcesPerNode": container.get("resources", {}),
    }
    spec: Manifest = {
        "runtimeRef": {"name": RUNTIME},
        "suspend": attempt.is_queued,
        "trainer": trainer,
    }
    workload: Manifest = {
        "apiVersion": API_VERSION,
        "kind": "TrainJob",
        "metadata": attempt.metadata(),
        "spec": spec,
    }
    if _fits_a_patch(attempt, template["spec"]):
        spec["runtimePatches"] = [_patch(template)]
        return (workload,)
    runtime = _runtime(attempt, template)
    spec["runtimeRef"] = {"kind": OWN_RUNTIME_KIND, "name": runtime["metadata"]["name"]}
    return runtime, workload


def _patch(template: Manifest) -> Manifest:
    """The pod as a patch of the chart's runtime."""
    pod, container = template["spec"], template["spec"]["containers"][0]
    _mount_each_volume_once(pod, container)
    pod_patch: Manifest = {name: pod[name] for name in PATCHED_POD_FIELDS if name in pod}
    pod_patch["containers"] = [
        {name: container[name] for name in ("name", "volumeMounts", "securityContext")}
    ]
    spec = {"template": {"metadata": template["metadata"], "spec": pod_patch}}
    nodes = [{"name": CONTAINER, "template": {"spec": spec}}]
    runtime_spec = {"template": {"spec": {"replicatedJobs": nodes}}}
    return {"manager": MANAGER, "trainingRuntimeSpec": runtime_spec}


def _runtime(attempt: TrainingAttempt, template: Manifest) -> Manifest:
    """A runtime with the whole pod, but for its environment. Its name tells its content, which never changes."""
    header = metadata(attempt.job, attempt.stage, f"{attempt.name}-{content_key([template])[:6]}")
    header["labels"]["trainer.kubeflow.org/framework"] = "torch"
    step = {"labels": {"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"}}
    job = {"metadata": step, "spec": {"backoffLimit": 0, "template": template}}
    return {
        "apiVersion": API_VERSION,
        "kind": OWN_RUNTIME_KIND,
        "metadata": header,
        "spec": {
            "mlPolicy": {"numNodes": 1, "torch": {}},
            "template": {"spec": {"replicatedJobs": [{"name": CONTAINER, "template": job}]}},
        },
    }
