"""Stage → Job of batch/v1: one pod for most stages, an indexed Job with a headless Service for the training. Pure."""

from __future__ import annotations

from cosmos_operator.api.job import Job
from cosmos_operator.api.labels import INDEX_ANNOTATION, JOB_NAME_LABEL, TEMPLATE_ANNOTATION
from cosmos_operator.api.pod_template_rules import WORKER
from cosmos_operator.kube.kinds import Manifest
from cosmos_operator.plan.names import stage_field
from cosmos_operator.plan.pod import build_pod_template, metadata
from cosmos_operator.plan.stages import Stage
from cosmos_operator.plan.workload import TrainingAttempt, is_queued, workload_metadata
from cosmos_operator.settings import Settings
from cosmos_worker.errors import EXIT_BUG, EXIT_USER_ERROR
from cosmos_worker.storage.volumes import content_key

STAGE_RETRIES = 3
FATAL_EXIT_CODES = (EXIT_BUG, EXIT_USER_ERROR)
"""Exit codes of a stage's worker after which trying again is pointless."""
RENDEZVOUS_PORT = 29500


def build_stage_job(
    job: Job, stage: Stage, name: str, config_map: str, settings: Settings
) -> Manifest:
    """The Job of a stage other than the training. User errors and bugs fail at once, other exit codes are retried."""
    template = build_pod_template(job, stage, config_map=config_map, settings=settings)
    header = workload_metadata(job, stage, name)
    header["annotations"][TEMPLATE_ANNOTATION] = content_key([template])
    codes: Manifest = {"operator": "In", "values": sorted(FATAL_EXIT_CODES)}
    rules = [
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        {"action": "FailJob", "onExitCodes": {"containerName": WORKER, **codes}},
    ]
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": header,
        "spec": {
            "backoffLimit": STAGE_RETRIES,
            "activeDeadlineSeconds": stage_deadline(job, stage, settings),
            "completions": 1,
            "parallelism": 1,
            "suspend": is_queued(job, stage),
            "podFailurePolicy": {"rules": rules},
            "template": template,
        },
    }


def stage_deadline(job: Job, stage: Stage, settings: Settings) -> int:
    """Seconds after which a stage other than the training is ended: those of the job, or of the installation."""
    own = getattr(job.spec.stages, stage.kind.replace("-", "_")).active_deadline_seconds
    return int(own or settings.deadline_of(stage_field(stage.kind)))


def build_training_job(attempt: TrainingAttempt) -> tuple[Manifest, ...]:
    """The training as an indexed Job, and the headless Service by which its pods find each other.

    The Job fails with its first pod; the operator starts the next attempt.
    """
    stage, name = attempt.stage, attempt.name
    service = f"{name}-ranks"
    template = attempt.pod_template(
        environment=_rendezvous(stage, name, service) if stage.nodes > 1 else ()
    )
    workload: Manifest = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": attempt.metadata(),
        "spec": {
            "completionMode": "Indexed",
            "completions": stage.nodes,
            "parallelism": stage.nodes,
            "backoffLimit": 0,
            "suspend": attempt.is_queued,
            "template": template,
        },
    }
    if stage.nodes == 1:
        return (workload,)
    template["spec"]["subdomain"] = service
    return (_headless_service(attempt.job, stage, name, service), workload)


def _rendezvous(stage: Stage, name: str, service: str) -> tuple[Manifest, ...]:
    """Environment variables of torchrun's rendezvous for pods on several nodes, as PyTorchJob sets them."""
    index = {"fieldRef": {"fieldPath": f"metadata.annotations['{INDEX_ANNOTATION}']"}}
    return (
        {"name": "PET_NNODES", "value": str(stage.nodes)},
        {"name": "PET_NODE_RANK", "valueFrom": index},
        {"name": "MASTER_ADDR", "value": f"{name}-0.{service}"},
        {"name": "MASTER_PORT", "value": str(RENDEZVOUS_PORT)},
    )


def _headless_service(job: Job, stage: Stage, name: str, service: str) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(job, stage, service),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": {JOB_NAME_LABEL: name},
            "ports": [{"name": "rendezvous", "port": RENDEZVOUS_PORT}],
        },
    }
