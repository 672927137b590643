"""The settings of an installation, read once from the YAML file that the chart writes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, Field, ValidationError

from cosmos_operator.api.base import ApiModel
from cosmos_operator.api.pod_template import PodTemplate, Template
from cosmos_operator.api.pod_template_rules import template_problems
from cosmos_operator.errors import InvalidSpec
from cosmos_operator.pod_variables import PodVariables


class SecretReference(ApiModel):
    """A key of a Secret in the namespace of each job; jobs in namespaces without the Secret run without it."""

    name: str = ""
    """Name of the Secret; empty = none."""
    key: str = "token"
    """Key in the Secret."""


class SecretName(ApiModel):
    """A Secret with several keys in the namespace of each job; jobs in namespaces without it run without it."""

    name: str = ""
    """Name of the Secret; empty = none."""


class LeaseSettings(ApiModel):
    """The Lease that keeps a second operator from acting."""

    name: str = "cosmos-operator"
    """Name of the Lease."""
    namespace: str = "default"
    """Namespace of the Lease, that of the operator."""


class AllowedInJobs(ApiModel):
    """Fields of their pods that jobs may set; a job that sets others is not accepted."""

    fields: tuple[str, ...] = ("*",)
    """Fields of pod templates, such as spec.tolerations, metadata.labels or spec.containers.env; * = all that a
    template can set."""
    images: tuple[str, ...] = ("*",)
    """Images in spec.compute.image and pod templates, with * for any characters."""
    image_digests: bool = False
    """True demands the digest of each image."""
    secrets: tuple[str, ...] = ("*",)
    """Secrets that jobs may name, with * for any characters."""
    service_accounts: tuple[str, ...] = ("*",)
    """Service accounts that pod templates may name, with * for any characters."""
    priority_classes: tuple[str, ...] = ("*",)
    """Priority classes that jobs may name, with * for any characters."""
    host_access: bool = False
    """True allows what opens the node to a pod, such as hostPath, hostNetwork, hostPID and privileged containers."""


def _without_problems(template: Template) -> Template:
    if problems := template_problems(template, "podTemplate", gpu_name=""):
        raise ValueError("; ".join(problems))
    return template


HOUR, DAY = 3600, 86_400
STAGE_DEADLINES = {
    "fetchModel": 2 * DAY,
    "prepareDataset": 7 * DAY,
    "embedText": 2 * DAY,
    "cacheLatents": 7 * DAY,
    "checkInputs": DAY,
    "publish": DAY,
    "generate": 7 * DAY,
    "report": DAY,
}
"""Stage, as spec.stages names it → seconds after which it is ended, where neither chart nor job say another number.

