"""Checks of the pod templates and of the queue of a job. Pure; returns problems, one line each."""

from __future__ import annotations

from collections.abc import Iterator

from cosmos_operator.api.labels import QUEUE_LABEL
from cosmos_operator.api.pod_template import StagesSpec, Template
from cosmos_operator.api.pod_template_rules import template_problems
from cosmos_operator.api.v1alpha1 import PostTrainingJob


def templates(job: PostTrainingJob) -> Iterator[tuple[str, Template]]:
    """(path, template) of every pod template of a job."""
    if job.spec.pod_template is not None:
        yield "spec.podTemplate", job.spec.pod_template
    for name, field in StagesSpec.model_fields.items():
        stage = getattr(job.spec.stages, name)
        if stage.pod_template is not None:
            yield f"spec.stages.{field.alias}.podTemplate", stage.pod_template
    for number, item in enumerate(job.spec.inference):
        if item.pod_template is not None:
            yield f"spec.inference[{number}].podTemplate", item.pod_template


def check_pods(job: PostTrainingJob) -> list[str]:
    """What the pod templates of a job cannot change, and two queues for one job."""
    gpu_name = job.spec.compute.gpu_resource_name
    problems = [
        problem
        for where, template in templates(job)
        for problem in template_problems(template, where, gpu_name)
    ]
    given, label = job.spec.scheduling.queue_name, job.metadata.labels.get(QUEUE_LABEL)
    if given and label and given != label:
        problems.append(
            f"spec.scheduling.queueName: {given!r} is not the queue of the label {QUEUE_LABEL}, {label!r}; give one of "
            "them"
        )
    return problems
