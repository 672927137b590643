"""A document → a job and its stages, also when something that cannot be carried out was appended to it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cosmos_operator.api.parse import parse_job
from cosmos_operator.api.v1alpha1 import PostTrainingJob
from cosmos_operator.errors import InvalidSpec
from cosmos_operator.plan.stages import Stage, plan_stages

Manifest = dict[str, Any]


@dataclass(frozen=True)
class AcceptedJob:
    """A job that can be carried out."""

    job: PostTrainingJob
    stages: tuple[Stage, ...]
    wrong_items: Mapping[str, str] = field(default_factory=dict)
    """Inference items that are left out, by name, and what is wrong with each."""


def plan_job(document: Manifest, *, was_accepted: bool) -> AcceptedJob:
    """Parse a job and plan its stages.

    Items can be appended to a job at any time, and a wrong one must not end the training: in a job that was accepted
    before, wrong items fail alone.

    Args:
        document: the job; its status is not looked at.
        was_accepted: whether it has been carried out before.

    Raises:
        InvalidSpec: what else is wrong with it.
    """
    document = {name: value for name, value in document.items() if name != "status"}
    try:
        return _plan(document)
    except InvalidSpec:
        items = document["spec"].get("inference") or []
        if not was_accepted or not items:
            raise
    return _without_wrong_items(document, items)


def _plan(document: Manifest) -> AcceptedJob:
    job = parse_job(document)
    return AcceptedJob(job, plan_stages(job))


def _without_wrong_items(document: Manifest, items: list[Manifest]) -> AcceptedJob:
    kept: list[Manifest] = []
    wrong: dict[str, str] = {}

    def planned(items: list[Manifest]) -> AcceptedJob:
        return _plan({**document, "spec": {**document["spec"], "inference": items}})

    planned(kept)  # whatever is wrong there has nothing to do with the items
    for number, item in enumerate(items):
        try:
            planned([*kept, item])
        except InvalidSpec as error:
            tried, there = (f"spec.inference[{n}]" for n in (len(kept), number))
            wrong[item["name"]] = "; ".join(error.problems).replace(tried, there)
        else:
            kept.append(item)
    found = planned(kept)
    return AcceptedJob(found.job, found.stages, wrong)
