"""Stage → pod template: the same pod whether a Job, an indexed Job or a PyTorchJob runs it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cosmos_operator.api.job import Job
from cosmos_operator.api.pod_template_rules import WORKER
from cosmos_operator.kube.kinds import Manifest
from cosmos_operator.plan.names import labels
from cosmos_operator.plan.pod_layers import keep_away, merged, worker_of
from cosmos_operator.plan.stages import Stage
from cosmos_operator.plan.volumes import Mount, mount_path
from cosmos_operator.settings import Settings
from cosmos_worker.runtime.outcome import TERMINATION_VARIABLE
from cosmos_worker.runtime.stall import STALL_VARIABLE
from cosmos_worker.storage.volumes import (
    VOLUMES,
    volume_variable,
)

PROGRAM = "cosmos-worker"
CONFIG_FOLDER = "/etc/cosmos"
CONFIG_FILE = "stage.yaml"
CONFIG_VOLUME = "config"
TERMINATION_PATH = "/dev/termination-log"
SCRATCH = "/tmp"  # noqa: S108 - a folder in the pod's own emptyDir
USER_NAME = "cosmos"
"""Name of the user for programs that ask for one; the user's number may be in no list of users."""
TRAIN_GRACE_SECONDS = 300
"""Time between SIGTERM and SIGKILL of a training pod."""
SAVE_MARGIN_SECONDS = 30
"""Seconds of it that the worker keeps for an orderly end; the rest is for saving a checkpoint."""
FETCHING = ("fetch-model", "prepare-dataset")
"""Stages that download: only they may use the network, and get the credentials for it."""
S3_KEYS = {"AWS_ACCESS_KEY_ID": True, "AWS_SECRET_ACCESS_KEY": True, "AWS_SESSION_TOKEN": False}
"""Key of a Secret for an S3 store, which is also the name of the variable → True if the Secret must have it."""


@dataclass(frozen=True)
class AvoidedNodes:
    """Names of the nodes that pods keep away from."""

    never: tuple[str, ...] = ()
    """Nodes where no pod is scheduled."""
    if_possible: tuple[str, ...] = ()
    """Nodes where pods are scheduled only if no other node fits."""


def owner_of(job: Job, stage: Stage) -> str | None:
    """Name of the job that owns a stage's objects; None if several jobs share them."""
    return None if stage.is_shared else job.name


def metadata(job: Job, stage: Stage, name: str) -> Manifest:
    """Metadata of an object of a stage."""
    own = labels(job.kind, owner_of(job, stage), stage.name, stage.key)
    result: Manifest = {"name": name, "labels": own}
    if job.metadata.namespace is not None:
        result["namespace"] = job.metadata.namespace
    return result


