"""``cosmos prune --render``: the Job that prunes the claims of a namespace, and the rights that it needs. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cosmos_operator.api.base import GROUP, INFERENCE_PLURAL, PLURAL
from cosmos_operator.api.labels import COMMON_LABELS
from cosmos_operator.api.machines import StorageSpec
from cosmos_operator.kube.kinds import Manifest
from cosmos_operator.plan.volumes import mount_path, volume_folder
from cosmos_operator.settings import Settings
from cosmos_worker.storage.volumes import VOLUMES, volume_variable

NAME = "cosmos-prune"
RULES = [
    {"apiGroups": [GROUP], "resources": [PLURAL, INFERENCE_PLURAL], "verbs": ["list"]},
    {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["list"]},
]
KEPT_S = 86400
"""Seconds for which the finished Job, and so its log, stays."""


@dataclass(frozen=True)
class PrunePod:
    """The pod that prunes."""

    namespace: str
    """Namespace of the claims."""
    image: str
    """Image of the operator, which has the command and a client of the API server."""
    storage: StorageSpec
    """Claims and folders of the volumes."""
    read_namespaces: Sequence[str]
    """Namespaces whose jobs use these claims."""
    arguments: Sequence[str] = ()
    """Further arguments of the command, such as --delete."""


def build_prune_job(pod: PrunePod) -> list[Manifest]:
    """The service account, its rights to list jobs and ConfigMaps in each namespace, and the Job."""
    header = {"name": NAME, "namespace": pod.namespace, "labels": dict(COMMON_LABELS)}
    manifests: list[Manifest] = [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": dict(header)}
    ]
    for namespace in pod.read_namespaces:
        manifests += _rights({**header, "namespace": namespace}, pod.namespace)
    manifests.append(
        {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": header,
            "spec": {
                "backoffLimit": 0,
                "ttlSecondsAfterFinished": KEPT_S,
                "template": {"metadata": {"labels": dict(COMMON_LABELS)}, "spec": _pod_spec(pod)},
            },
        }
    )
    return manifests


def _rights(header: Manifest, account_namespace: str) -> list[Manifest]:
    rbac = "rbac.authorization.k8s.io"
    account = {"kind": "ServiceAccount", "name": NAME, "namespace": account_namespace}
    return [
        {"apiVersion": f"{rbac}/v1", "kind": "Role", "metadata": dict(header), "rules": RULES},
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "RoleBinding",
            "metadata": dict(header),
            "roleRef": {"apiGroup": rbac, "kind": "Role", "name": NAME},
            "subjects": [account],
        },
    ]


def _pod_spec(pod: PrunePod) -> Manifest:
    claims = {volume: _claim(pod.storage, volume) for volume in VOLUMES}
    names = list(dict.fromkeys(claim for claim, _ in claims.values()))
    mounts = [
        {
            "name": f"claim-{names.index(claim)}",
            "mountPath": mount_path(volume),
            **({"subPath": folder} if folder else {}),
        }
        for volume, (claim, folder) in claims.items()
    ]
    command = ["cosmos", "prune"]
    for namespace in pod.read_namespaces:
        command += ["--namespace", namespace]
    container: Manifest = {
        "name": "prune",
        "image": pod.image,
        "command": [*command, *pod.arguments],
        "env": [{"name": volume_variable(one), "value": mount_path(one)} for one in VOLUMES],
        "resources": {
            "requests": {"cpu": "100m", "memory": "256Mi"},
            "limits": {"memory": "1Gi"},
        },
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": mounts,
    }
    return {
        "serviceAccountName": NAME,
        "restartPolicy": "Never",
        "securityContext": dict(Settings().pod_security_context),
        "containers": [container],
        "volumes": [
            {"name": f"claim-{number}", "persistentVolumeClaim": {"claimName": name}}
            for number, name in enumerate(names)
        ],
    }


def _claim(storage: StorageSpec, volume: str) -> tuple[str, str]:
    """Claim of a volume, and the folder in it; an empty folder is the root of the claim."""
    spec = getattr(storage, volume).model_dump(mode="json", by_alias=True)
    return volume_folder(spec, volume)
