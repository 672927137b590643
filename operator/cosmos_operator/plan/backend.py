"""The backends of the training: PyTorchJob, an indexed Job, or TrainJob. Pure.

All three run the same pods, with one workload for each attempt.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from cosmos_operator.api.labels import INDEX_ANNOTATION, LEADER, ROLE_LABEL
from cosmos_operator.kube.kinds import Manifest
from cosmos_operator.plan.job import build_training_job
from cosmos_operator.plan.pytorchjob import build_pytorchjob
from cosmos_operator.plan.trainjob import build_trainjob
from cosmos_operator.plan.workload import TrainingAttempt

BackendKind = Literal["PyTorchJob", "Job", "TrainJob"]
Build = Callable[[TrainingAttempt], tuple[Manifest, ...]]


@dataclass(frozen=True)
class Backend:
    """One kind of workload that can run the training."""

    kind: BackendKind
    """Kind of the workload."""
    container: str
    """Name of the training's container in its pods."""
    leader_labels: Mapping[str, str]
    """Labels that only the pod of rank 0 has."""
    needs: str
    """Software that a cluster needs for the kind, for messages; empty = every cluster has the kind."""
    build: Build
    """Manifests of one attempt, the workload last."""


_FIRST_INDEX = {INDEX_ANNOTATION: "0"}

BACKENDS: dict[str, Backend] = {
    backend.kind: backend
    for backend in (
        Backend(
            "PyTorchJob",
            "pytorch",
            {ROLE_LABEL: LEADER},
            "Kubeflow training-operator v1 (CustomResourceDefinition pytorchjobs.kubeflow.org)",
            build_pytorchjob,
        ),
        Backend("Job", "worker", _FIRST_INDEX, "", build_training_job),
        Backend(
            "TrainJob",
            "node",
            _FIRST_INDEX,
            "Kubeflow Trainer v2.2 or later (CustomResourceDefinition trainjobs.trainer.kubeflow.org) and the "
            "ClusterTrainingRuntime cosmos-torch of the chart (trainer.runtime.create=true)",
            build_trainjob,
        ),
    )
}


def choose_backend(
    wanted: str, served: frozenset[str], unfit: frozenset[str] = frozenset()
) -> Backend:
    """The backend that a job asks for.

    Args:
        wanted: ``spec.backend.type``; Auto is PyTorchJob where it can be carried out, otherwise Job.
        served: the optional kinds that the API server has.
        unfit: kinds that would not run: the job's queue does not manage them, or nothing carries them out.
    """
    if wanted == "Auto":
        return BACKENDS["PyTorchJob" if "PyTorchJob" in served - unfit else "Job"]
    return BACKENDS[wanted]
