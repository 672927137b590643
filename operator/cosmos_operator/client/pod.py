"""The pod through which files of a claim are read: its manifest, its start, its end, commands in it."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

from cosmos_operator.api.base import API_VERSION, GROUP
from cosmos_operator.api.labels import (
    JOB_LABELS,
    JOB_NAME_LABEL,
    JOB_PREFIX,
    MANAGED_BY,
    MANAGED_LABEL,
    PART_OF,
    PART_OF_LABEL,
)
from cosmos_operator.api.pod_template_rules import WORKER
from cosmos_operator.client import pod_program
from cosmos_operator.client.jobs import title
from cosmos_operator.errors import ClusterUnavailable, InvalidSpec
from cosmos_operator.kube.cluster import KubeCluster
from cosmos_operator.kube.containers import DEFAULT_CONTAINER, WORKER_NAMES
from cosmos_operator.kube.exec import Executor
from cosmos_operator.kube.kinds import Manifest
from cosmos_operator.kube.objects import name_of
from cosmos_operator.kube.pods import is_over, obstacle_of, phase_of
from cosmos_operator.plan.names import shorten
from cosmos_operator.settings import POD_SECURITY

PULL_LABEL = f"{GROUP}/pull"
"""Name of the job whose files a pod gives away; the operator leaves such pods alone."""
ROOT = "/mnt/cosmos/checkpoints"
"""Folder of the claim in the pod."""
HEARTBEAT = "/tmp/heartbeat"  # noqa: S108 - in the pod's own emptyDir
OF_ANOTHER = (MANAGED_LABEL, "job-name", "controller-uid")
"""Labels in the template of a stage's Job that say whose pods these are; the API server adds the last two."""
PROGRAM = "COSMOS_PULL_PROGRAM"
"""Variable of the container that holds the text of its program."""
START = ("python3", "-u", "-c", f"import os; exec(os.environ['{PROGRAM}'])")
"""Beginning of every command in the pod."""
START_S = 300.0
"""Longest time until the pod runs."""
MAX_S = 7 * 86400
"""Longest life of the pod in seconds, whatever happens."""
KEPT_FIELDS = (
    "securityContext",
    "imagePullSecrets",
    "nodeSelector",
    "tolerations",
    "affinity",
    "serviceAccountName",
    "runtimeClassName",
    "schedulerName",
    "hostUsers",
)
"""Fields of the pods of the job's stages that its pod for reading has too."""
RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}
RESOURCES = {
    "requests": {"cpu": "100m", "memory": "64Mi"},
    "limits": {"cpu": "2", "memory": "512Mi"},
}


@dataclass(frozen=True)
class RunningPod:
    """A pod that runs, in which commands can be run."""

    executor: Executor
    namespace: str
    name: str

    def command(self, name: str, *arguments: str) -> list[str]:
        """A command of the pod's program."""
        return [*START, name, HEARTBEAT, *arguments]


def build_workload(
    job: Manifest, template: Mapping[str, Any], image: str, claim: str, folder: str
) -> Manifest:
    """The Job with the pod that reads: with the claim read-only, admitted by Pod Security "restricted", soon gone.

    Args:
        job: the job whose files it reads; the Job goes with it.
        template: pod template of one of its stages, whose nodes, users and pull secrets are taken; may be empty.
        image: image with a program python3.
        claim: name of the claim.
        folder: folder in the claim; empty = its root.
    """
    own, header = template.get("spec") or {}, template.get("metadata") or {}
    worker = worker_of(template) or {}
    mount: Manifest = {"name": "claim", "mountPath": ROOT, "readOnly": True}
    if folder:
        mount["subPath"] = folder
    labels = {
        key: value
        for key, value in (header.get("labels") or {}).items()
        if not key.startswith((f"{GROUP}/", JOB_PREFIX)) and key not in OF_ANOTHER
    }
    labels |= {PART_OF_LABEL: PART_OF, PULL_LABEL: name_of(job)}
    annotations = {
        key: value
        for key, value in (header.get("annotations") or {}).items()
        if key != DEFAULT_CONTAINER
    }
    text = Path(pod_program.__file__).read_text(encoding="utf-8")
    container = {
        "name": WORKER,
        "image": image,
        "imagePullPolicy": worker.get("imagePullPolicy", "IfNotPresent"),
        "command": [*START, "serve", HEARTBEAT, str(pod_program.IDLE_S)],
        "env": [{"name": PROGRAM, "value": text}],
        "resources": RESOURCES,
        "securityContext": worker.get("securityContext") or RESTRICTED,
        "volumeMounts": [mount, {"name": "scratch", "mountPath": "/tmp"}],  # noqa: S108
    }
    spec: Manifest = {
        "securityContext": dict(POD_SECURITY),
        **{name: own[name] for name in KEPT_FIELDS if name in own},
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 1,
        "containers": [container],
        "volumes": [
            {"name": "claim", "persistentVolumeClaim": {"claimName": claim}},
            {"name": "scratch", "emptyDir": {}},
        ],
    }
    metadata = job["metadata"]
    owner = {
        "apiVersion": job.get("apiVersion") or API_VERSION,
        "kind": job["kind"],
        "name": metadata["name"],
        "uid": metadata["uid"],
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": f"{shorten(name_of(job), 50)}-pull-{secrets.token_hex(3)}",
            "namespace": metadata["namespace"],
            "labels": {PART_OF_LABEL: PART_OF, PULL_LABEL: name_of(job)},
            "ownerReferences": [owner],
        },
        "spec": {
            "backoffLimit": 0,
            "activeDeadlineSeconds": MAX_S,
            "ttlSecondsAfterFinished": 60,
            "template": {
                "metadata": {"labels": labels, "annotations": annotations},
                "spec": spec,
            },
        },
    }


