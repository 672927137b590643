"""Names of files and folders on claims that living jobs refer to: from their stage documents and specifications. Pure.

A name counts as referred to if it stands as a word anywhere in a job, in a stage document that follows from it, or in a
ConfigMap of the operator. That keeps more than is needed and never less, as names of what jobs use have content keys.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from cosmos_operator.api.base import INFERENCE_KIND, KIND
from cosmos_operator.api.labels import MANAGED_BY, MANAGED_LABEL
from cosmos_operator.errors import InvalidSpec
from cosmos_operator.kube.kinds import Manifest
from cosmos_operator.kube.objects import labels_of
from cosmos_operator.plan.inference_plan import (
    ModelSource,
    name_of_model_job,
    plan_inference_job,
    record_name,
)
from cosmos_operator.plan.job_plan import JobPlan, plan_job

WORD = re.compile(r"[A-Za-z0-9._-]+")


@dataclass
class References:
    """Words of living jobs, among them every name of a folder that they use."""

    jobs: list[str] = field(default_factory=list)
    """The jobs, such as ``PostTrainingJob lab/push``."""
    users: dict[str, str] = field(default_factory=dict)
    """Word → the job or ConfigMap that has it."""
    notes: list[str] = field(default_factory=list)
    """Remarks on jobs that refer to nothing, one line each."""

    def add(self, title: str, text: str) -> None:
        """Count all words of a text of this job as referred to."""
        for word in WORD.findall(text):
            self.users.setdefault(word.strip("."), title)


def find_references(objects: Iterable[Manifest]) -> References:
    """Names that jobs and the operator's ConfigMaps refer to.

    Args:
        objects: PostTrainingJobs, InferenceJobs and ConfigMaps, as an API server has them; others are passed over.

    Raises:
        InvalidSpec: a job that was accepted before cannot be planned by this version, so that what it uses is unknown.
    """
    found: dict[tuple[str, str, str], Manifest] = {}
    for one in objects:
        metadata = one.get("metadata") or {}
        key = (str(one.get("kind")), str(metadata.get("namespace", "")), str(metadata.get("name")))
        found[key] = one
    references = References()
    problems: list[str] = []
    for (kind, namespace, name), one in found.items():
        title = f"{kind} {namespace}/{name}" if namespace else f"{kind} {name}"
        if kind == "ConfigMap" and labels_of(one).get(MANAGED_LABEL) == MANAGED_BY:
            for text in (one.get("data") or {}).values():
                references.add(title, str(text))
        elif kind in (KIND, INFERENCE_KIND):
            references.jobs.append(title)
            references.add(title, json.dumps(one.get("spec")))
            problems += _add_plan(references, title, _plan(one, namespace, found))
    if problems:
        raise InvalidSpec(problems)
    return references


def _plan(job: Manifest, namespace: str, found: Mapping[tuple[str, str, str], Manifest]) -> JobPlan:
    if job["kind"] == KIND:
        return plan_job(job)
    model_job = name_of_model_job(job)
    record = found.get(("ConfigMap", namespace, record_name(job["metadata"]["name"])))
    trained_by = None if model_job is None else found.get((KIND, namespace, model_job))
    return plan_inference_job(job, ModelSource(trained_by, record))


def _add_plan(references: References, title: str, plan: JobPlan) -> Iterator[str]:
    """Add the documents of a job's stages; yields why they are not known."""
    for stage in plan.stages:
        references.add(title, stage.document.model_dump_json())
    if plan.job is not None:
        return
    problem = plan.problems[0] if plan.problems else "no reason"
    if plan.previous.was_accepted:
        yield (
            f"{title}: was accepted by an earlier version, and this one cannot tell which files it uses ({problem}); "
            "nothing is removed: use the version of cosmos that the operator has, correct the job, or delete it"
        )
    else:
        references.notes.append(f"{title} was never accepted, so it has made nothing ({problem})")
