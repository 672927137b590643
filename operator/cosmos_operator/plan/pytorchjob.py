"""Training stage → Kubeflow PyTorchJob (kubeflow.org/v1). Pure.

One PyTorchJob an attempt, never restarted by the training-operator: its retries restart single replicas and its
deadlines fire late, and it deletes pods whose end it has not seen yet, with the reason that they give. So attempts,
deadlines and clean-up belong to our operator.
"""

from __future__ import annotations

from cosmos_operator.api.v1alpha1 import PostTrainingJob
from cosmos_operator.plan.job import is_queued, workload_metadata
from cosmos_operator.plan.names import ATTEMPT_LABEL, LEADER, ROLE_LABEL, attempt_name
from cosmos_operator.plan.pod import Manifest, build_pod_template
from cosmos_operator.plan.stages import Stage
from cosmos_operator.settings import Settings

CONTAINER = "pytorch"
"""The name that PyTorchJob demands."""


def build_pytorchjob(
    job: PostTrainingJob,
    stage: Stage,
    config_map: str,
    settings: Settings,
    attempt: int,
    avoid_nodes: tuple[str, ...] = (),
) -> tuple[Manifest, ...]:
    """The PyTorchJob of one attempt: a master, and a worker for each further node."""

    def replicas(count: int) -> Manifest:
        template = build_pod_template(
            job,
            stage,
            config_map=config_map,
            settings=settings,
            container=CONTAINER,
            avoid_nodes=avoid_nodes,
        )
        template["metadata"]["labels"][ATTEMPT_LABEL] = str(attempt)
        del template["spec"]["restartPolicy"]  # stated for the replica; twice is an event each time
        return {"replicas": count, "restartPolicy": "Never", "template": template}

    replica_specs = {"Master": replicas(1)}
    replica_specs["Master"]["template"]["metadata"]["labels"][ROLE_LABEL] = LEADER
    if stage.nodes > 1:
        replica_specs["Worker"] = replicas(stage.nodes - 1)
    header = workload_metadata(job, stage, attempt_name(job.name, attempt))
    header["labels"][ATTEMPT_LABEL] = str(attempt)
    workload = {
        "apiVersion": "kubeflow.org/v1",
        "kind": "PyTorchJob",
        "metadata": header,
        "spec": {
            # ended pods stay, for kubectl logs and for why they ended; our operator stops those that are left
            "runPolicy": {"cleanPodPolicy": "None", "suspend": is_queued(job, stage)},
            "nprocPerNode": str(stage.processes_per_node),
            "pytorchReplicaSpecs": replica_specs,
        },
    }
    return (workload,)
