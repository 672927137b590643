"""Training → PyTorchJob of the Kubeflow training-operator (kubeflow.org/v1). Pure.

Each attempt is one PyTorchJob, which the training-operator never restarts: its retries restart single replicas, its
deadlines fire late, and its clean-up deletes pods whose end, with the reason for it, it has not seen yet. So attempts,
deadlines and clean-up are left to our operator.
"""

from __future__ import annotations

from cosmos_operator.api.labels import LEADER, ROLE_LABEL
from cosmos_operator.kube.kinds import Manifest
from cosmos_operator.plan.workload import TrainingAttempt

CONTAINER = "pytorch"
"""Name of the container that PyTorchJob demands."""


def build_pytorchjob(attempt: TrainingAttempt) -> tuple[Manifest, ...]:
    """The PyTorchJob of one attempt: a master, and a worker for each further node."""

    def replicas(count: int) -> Manifest:
        template = attempt.pod_template(CONTAINER)
        del template["spec"][
            "restartPolicy"
        ]  # stated for the replica; stated twice it causes a warning event
        return {"replicas": count, "restartPolicy": "Never", "template": template}

    stage = attempt.stage
    replica_specs = {"Master": replicas(1)}
    replica_specs["Master"]["template"]["metadata"]["labels"][ROLE_LABEL] = LEADER
    if stage.nodes > 1:
        replica_specs["Worker"] = replicas(stage.nodes - 1)
    workload = {
        "apiVersion": "kubeflow.org/v1",
        "kind": "PyTorchJob",
        "metadata": attempt.metadata(),
        "spec": {
            # ended pods stay, for kubectl logs and for why they ended; our operator stops those that are left
            "runPolicy": {"cleanPodPolicy": "None", "suspend": attempt.is_queued},
            "nprocPerNode": str(stage.processes_per_node),
            "pytorchReplicaSpecs": replica_specs,
        },
    }
    return (workload,)
