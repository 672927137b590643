"""The objects of an attempt: its workload, the ConfigMap of its pods, the Service of its leader. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from cosmos_operator.api.base import KIND
from cosmos_operator.api.labels import ATTEMPT_LABEL, JOB_LABEL
from cosmos_operator.decide.pass_state import SHORT_WAIT_S, Pass, StageView
from cosmos_operator.decide.training.node_avoidance import nodes_to_avoid
from cosmos_operator.kube.kinds import Manifest
from cosmos_operator.kube.objects import name_of
from cosmos_operator.kube.pods import phase_of
from cosmos_operator.plan.backend import BACKENDS, Backend
from cosmos_operator.plan.edits import spec_key
from cosmos_operator.plan.render import build_config_map, build_leader_service
from cosmos_operator.plan.stages import Stage
from cosmos_operator.plan.workload import TrainingAttempt


def create_attempt(pass_: Pass, stage: Stage, backend: Backend) -> StageView:
    """Create what the latest attempt needs and is not there yet."""
    number = pass_.attempts[-1].number
    labels = {JOB_LABEL: pass_.job.name, ATTEMPT_LABEL: str(number)}
    if left_over := pass_.observed.pods_with(labels):
        pass_.requeue_after(SHORT_WAIT_S)
        message = f"waits for pod {name_of(left_over[0])} of a deleted job of the same name"
        return StageView("Waiting", "NameConflict", message)
    avoided = nodes_to_avoid(pass_, stage)
    config_map = pass_.object_names[stage.name]
    attempt = TrainingAttempt(
        pass_.training_job, stage, config_map, pass_.settings, number, avoided
    )
    common = (
        build_config_map(pass_.job, stage, config_map),
        build_leader_service(pass_.job, backend),
    )
    for manifest in (*common, *backend.build(attempt)):
        kind, name = manifest["kind"], name_of(manifest)
        found = pass_.observed.get(kind, name)
        if kind == "Service" and found is not None and not _belongs_to_job_name(pass_, found):
            continue  # a Service of other people has the job's name: only the short log address is lost
        if found is not None and not pass_.owns(found):
            return pass_.name_conflict(kind, name)
        if found is not None and pass_.replaces_outdated(manifest, found):
            return StageView("Waiting", "Starting", f"{kind} {name} is made anew")
        if found is None:
            pass_.create(manifest)
        if refused := pass_.creation_refused(kind, name):
            return refused
    pass_.requeue_after(pass_.settings.poll_seconds)
    return StageView("Running", "Starting", f"starts attempt {number}")


def restore_common_objects(pass_: Pass, stage: Stage) -> None:
    """Create again what is missing, or of another backend, among what all attempts use, while an attempt runs."""
    attempt = pass_.attempts[-1]
    if attempt.spec_key not in (None, spec_key(pass_.training_job)):
        return  # they would be those of the next attempt
    name = pass_.object_names[stage.name]
    if pass_.observed.get("ConfigMap", name) is None:
        pass_.create(build_config_map(pass_.job, stage, name))
    service = build_leader_service(pass_.job, BACKENDS[attempt.backend])
    found = pass_.observed.get("Service", name_of(service))
    if found is None:
        pass_.create(service)
    elif pass_.owns(found):
        pass_.replaces_outdated(service, found)


def document_refused(pass_: Pass, stage: Stage, pods: Iterable[Manifest]) -> StageView | None:
    """The view of an attempt whose pods wait for a ConfigMap that the API server refuses; None if they do not."""
    if any(phase_of(pod) == "Running" for pod in pods):
        return None
    return pass_.creation_refused("ConfigMap", pass_.object_names[stage.name])


def _belongs_to_job_name(pass_: Pass, manifest: Manifest) -> bool:
    """True if an object belongs to this job, or to a deleted job of its name, with which it goes in a moment."""
    owners = manifest["metadata"].get("ownerReferences", ())
    return any((one["kind"], one["name"]) == (KIND, pass_.job.name) for one in owners)