The training has none here: that of a job is spec.runPolicy.activeDeadlineSeconds."""
STAGE_MEMORY_REQUEST = "256Mi"
"""Memory that is requested for a pod that has the memory limit of the installation: without a request, Kubernetes would
request as much as the limit."""
Deadline = Annotated[int, Field(ge=1, le=31_536_000)]
StageName = Literal[
    "fetchModel", "prepareDataset", "embedText", "cacheLatents", "checkInputs", "publish", "generate", "report",
]  # fmt: skip
Period = Annotated[float, Field(gt=0)]
POD_SECURITY = {
    "runAsNonRoot": True,
    "runAsUser": 1000,
    "runAsGroup": 1000,
    "fsGroup": 1000,
    "fsGroupChangePolicy": "OnRootMismatch",
    "seccompProfile": {"type": "RuntimeDefault"},
}
"""Security context of the pods where the chart gives none; Pod Security "restricted" admits it."""


class Settings(ApiModel):
    """Settings of one installation of the operator."""

    worker_image: str = "cosmos-worker:latest"
    """Image of the pods of jobs that name no image."""
    worker_cpu_image: str = ""
    """Image of the pods of jobs without GPUs that name no image; empty = worker_image."""
    image_pull_policy: Literal["IfNotPresent", "Always", "Never"] = "IfNotPresent"
    """Policy by which nodes pull the worker's image."""
    image_pull_secrets: tuple[str, ...] = ()
    """Secrets for the image registry, in the namespace of each job."""
    pod_annotations: dict[str, str] = Field(default_factory=dict)
    """Annotations of every pod of a job, such as those that keep an autoscaler from moving it."""
    pod_template: Annotated[PodTemplate, AfterValidator(_without_problems)] | None = None
    """Changes of every pod of a job, merged before those that jobs ask for."""
    pod_security_context: dict[str, Any] = Field(default_factory=lambda: dict(POD_SECURITY))
    """Security context of every pod of a job; on OpenShift without user and group, which the platform chooses."""
    allow: AllowedInJobs = AllowedInJobs()
    """Fields of their pods that jobs may set."""
    stage_deadline_seconds: dict[StageName, Deadline] = Field(default_factory=dict)
    """Stage → seconds after which it is ended and fails, in place of STAGE_DEADLINES, for jobs that give none."""
    stage_memory_limit: str = "64Gi"
    """Memory limit of stages without GPUs before and after the training whose pod templates say nothing of memory;
    empty = none."""
    pod_environment: PodVariables = Field(default_factory=dict)
    """Environment variables of every pod of a job, such as NCCL_SOCKET_IFNAME or HTTPS_PROXY."""
    hub_endpoint: str = ""
    """Address of a mirror of the Hugging Face Hub; empty = the Hub."""
    hugging_face_secret: SecretReference = SecretReference()
    """Token for the Hugging Face Hub, of the stages that download, for jobs that name none."""
    wandb_secret: SecretReference = SecretReference(key="api-key")
    """WANDB_API_KEY of the training: the key of Weights & Biases."""
    mlflow_secret: SecretReference = SecretReference(key="tracking-uri")
    """MLFLOW_TRACKING_URI of the training: the address of an MLflow server."""
    s3_secret: SecretName = SecretName()
    """Secret with the keys AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN, of the stages that download,
    for jobs that name none."""
    watch_namespaces: tuple[str, ...] = ()
    """Namespaces whose jobs are carried out; empty = all."""
    resync_seconds: Period = 300
    """Seconds between two comparisons of the watch of the jobs with a list, so that lost watch events do no harm."""
    queue_workers: Annotated[int, Field(ge=1, le=64)] = 16
    """Passes over jobs that may run at the same time."""
    poll_seconds: Period = 15
    """Seconds between two passes over a job that runs, each of which reads its log; they grow to four times as many
    while a pod runs for long."""
    progress_seconds: Annotated[float, Field(ge=0)] = 30
    """Shortest time between two writes of the status for progress alone, in seconds."""
    retry_backoff_seconds: Annotated[float, Field(ge=0)] = 10
    """Wait before the second attempt of a training, in seconds; it doubles while there is no progress, up to 300."""
    sidecar_grace_seconds: Annotated[float, Field(ge=0)] = 20
    """Seconds that other containers of a pod get to end by themselves after the worker, before the pod is ended."""
    keep_finished_seconds: Annotated[float, Field(ge=0)] = 3600
    """Seconds for which workloads and pods of a job that has ended stay, for their logs; its status stays longer."""
    workload_grace_seconds: Annotated[float, Field(ge=0)] = 60
    """Seconds after which a workload of which its controller takes no notice is reported; with the backend Auto the
    training then runs as a Job."""
    queue_grace_seconds: Annotated[float, Field(ge=0)] = 60
    """Seconds after which a workload of which Kueue takes no notice is reported."""
    can_list_nodes: bool = True
    """True if the operator may read nodes and storage classes, to compare what jobs ask for with what there is."""
    lease: LeaseSettings = LeaseSettings()
    """The Lease of the operator."""
    health_port: Annotated[int, Field(ge=0, le=65535)] = 8080
    """Port of /healthz and /readyz."""
    metrics_port: Annotated[int, Field(ge=0, le=65535)] = 8081
    """Port of /metrics."""

    def deadline_of(self, stage: str) -> int:
        """Seconds after which a stage is ended if its job says nothing.

        Args:
            stage: as spec.stages names it, such as fetchModel.
        """
        given = {str(name): seconds for name, seconds in self.stage_deadline_seconds.items()}
        return given.get(stage, STAGE_DEADLINES[stage])

    def poll_s(self, age_s: float) -> float:
        """Seconds until something that has been as it is for ``age_s`` seconds is looked at again."""
        return min(max(self.poll_seconds, age_s), 4 * self.poll_seconds)

    def image_for(self, gpus_per_node: int) -> str:
        """Image of a job that names none.

        Args:
            gpus_per_node: GPUs of each training pod; 0 = the job uses no GPUs.
        """
        return self.worker_image if gpus_per_node else self.worker_cpu_image or self.worker_image


def load_settings(path: Path) -> Settings:
    """Read a settings file.

    Raises:
        InvalidSpec: no such file, or wrong values; every problem is one line.
    """
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        return Settings.model_validate(document)
    except FileNotFoundError:
        raise InvalidSpec([f"{path}: no such file; give the operator's settings"]) from None
    except yaml.YAMLError as error:
        raise InvalidSpec([f"{path}: not YAML: {' '.join(str(error).split())}"]) from None
    except ValidationError as error:
        raise InvalidSpec(
            f"{path}: {'.'.join(map(str, problem['loc']))}: {problem['msg']} (got {problem['input']!r})"
            for problem in error.errors()
        ) from None
