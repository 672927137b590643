"""Kubeflow Trainer v2, which runs TrainJobs, and the JobSet controller that it makes its pods with."""

from __future__ import annotations

from harness.constants import JOBSET_VERSION, TRAINER_VERSION
from harness.controllers import DeployedController

NAMESPACE = "kubeflow-system"


def jobset() -> DeployedController:
    """JobSet as a controller: module, manifests, configuration."""
    return DeployedController(
        name="jobset",
        module="sigs.k8s.io/jobset",
        version=f"v{JOBSET_VERSION}",
        package="sigs.k8s.io/jobset",
        manifests="config",
        bases=("default",),
        namespace="jobset-system",
        deployment="jobset-controller-manager",
        crd="jobsets.jobset.x-k8s.io",
        certificate="jobset-webhook-server-cert",
    )


def trainer() -> DeployedController:
    """The trainer as a controller; its manifests without the overlay that fetches JobSet from the internet."""
    module = "github.com/kubeflow/trainer/v2"
    return DeployedController(
        name="trainer",
        module=module,
        version=f"v{TRAINER_VERSION}",
        package=f"{module}/cmd/trainer-controller-manager",
        manifests="manifests",
        bases=("base/crds", "base/manager", "base/rbac", "base/webhook"),
        namespace=NAMESPACE,
        deployment="kubeflow-trainer-controller-manager",
        crd="trainjobs.trainer.kubeflow.org",
        certificate="kubeflow-trainer-webhook-cert",
        objects=(
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": "kubeflow-trainer-webhook-cert"},
            },
        ),
        kustomization={"namespace": NAMESPACE},
    )


def install() -> None:
    """Deploy both and wait until they are ready."""
    jobset().install()
    trainer().install()


def remove() -> None:
    """Remove both, and every TrainJob with them."""
    trainer().remove()
    jobset().remove()
