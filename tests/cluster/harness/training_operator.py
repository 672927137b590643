"""The training-operator inside the cluster, from its own manifests: PyTorchJob (v1) and nothing else."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from harness import base_image
from harness.build import training_operator
from harness.constants import TRAINING_OPERATOR_VERSION
from harness.control_plane import kubectl
from harness.images import preload, training_operator_image
from harness.paths import state

NAMESPACE = "kubeflow"
DEPLOYMENT = "training-operator"
CONFIG_MAP = "pytorch-init-container"
CONFIG_FOLDER = "/etc/config"
CONFIG_FILE = "initContainer.yaml"
WAIT = "120s"
WAIT_FOR_MASTER = "for i in $(seq {{.MaxTries}}); do getent hosts {{.MasterAddr}} && exit 0; sleep 0.5; done; exit 1"
"""The built-in one pulls an image from the internet, and Pod Security "restricted" refuses it."""


def install() -> None:
    """Deploy it and wait until it serves its webhook."""
    image, init_image = training_operator_image(), base_image.in_registry()
    for needed in (image, init_image):
        preload(needed)
    overlay = _write_overlay(image, init_image)
    kubectl("apply", "--server-side", "--force-conflicts", f"--kustomize={overlay}")
    kubectl(
        "wait", "--for=condition=Established", "crd/pytorchjobs.kubeflow.org", f"--timeout={WAIT}"
    )
    where = f"--namespace={NAMESPACE}"
    kubectl("rollout", "status", where, f"deployment/{DEPLOYMENT}", f"--timeout={WAIT}")


def remove() -> None:
    """Remove it with its CRDs, and every PyTorchJob with them."""
    overlay = _overlay()
    if overlay.exists():
        gone = ("--ignore-not-found", "--wait", f"--timeout={WAIT}")
        kubectl("delete", f"--kustomize={overlay}", *gone)


def installed() -> bool:
    """Whether it is in the cluster."""
    where = f"--namespace={NAMESPACE}"
    found = kubectl("get", "deployment", DEPLOYMENT, where, "--ignore-not-found", "--output=name")
    return bool(found.strip())


def _overlay() -> Path:
    return state() / "training-operator"


def _write_overlay(image: str, init_image: str) -> Path:
    """A kustomization over the module's manifests. kustomize wants relative paths to folders."""
    folder = _overlay()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / CONFIG_FILE).write_text(json.dumps(_init_containers(init_image), indent=1))
    base = training_operator() / "manifests" / "overlays" / "standalone"
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [os.path.relpath(base, folder)],
        "configMapGenerator": [
            {"name": CONFIG_MAP, "namespace": NAMESPACE, "files": [CONFIG_FILE]}
        ],
        "patches": [
            {"target": {"kind": "Deployment"}, "patch": json.dumps(_deployment_patch(image))},
        ],
        "labels": [{"pairs": {"app.kubernetes.io/version": TRAINING_OPERATOR_VERSION}}],
    }
    (folder / "kustomization.yaml").write_text(json.dumps(kustomization, indent=1))
    return folder


def _deployment_patch(image: str) -> dict[str, object]:
    probe = {"initialDelaySeconds": 1, "periodSeconds": 1}
    container = {
        "name": DEPLOYMENT,
        "image": image,
        "args": [
            "--enable-scheme=pytorchjob",
            f"--pytorch-init-container-template-file={CONFIG_FOLDER}/{CONFIG_FILE}",
        ],
        "imagePullPolicy": "IfNotPresent",
        "readinessProbe": probe,
        "volumeMounts": [{"name": "config", "mountPath": CONFIG_FOLDER, "readOnly": True}],
    }
    volumes = [{"name": "config", "configMap": {"name": CONFIG_MAP}}]
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": DEPLOYMENT},
        "spec": {"template": {"spec": {"containers": [container], "volumes": volumes}}},
    }


def _init_containers(image: str) -> list[dict[str, object]]:
    """The init container of every worker pod: it waits until the master's name has an address."""
    return [
        {
            "name": "init-pytorch",
            "image": image,
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
