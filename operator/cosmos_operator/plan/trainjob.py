"""Training → TrainJob of Kubeflow Trainer v2 (trainer.kubeflow.org/v1alpha1, 2.2 or later). Pure.

The runtime ``cosmos-torch``, which the chart installs, holds an empty pod. The TrainJob gives image, command,
environment and resources in ``trainer``, and the rest of the pod as a patch of the runtime.
"""

from __future__ import annotations

from cosmos_operator.api.labels import PRIORITY_LABEL
from cosmos_operator.kube.kinds import Manifest
from cosmos_operator.plan.workload import TrainingAttempt

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
"""Fields of a container that a TrainJob carries in its trainer or in its patch, of those that a template can set."""


def trainjob_problems(attempt: TrainingAttempt) -> list[str]:
    """What the pods of a training are to have and a TrainJob cannot carry, one line each."""
    plain, pod = attempt.plain_pod_template()["spec"], attempt.pod_template()["spec"]
    container = pod["containers"][0]
    lost = [
        f"spec.{name}"
        for name, value in pod.items()
        if name not in (*PATCHED_POD_FIELDS, "containers")
        and (name not in RUNTIME_POD_FIELDS or value != plain[name])
    ]
    known = (*CARRIED_CONTAINER_FIELDS, *plain["containers"][0])
    lost += [f"spec.containers.{name}" for name in container if name not in known]
    lost += [
        f"a second mount of the volume {name!r}" for name in _scratch_mounted_twice(pod, container)
    ]
    return [
        f"spec.backend.type: a TrainJob cannot carry {what} of the training's pods, which spec.scheduling or a pod "
        "template asks for; give it up, or use the backend Job or PyTorchJob"
        + (f" (with a queue the label {PRIORITY_LABEL} of the job does the same)" if "priority" in what else "")
        for what in lost
    ]  # fmt: skip


def _scratch_mounted_twice(pod: Manifest, container: Manifest) -> list[str]:
    """Volumes that are empty at first and mounted at several paths; copies of them would not share their files."""
    fresh = [one["name"] for one in pod["volumes"] if "emptyDir" in one or "ephemeral" in one]
    mounted = [mount["name"] for mount in container["volumeMounts"]]
    return [name for name in fresh if mounted.count(name) > 1]


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
    """The TrainJob of one attempt."""
    template = attempt.pod_template(CONTAINER)
    pod = template["spec"]
    container = pod["containers"][0]
    _mount_each_volume_once(pod, container)
    trainer: Manifest = {
        "image": container["image"],
        "command": container["command"],
        "env": container["env"],
        "numNodes": attempt.stage.nodes,
        "numProcPerNode": attempt.stage.processes_per_node,
        "resourcesPerNode": container.get("resources", {}),
    }
    pod_patch: Manifest = {name: pod[name] for name in PATCHED_POD_FIELDS if name in pod}
    pod_patch["containers"] = [
        {name: container[name] for name in ("name", "volumeMounts", "securityContext")}
    ]
    node_patch = {
        "name": CONTAINER,
        "template": {
            "spec": {"template": {"metadata": template["metadata"], "spec": pod_patch}},
        },
    }
    workload: Manifest = {
        "apiVersion": "trainer.kubeflow.org/v1alpha1",
        "kind": "TrainJob",
        "metadata": attempt.metadata(),
        "spec": {
            "runtimeRef": {"name": RUNTIME},
            "suspend": attempt.is_queued,
            "trainer": trainer,
            "runtimePatches": [
                {
                    "manager": MANAGER,
                    "trainingRuntimeSpec": {"template": {"spec": {"replicatedJobs": [node_patch]}}},
                }
            ],
        },
    }
    return (workload,)
