"""An InferenceJob as the API server has it → its stages, or what it waits for until they can be planned. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import yaml

from cosmos_operator.api.base import API_VERSION, INFERENCE_KIND, KIND
from cosmos_operator.api.inferencejob import InferenceJob
from cosmos_operator.api.labels import COMMON_LABELS, INFERENCE_JOB_LABEL
from cosmos_operator.api.parse import parse_inference_job, parse_job
from cosmos_operator.api.status import PostTrainingJobStatus, read_status
from cosmos_operator.api.v1alpha1 import PostTrainingJob
from cosmos_operator.errors import InvalidSpec
from cosmos_operator.kube.kinds import Manifest
from cosmos_operator.kube.objects import owner_uids
from cosmos_operator.plan.edits import accept_edits
from cosmos_operator.plan.inference_stages import plan_inference_stages
from cosmos_operator.plan.job_plan import JobPlan, ModelObstacle, read_request
from cosmos_operator.plan.permissions import permission_problems
from cosmos_operator.plan.render import object_names, to_yaml
from cosmos_operator.plan.sampling_job import complete_job
from cosmos_operator.plan.stages import plan_stages
from cosmos_operator.settings import Settings

RECORD_FILE = "job.yaml"
"""Key in the record's ConfigMap."""


@dataclass(frozen=True)
class ModelSource:
    """The PostTrainingJob that an InferenceJob names, as far as the cluster has it."""

    job: Manifest | None = None
    """The PostTrainingJob; None if there is none of that name."""
    record: Manifest | None = None
    """The ConfigMap that an earlier pass wrote, see :func:`build_record`; None if there is none yet."""
    available: Sequence[str] = ()
    """Names of the PostTrainingJobs of the namespace, for messages."""


def name_of_model_job(document: Manifest) -> str | None:
    """Name of the PostTrainingJob whose model a job uses; None if it is no InferenceJob or names none."""
    if document.get("kind") != INFERENCE_KIND:
        return None
    model = (document.get("spec") or {}).get("model") or {}
    name = model.get("job") if isinstance(model, dict) else None
    return name if isinstance(name, str) else None


def plan_inference_job(
    document: Manifest, source: ModelSource, settings: Settings | None = None
) -> JobPlan:
    """Parse an InferenceJob and plan its stages, once its model is published.

    Args:
        document: the InferenceJob.
        source: the PostTrainingJob of its spec.model.job, if it names one.
        settings: settings of the installation, with which the pods of the job are compared.
    """
    previous = read_status(document)
    request, ignored = read_request(document, was_accepted=previous.was_accepted)
    try:
        job = parse_inference_job(request)
        plan = _plan_by_model(document, previous, job, source)
    except InvalidSpec as error:
        return JobPlan(document, previous, problems=error.problems)
    settings = settings or Settings()
    # what it takes from the PostTrainingJob was allowed there
    if problems := permission_problems(job, settings.allow):
        return JobPlan(document, previous, problems=tuple(problems))
    assert plan.job is not None
    names = object_names(plan.job, plan.stages, settings)
    return replace(plan, object_names=names, ignored_fields=ignored)


def _plan_by_model(
    document: Manifest, previous: PostTrainingJobStatus, job: InferenceJob, source: ModelSource
) -> JobPlan:
    if job.spec.model.job is None:
        return _plan(document, previous, job, None)
    recorded = _read_record(document, source.record)
    if recorded is not None:
        return _plan(document, previous, job, recorded)
    return _plan_with_job(document, previous, job, source)


def record_name(job: str) -> str:
    """Name of the ConfigMap with the specification of the PostTrainingJob whose model an InferenceJob uses."""
    return f"{job}-model-ij"


