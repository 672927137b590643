"""The training-operator: PyTorchJob (v1) and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

from harness import base_image
from harness.constants import TRAINING_OPERATOR_VERSION
from harness.controllers import DeployedController, Manifest
from harness.images import preload

NAMESPACE = "kubeflow"
CONFIG = "pytorch-init-container"
CONFIG_FOLDER = "/etc/config"
CONFIG_FILE = "initContainer.yaml"
WAIT_FOR_MASTER = "for i in $(seq {{.MaxTries}}); do getent hosts {{.MasterAddr}} && exit 0; sleep 0.5; done; exit 1"
"""The built-in one pulls an image from the internet, and Pod Security "restricted" refuses it."""


def _init_containers() -> list[Manifest]:
    """The init container of every worker pod: it waits until the master's name has an address."""
    return [
        {
            "name": "init-pytorch",
            "image": base_image.name_in_registry(),
            "imagePullPolicy": "IfNotPresent",
            "command": ["sh", "-c", WAIT_FOR_MASTER],
            "resources": {
                "requests": {"cpu": "10m", "memory": "10Mi"},
                "limits": {"cpu": "100m", "memory": "20Mi"},
            },
            "securityContext": {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "runAsNonRoot": True,
                "runAsUser": 65532,
                "capabilities": {"drop": ["ALL"]},
                "seccompProfile": {"type": "RuntimeDefault"},
            },
        }
    ]


def controller() -> DeployedController:
    """The training-operator as a controller: module, manifests, configuration."""
    module = "github.com/kubeflow/training-operator"
    return DeployedController(
        name="training-operator",
        module=module,
        version=f"v{TRAINING_OPERATOR_VERSION}",
        package=f"{module}/cmd/training-operator.v1",
        manifests="manifests",
        bases=("overlays/standalone",),
        namespace=NAMESPACE,
        deployment="training-operator",
        crd="pytorchjobs.kubeflow.org",
        certificate="training-operator-webhook-cert",
        container="training-operator",
        objects=(
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": CONFIG, "namespace": NAMESPACE},
                "data": {CONFIG_FILE: json.dumps(_init_containers(), indent=1)},
            },
        ),
        container_patch={
            "args": [
                "--enable-scheme=pytorchjob",
                f"--pytorch-init-container-template-file={CONFIG_FOLDER}/{CONFIG_FILE}",
            ],
            "volumeMounts": [{"name": "config", "mountPath": CONFIG_FOLDER, "readOnly": True}],
        },
        pod_patch={"volumes": [{"name": "config", "configMap": {"name": CONFIG}}]},
    )


def crd_file() -> Path:
    """File of PyTorchJobs' CustomResourceDefinition, once the controller is built."""
    return controller().folder / "manifests/base/crds/kubeflow.org_pytorchjobs.yaml"


def install() -> None:
    """Deploy it and wait until it serves its webhook."""
    preload(base_image.in_registry())
    controller().install()


def remove() -> None:
    """Remove it with its CRDs, and every PyTorchJob with them."""
    controller().remove()
