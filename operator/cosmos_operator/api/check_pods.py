"""Checks of the pod templates and of the queue of a job. Pure; returns problems, one line each."""

from __future__ import annotations

from collections.abc import Iterator

from cosmos_operator.api.inferencejob import InferenceJob, InferenceJobSpec
from cosmos_operator.api.labels import QUEUE_LABEL
from cosmos_operator.api.machines import ComputeSpec
from cosmos_operator.api.pod_template import Template
from cosmos_operator.api.pod_template_rules import template_problems
from cosmos_operator.api.v1alpha1 import PostTrainingJob

FileJob = PostTrainingJob | InferenceJob
"""A job of any kind, as it stands in a file."""


def templates(job: FileJob) -> Iterator[tuple[str, Template]]:
    """(path, template) of every pod template that a job gives itself."""
    spec = job.spec
    if spec.pod_template is not None:
        yield "spec.podTemplate", spec.pod_template
    for name, field in type(spec.stages).model_fields.items() if spec.stages else ():
        stage = getattr(spec.stages, name)
        if stage.pod_template is not None:
            yield f"spec.stages.{field.alias}.podTemplate", stage.pod_template
    list_name = "items" if isinstance(spec, InferenceJobSpec) else "inference"
    for number, item in enumerate(getattr(spec, list_name)):
        if item.pod_template is not None:
            yield f"spec.{list_name}[{number}].podTemplate", item.pod_template


def check_pods(job: FileJob) -> list[str]:
    """Problems of a job's pod templates: fields that they cannot change, and two queues for one job."""
    gpu_name = (job.spec.compute or ComputeSpec()).gpu_resource_name
    problems = [
        problem
        for where, template in templates(job)
        for problem in template_problems(template, where, gpu_name)
    ]
    scheduling = job.spec.scheduling
    given = None if scheduling is None else scheduling.queue_name
    label = job.metadata.labels.get(QUEUE_LABEL)
    if given and label and given != label:
        problems.append(
            f"spec.scheduling.queueName: {given!r} is not the queue of the label {QUEUE_LABEL}, {label!r}; give one of "
            "them"
        )
    return problems