def build_pod_template(
    job: Job,
    stage: Stage,
    *,
    config_map: str,
    settings: Settings,
    container: str = WORKER,
    environment: tuple[Manifest, ...] = (),
    avoid: AvoidedNodes | None = None,
) -> Manifest:
    """The pod template of a stage.

    Args:
        job: the job.
        stage: one of its stages.
        config_map: name of the ConfigMap with the stage's document.
        settings: settings of the installation, such as the image of jobs that name none.
        container: name of the worker's container in the result; PyTorchJob demands ``pytorch``.
        environment: further variables, such as the rendezvous of an indexed Job.
        avoid: nodes on which earlier attempts failed.
    """
    spec: Manifest = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": TRAIN_GRACE_SECONDS if stage.kind == "train" else 30,
        "securityContext": dict(settings.pod_security_context),
        "containers": [_container(job, stage, settings, environment)],
        "volumes": _volumes(job, stage, config_map),
    }
    if settings.image_pull_secrets:
        spec["imagePullSecrets"] = [{"name": name} for name in settings.image_pull_secrets]
    header: Manifest = {
        "labels": labels(job.kind, owner_of(job, stage), stage.name, stage.key),
        "annotations": {"kubectl.kubernetes.io/default-container": container},
    }
    header["annotations"] |= settings.pod_annotations
    template = merged({"metadata": header, "spec": spec}, job, stage, settings)
    pod = template["spec"]
    worker = worker_of(pod)
    worker["name"] = container
    if stage.kind == "train":
        saving_s = max(1, pod["terminationGracePeriodSeconds"] - SAVE_MARGIN_SECONDS)
        stall_s = max(1, job.spec.run_policy.stall_timeout_seconds * 5 // 6)
        worker["env"] += _named_values(
            {"COSMOS_SAVE_SECONDS": str(saving_s), STALL_VARIABLE: str(stall_s)}
        )
    if avoid is not None:
        keep_away(pod, avoid.never, avoid.if_possible)
    return template


def _container(
    job: Job, stage: Stage, settings: Settings, environment: tuple[Manifest, ...]
) -> Manifest:
    command = [PROGRAM, stage.kind, "--config", f"{CONFIG_FOLDER}/{CONFIG_FILE}"]
    if stage.kind == "train" or stage.processes_per_node > 1:
        command += ["--nproc-per-node", str(stage.processes_per_node)]
    return {
        "name": WORKER,
        "image": job.spec.compute.image
        or settings.image_for(max(job.spec.compute.gpus_per_node, stage.gpus)),
        "imagePullPolicy": settings.image_pull_policy,
        "command": command,
        "env": [
            *_named_values(settings.pod_environment),
            *_environment(job, stage, settings),
            *environment,
        ],
        "resources": {},
        "terminationMessagePath": TERMINATION_PATH,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": _volume_mounts(job, stage),
    }


def _environment(job: Job, stage: Stage, settings: Settings) -> list[Manifest]:
    values = {volume_variable(v): mount_path(v) for v in VOLUMES if v in stage.volumes}
    values |= {"HOME": SCRATCH, "USER": USER_NAME, TERMINATION_VARIABLE: TERMINATION_PATH}
    if stage.kind not in FETCHING:
        values["HF_HUB_OFFLINE"] = "1"
    elif settings.hub_endpoint:
        values["HF_ENDPOINT"] = settings.hub_endpoint
    result = _named_values(values)
    node = {"fieldRef": {"fieldPath": "spec.nodeName"}}
    result.append({"name": "NODE_NAME", "valueFrom": node})
    return result + _secrets(job, stage, settings)


def _named_values(values: Mapping[str, str]) -> list[Manifest]:
    return [{"name": name, "value": value} for name, value in values.items()]


def _secrets(job: Job, stage: Stage, settings: Settings) -> list[Manifest]:
    """Variables from Secrets: a Secret that the job names must exist, one of the installation may be absent."""
    if stage.kind == "train":
        trackers = {
            "WANDB_API_KEY": settings.wandb_secret,
            "MLFLOW_TRACKING_URI": settings.mlflow_secret,
        }
        return [
            _secret(name, secret.name, secret.key, optional=True)
            for name, secret in trackers.items()
            if secret.name
        ]
    if stage.kind not in FETCHING:
        return []
    own, shared, found = job.spec.credentials.hugging_face, settings.hugging_face_secret, []
    if own is not None:
        found.append(_secret("HF_TOKEN", own.name, own.key, optional=False))
    elif shared.name:
        found.append(_secret("HF_TOKEN", shared.name, shared.key, optional=True))
    return found + _s3_secrets(job, settings)


def _s3_secrets(job: Job, settings: Settings) -> list[Manifest]:
    """Variables with the keys of an S3 store, all from one Secret: a session token is valid with its own keys only."""
    own = job.spec.credentials.s3
    if own is not None:
        return [_secret(key, own.name, key, optional=not must) for key, must in S3_KEYS.items()]
    shared = settings.s3_secret.name
    return [_secret(key, shared, key, optional=True) for key in S3_KEYS] if shared else []


def _secret(variable: str, secret: str, key: str, *, optional: bool) -> Manifest:
    reference: Manifest = {"name": secret, "key": key}
    if optional:
        reference["optional"] = True
    return {"name": variable, "valueFrom": {"secretKeyRef": reference}}


def _needs_shared_memory(stage: Stage) -> bool:
    """True if a pod has several processes that communicate, for which NCCL uses shared memory."""
    return stage.kind == "train" or (stage.kind == "generate" and stage.processes_per_node > 1)


def _volume_mounts(job: Job, stage: Stage) -> list[Manifest]:
    mounts: list[Manifest] = [
        {"name": CONFIG_VOLUME, "mountPath": CONFIG_FOLDER, "readOnly": True},
        {"name": "scratch", "mountPath": SCRATCH},
    ]
    if _needs_shared_memory(stage):
        mounts.append({"name": "shared-memory", "mountPath": "/dev/shm"})  # noqa: S108 - a mount
    found = stage.mounts(job)
    names = _claim_volumes(found)
    for mount in found:
        entry: Manifest = {"name": names[mount.claim_name], "mountPath": mount.mount_path}
        if mount.sub_path:
            entry["subPath"] = mount.sub_path
        if mount.read_only:
            entry["readOnly"] = True
        mounts.append(entry)
    return mounts


def _volumes(job: Job, stage: Stage, config_map: str) -> list[Manifest]:
    volumes: list[Manifest] = [
        {"name": CONFIG_VOLUME, "configMap": {"name": config_map}},
        {"name": "scratch", "emptyDir": {}},
    ]
    if _needs_shared_memory(stage):
        memory = {"medium": "Memory", "sizeLimit": job.spec.compute.shared_memory}
        volumes.append({"name": "shared-memory", "emptyDir": memory})
    for claim, name in _claim_volumes(stage.mounts(job)).items():
        volumes.append({"name": name, "persistentVolumeClaim": {"claimName": claim}})
    return volumes


def _claim_volumes(mounts: Iterable[Mount]) -> dict[str, str]:
    """Claim → name of its volume in the pod; each claim is attached once."""
    claims = dict.fromkeys(mount.claim_name for mount in mounts)
    return {claim: f"claim-{number}" for number, claim in enumerate(claims)}