def build_record(job: InferenceJob, trained_by: PostTrainingJob, spec: Manifest) -> Manifest:
    """The ConfigMap that keeps the specification of the PostTrainingJob, which may be deleted or created anew.

    Args:
        job: the InferenceJob.
        trained_by: the PostTrainingJob.
        spec: its specification, as the API server has it.
    """
    header: Manifest = {
        "name": record_name(job.name),
        "labels": {**COMMON_LABELS, INFERENCE_JOB_LABEL: job.name},
    }
    if job.metadata.namespace is not None:
        header["namespace"] = job.metadata.namespace
    kept = {"metadata": {"name": trained_by.name}, "spec": spec}
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": header,
        "immutable": True,
        "data": {RECORD_FILE: to_yaml([_without_status(kept)])},
    }


def _plan(
    document: Manifest,
    previous: PostTrainingJobStatus,
    job: InferenceJob,
    trained_by: PostTrainingJob | None,
    record: Manifest | None = None,
) -> JobPlan:
    complete = complete_job(job, trained_by)
    stages = plan_inference_stages(complete, identity=str(document["metadata"].get("uid", "")))
    return JobPlan(document, previous, complete, stages, record=record)


def _plan_with_job(
    document: Manifest, previous: PostTrainingJobStatus, job: InferenceJob, source: ModelSource
) -> JobPlan:
    """The plan from the PostTrainingJob itself: without stages while it has not published its model."""
    found, name = source.job, job.spec.model.job
    if found is None:
        there = ", ".join(source.available) or "none"
        text = f"spec.model.job: no PostTrainingJob {name!r} in this namespace (there: {there})"
        return _wait(document, previous, job, ModelObstacle("JobNotFound", text))
    status = read_status(found)
    true = {one.type: one for one in status.conditions if one.status == "True"}
    if "Published" not in true and "Failed" in true:
        text = (
            f"PostTrainingJob {name!r} has failed and published no model: {true['Failed'].message}; this job waits in "
            "case it is tried again; otherwise delete this job"
        )
        return _wait(document, previous, job, ModelObstacle("JobFailed", text))
    if "Published" not in true:
        text = f"waits until PostTrainingJob {name!r} has published its model; it is {status.state}"
        return _wait(document, previous, job, ModelObstacle("WaitsForJob", text))
    try:
        trained_by, spec = _read_training(found, status)
    except InvalidSpec as error:
        text = (
            f"PostTrainingJob {name!r} is not valid for this version of the operator: "
            f"{'; '.join(error.problems)}; install the version that carried it out"
        )
        return _wait(document, previous, job, ModelObstacle("JobNotValid", text))
    return _plan(document, previous, job, trained_by, build_record(job, trained_by, spec))


def _read_training(
    found: Manifest, status: PostTrainingJobStatus
) -> tuple[PostTrainingJob, Manifest]:
    """The PostTrainingJob as it was trained, without edits that its training did not admit, and its specification."""
    request, _ = read_request(_without_status(found), was_accepted=True)
    asked = parse_job(request)
    job, _, refused = accept_edits(asked, plan_stages(asked), status)
    if not refused:
        return job, request["spec"]
    training = job.spec.training.model_dump(mode="json", by_alias=True, exclude_none=True)
    return job, {**request["spec"], "training": training}


def _without_status(job: Manifest) -> Manifest:
    """The document of a PostTrainingJob with what decides its stages alone."""
    metadata = {"name": job["metadata"]["name"]}
    return {"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "spec": job["spec"]}


def _wait(
    document: Manifest, previous: PostTrainingJobStatus, job: InferenceJob, waits: ModelObstacle
) -> JobPlan:
    return JobPlan(document, previous, complete_job(job, None), obstacle=waits)


def _read_record(document: Manifest, record: Manifest | None) -> PostTrainingJob | None:
    """The PostTrainingJob in the record; None if there is none, or it is of a deleted job of the same name."""
    if record is None or document["metadata"].get("uid") not in owner_uids(record):
        return None
    request, _ = read_request(yaml.safe_load(record["data"][RECORD_FILE]), was_accepted=True)
    return parse_job(request)
