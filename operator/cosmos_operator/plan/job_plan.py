"""A job as the API server has it → what this version of the operator makes of it: its stages. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from cosmos_operator.api.job import Job
from cosmos_operator.api.parse import parse_job
from cosmos_operator.api.status import PostTrainingJobStatus, read_status
from cosmos_operator.api.unknown_fields import without_unknown_fields
from cosmos_operator.api.v1alpha1 import PostTrainingJob
from cosmos_operator.errors import InvalidSpec
from cosmos_operator.kube.kinds import Manifest
from cosmos_operator.plan.edits import accept_edits
from cosmos_operator.plan.permissions import permission_problems
from cosmos_operator.plan.render import object_names
from cosmos_operator.plan.stages import Stage, plan_stages
from cosmos_operator.settings import Settings

ONCE_EMPTY = {"compute": ("image",), "scheduling": ("queueName", "priorityClassName")}
"""Block of a specification → its fields that were stored as empty texts where they were omitted."""


@dataclass(frozen=True)
class ModelObstacle:
    """The reason for which the stages of an InferenceJob cannot be planned yet."""

    reason: str
    message: str


@dataclass(frozen=True)
class JobPlan:
    """A job and its stages, computed once in each pass."""

    document: Manifest
    """The job as the API server has it."""
    previous: PostTrainingJobStatus
    """The status that the last pass wrote."""
    job: Job | None = None
    """The job, parsed; None if it cannot be carried out."""
    stages: tuple[Stage, ...] = ()
    """The job's stages, in an order in which they can run."""
    object_names: Mapping[str, str] = field(default_factory=dict)
    """Name of a stage → name of its ConfigMap, and of its Job unless it is the training."""
    wrong_items: Mapping[str, str] = field(default_factory=dict)
    """Inference items that are left out, by name, and what is wrong with each."""
    refused_edit: str = ""
    """Edit of the training that is left out, as the run that has begun does not admit it, and what to do instead."""
    problems: tuple[str, ...] = ()
    """Reasons for which the job cannot be carried out, one line each."""
    ignored_fields: tuple[str, ...] = ()
    """Paths of fields that only a newer version of the operator knows."""
    obstacle: ModelObstacle | None = None
    """The reason for which an InferenceJob waits; None if its stages are planned."""
    record: Manifest | None = None
    """A ConfigMap to create before anything begins; None if there is nothing to remember."""


def plan_job(document: Manifest, settings: Settings | None = None) -> JobPlan:
    """Parse a job, plan its stages, and compare its pods with what the installation allows.

    Items can be appended to a job at any time, and a wrong one must not end the training: in a job that an earlier
    pass has accepted, wrong items fail alone.
    """
    previous = read_status(document)
    try:
        (job, stages, wrong_items), ignored = _plan_request(
            document, was_accepted=previous.was_accepted
        )
        job, stages, refused_edit = accept_edits(job, stages, previous)
    except InvalidSpec as error:
        return JobPlan(document, previous, problems=error.problems)
    settings = settings or Settings()
    if problems := permission_problems(job, settings.allow):
        return JobPlan(document, previous, problems=tuple(problems))
    names = object_names(job, stages, settings)
    return JobPlan(
        document, previous, job, stages, names, wrong_items, refused_edit, ignored_fields=ignored
    )


def read_request(document: Manifest, *, was_accepted: bool) -> tuple[Manifest, tuple[str, ...]]:
    """The spec of a job, as this version of the operator knows it, and the paths of fields that it does not know.

    Args:
        document: the job as the API server has it, of any kind.
        was_accepted: True if an earlier pass has accepted it, perhaps one of an earlier version.
    """
    return without_unknown_fields(_wanted(document, was_accepted=was_accepted))


def _wanted(document: Manifest, *, was_accepted: bool) -> Manifest:
    """All of a job but its status."""
    wanted = {name: value for name, value in document.items() if name != "status"}
    if was_accepted and isinstance(wanted.get("spec"), dict):
        wanted["spec"] = _without_empty_defaults(wanted["spec"])
    return wanted


def _without_empty_defaults(spec: Manifest) -> Manifest:
    """A copy of a stored specification without the empty texts that its CustomResourceDefinition once filled in."""
    return {
        block: {
            name: value
            for name, value in fields.items()
            if value != "" or name not in ONCE_EMPTY.get(block, ())
        }
        if isinstance(fields, dict)
        else fields
        for block, fields in spec.items()
    }


Planned = tuple[PostTrainingJob, tuple[Stage, ...], dict[str, str]]
"""A job, its stages, and the items that were left out."""


def _plan_request(document: Manifest, *, was_accepted: bool) -> tuple[Planned, tuple[str, ...]]:
    """The plan of a job, and the paths of fields that this version does not know; most jobs have none of them."""
    wanted = _wanted(document, was_accepted=was_accepted)
    try:
        return _plan_strictly(wanted), ()
    except InvalidSpec as error:
        request, ignored = without_unknown_fields(wanted)
        if not ignored:
            return _plan_tolerantly(wanted, error, tolerant=was_accepted), ()
    try:
        return _plan_strictly(request), ignored
    except InvalidSpec as error:
        return _plan_tolerantly(request, error, tolerant=was_accepted), ignored


def _plan_tolerantly(document: Manifest, error: InvalidSpec, *, tolerant: bool) -> Planned:
    """The plan of a wrong job without its wrong items, if that is allowed and it has any items."""
    spec = document.get("spec")
    items = spec.get("inference") if isinstance(spec, dict) else None
    if not tolerant or not items or not _have_names(items):
        raise error
    return _plan_without_wrong_items(document, items)


def _have_names(items: object) -> bool:
    """True for a list of items that can be told by their names."""
    return isinstance(items, list) and all(
        isinstance(item, dict) and isinstance(item.get("name"), str) for item in items
    )


def _plan_strictly(document: Manifest) -> Planned:
    job = parse_job(document)
    return job, plan_stages(job), {}


def _plan_without_wrong_items(document: Manifest, items: list[Manifest]) -> Planned:
    kept: list[Manifest] = []
    wrong: dict[str, str] = {}

    def plan_with(items: list[Manifest]) -> Planned:
        return _plan_strictly({**document, "spec": {**document["spec"], "inference": items}})

    plan_with(kept)  # whatever is wrong there has nothing to do with the items
    for number, item in enumerate(items):
        try:
            plan_with([*kept, item])
        except InvalidSpec as error:
            tried, original = (f"spec.inference[{n}]" for n in (len(kept), number))
            wrong[item["name"]] = "; ".join(error.problems).replace(tried, original)
        else:
            kept.append(item)
    job, stages, _ = plan_with(kept)
    return job, stages, wrong
