"""Training stage → TrainJob of Kubeflow Trainer v2 (trainer.kubeflow.org/v1alpha1, 2.2 or later). Pure.

The runtime ``cosmos-torch``, which the chart installs, holds an empty pod; everything that decides comes from here:
image, command, environment and resources in ``trainer``, the rest of the pod as a patch of the runtime.
"""

from __future__ import annotations

from cosmos_operator.api.v1alpha1 import PostTrainingJob
from cosmos_operator.plan.job import is_queued, workload_metadata
from cosmos_operator.plan.names import ATTEMPT_LABEL, attempt_name
from cosmos_operator.plan.pod import Manifest, build_pod_template
from cosmos_operator.plan.stages import Stage
from cosmos_operator.settings import Settings

RUNTIME = "cosmos-torch"
CONTAINER = "node"
"""Container, and replicated job, that the runtime names."""
MANAGER = "cosmos.dev/operator"
PATCHED_POD_FIELDS = (
    "affinity", "imagePullSecrets", "nodeSelector", "securityContext",
    "terminationGracePeriodSeconds", "tolerations", "volumes",
)  # fmt: skip
"""Fields of a pod that a TrainJob may change in its runtime, of those that our pods set."""


def _mount_each_volume_once(pod: Manifest, container: Manifest) -> None:
    """A TrainJob's patch lists mounts by the names of their volumes, so each folder of a claim needs a volume."""
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


def build_trainjob(
    job: PostTrainingJob,
    stage: Stage,
    config_map: str,
    settings: Settings,
    attempt: int,
    avoid_nodes: tuple[str, ...] = (),
) -> tuple[Manifest, ...]:
    """The TrainJob of one attempt."""
    template = build_pod_template(
        job,
        stage,
        config_map=config_map,
        settings=settings,
        container=CONTAINER,
        avoid_nodes=avoid_nodes,
    )
    template["metadata"]["labels"][ATTEMPT_LABEL] = str(attempt)
    pod = template["spec"]
    container = pod["containers"][0]
    _mount_each_volume_once(pod, container)
    header = workload_metadata(job, stage, attempt_name(job.name, attempt))
    header["labels"][ATTEMPT_LABEL] = str(attempt)
    trainer: Manifest = {
        "image": container["image"],
        "command": container["command"],
        "env": container["env"],
        "numNodes": stage.nodes,
        "numProcPerNode": stage.processes_per_node,
        "resourcesPerNode": container["resources"],
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
        "metadata": header,
        "spec": {
            "runtimeRef": {"name": RUNTIME},
            "suspend": is_queued(job, stage),
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