def worker_of(template: Mapping[str, Any]) -> Manifest | None:
    """The worker's container in a pod template; None if there is none."""
    containers = (template.get("spec") or {}).get("containers") or ()
    return next((one for one in containers if one["name"] in WORKER_NAMES), None)


async def find_template(cluster: KubeCluster, job: Manifest) -> Manifest:
    """The pod template of a stage of the job, best one of its own; empty if its workloads are gone."""
    namespace, own = job["metadata"]["namespace"], JOB_LABELS[job["kind"]]
    labels = {MANAGED_LABEL: MANAGED_BY, own: name_of(job)}
    for selector in (labels, {MANAGED_LABEL: MANAGED_BY}):
        for workload in await cluster.list("Job", namespace, selector):
            template: Manifest = workload["spec"]["template"]
            if worker_of(template) is not None:
                return template
    return {}


def image_of(job: Manifest, template: Mapping[str, Any], given: str | None) -> str:
    """The image of the pod that reads.

    Raises:
        InvalidSpec: none is known.
    """
    own = ((job.get("spec") or {}).get("compute") or {}).get("image")
    found = given or own or (worker_of(template) or {}).get("image")
    if not found:
        problem = (
            f"{title(job)}: its pods are gone, and spec.compute.image names no image; give --image IMAGE, any image "
            "with a program python3 that the nodes can pull, such as the worker's"
        )
        raise InvalidSpec([problem])
    return str(found)


@asynccontextmanager
async def running(
    cluster: KubeCluster, executor: Executor, workload: Manifest
) -> AsyncIterator[RunningPod]:
    """The pod of a Job, created for the block and deleted after it, whatever happens in it.

    Raises:
        InvalidSpec: the pod does not start, with the reason that it states.
        ClusterUnavailable: the API server does not answer.
    """
    created = await cluster.create(workload)
    if created is None:
        raise ClusterUnavailable(f"Job {name_of(workload)}: exists already; try again")
    namespace, name = created["metadata"]["namespace"], name_of(created)
    try:
        pod = await _started(cluster, namespace, name)
        yield RunningPod(executor, namespace, name_of(pod))
    finally:
        uid = created["metadata"]["uid"]
        await asyncio.shield(cluster.delete("Job", namespace, name, uid, foreground=False))


async def _started(cluster: KubeCluster, namespace: str, workload: str) -> Manifest:
    """The pod of a Job once it runs."""
    deadline, last = monotonic() + START_S, "no pod has been created for it"
    while monotonic() < deadline:
        for pod in await cluster.list("Pod", namespace, {JOB_NAME_LABEL: workload}):
            if phase_of(pod) == "Running":
                return pod
            if is_over(pod):
                message = pod.get("status", {}).get("message") or "its log says why"
                raise InvalidSpec([f"pod {namespace}/{name_of(pod)} ended at once: {message}"])
            obstacle = obstacle_of(pod)
            last = obstacle.message if obstacle else f"pod {name_of(pod)} is being started"
            if obstacle and obstacle.reason != "Unschedulable":
                raise InvalidSpec([f"the pod that reads the claim cannot start: {last}"])
        await asyncio.sleep(0.5)
    raise InvalidSpec(
        [f"the pod that reads the claim did not start within {START_S:.0f} s: {last}"]
    )
