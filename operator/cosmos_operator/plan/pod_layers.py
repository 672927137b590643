"""Merges the pod templates of chart, job and stage into the operator's own, in this order. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from cosmos_operator.api.job import Job
from cosmos_operator.api.labels import HOSTNAME_LABEL, TOPOLOGY_PREFIX
from cosmos_operator.api.pod_schema import POD
from cosmos_operator.api.pod_template import Template
from cosmos_operator.api.pod_template_rules import WORKER, passes_to_pods
from cosmos_operator.kube.kinds import Manifest
from cosmos_operator.plan.stages import Stage
from cosmos_operator.plan.strategic_merge import merge
from cosmos_operator.settings import STAGE_MEMORY_REQUEST, Settings


def layers(job: Job, stage: Stage, settings: Settings) -> Iterator[Template]:
    """Changes of a stage's pods, later ones before earlier ones: installation, short fields, job, stage, item."""
    if settings.pod_template is not None:
        yield settings.pod_template
    inherited, short = _inherited_metadata(job, stage), _short_fields(job, stage)
    if any(inherited.values()) or short:
        yield {"metadata": inherited, "spec": short}
    own = getattr(job.spec.stages, stage.kind.replace("-", "_")).pod_template
    item = next((one for one in job.spec.inference if f"generate-{one.name}" == stage.name), None)
    for template in (job.spec.pod_template, own, None if item is None else item.pod_template):
        if template is not None:
            yield template


def _inherited_metadata(job: Job, stage: Stage) -> Template:
    """Labels of the job, and for the training Kueue's requests for a topology."""
    labels = {k: v for k, v in job.metadata.labels.items() if passes_to_pods(k)}
    annotations = {k: v for k, v in job.metadata.annotations.items() if k.startswith(TOPOLOGY_PREFIX)}  # fmt: skip
    return {"labels": labels, "annotations": annotations if stage.kind == "train" else {}}


def _short_fields(job: Job, stage: Stage) -> Template:
    """``spec.scheduling`` for the training and stages with GPUs, ``spec.compute.resources`` for training and items."""
    scheduling, spec = job.spec.scheduling, Template()
    if stage.kind == "train" or stage.gpus:
        if scheduling.priority_class_name:
            spec["priorityClassName"] = scheduling.priority_class_name
        if scheduling.node_selector:
            spec["nodeSelector"] = dict(scheduling.node_selector)
        if scheduling.tolerations:
            spec["tolerations"] = [
                toleration.model_dump(by_alias=True, exclude_none=True, exclude_defaults=True)
                for toleration in scheduling.tolerations
            ]
    if stage.kind in ("train", "generate"):
        given = job.spec.compute.resources
        resources = {"requests": dict(given.requests), "limits": dict(given.limits)}
        resources = {part: values for part, values in resources.items() if values}
        if resources:
            spec["containers"] = [{"name": WORKER, "resources": resources}]
    return spec


def merged(template: Manifest, job: Job, stage: Stage, settings: Settings) -> Manifest:
    """The operator's template with all changes; its labels, and the number of GPUs, stay the operator's.

    Its variables come first, so that those of templates can refer to them.
    """
    labels = template["metadata"]["labels"]
    ours = {one["name"] for one in worker_of(template["spec"])["env"]}
    for layer in layers(job, stage, settings):
        template = merge(template, layer)
    header = template["metadata"]
    header["labels"] = {**labels, **header["labels"], **labels}
    container = worker_of(template["spec"])
    container["env"].sort(key=lambda one: one["name"] not in ours)
    if stage.kind not in ("train", "generate") and not stage.gpus:
        _limit_memory(container, settings)
    if stage.gpus:
        resources = container.setdefault("resources", {})
        resources.setdefault("limits", {})[job.spec.compute.gpu_resource_name] = str(stage.gpus)
    return template


def _limit_memory(container: Manifest, settings: Settings) -> None:
    """Give a container that says nothing of its memory the limit of the installation, and a small request.

    Pods with GPUs are left out: Kueue would ask for a quota of memory, which the queue of a job may not have.
    """
    resources = container.setdefault("resources", {})
    limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
    if settings.stage_memory_limit and "memory" not in limits and "memory" not in requests:
        resources["limits"] = {**limits, "memory": settings.stage_memory_limit}
        resources["requests"] = {**requests, "memory": STAGE_MEMORY_REQUEST}


def worker_of(pod: Manifest) -> Manifest:
    """The container of the worker in a template that has not been adapted to a backend yet."""
    container: Manifest = next(one for one in pod["containers"] if one["name"] == WORKER)
    return container


def node_selector(job: Job, stage: Stage, settings: Settings) -> dict[str, str]:
    """Labels that a node must have to run a stage's pods."""
    spec: Template = {}
    for layer in layers(job, stage, settings):
        chosen = (layer.get("spec") or {}).get("nodeSelector", {})
        spec = merge(spec, {"nodeSelector": chosen}, POD)
    return dict(spec.get("nodeSelector", {}))


def keep_away(pod: Manifest, never: tuple[str, ...], if_possible: tuple[str, ...]) -> None:
    """Add to a pod's affinity that it keeps away from nodes, whatever a template asks for besides.

    Args:
        pod: the pod's specification, which is changed.
        never: nodes on which it must not run.
        if_possible: nodes on which it runs only if no other node fits.
    """
    if not never and not if_possible:
        return
    affinity = pod.setdefault("affinity", {}).setdefault("nodeAffinity", {})
    if never:
        required = affinity.setdefault("requiredDuringSchedulingIgnoredDuringExecution", {})
        terms = required.get("nodeSelectorTerms") or [{}]  # a node must match one of them
        required["nodeSelectorTerms"] = [_and_others_than(term, never) for term in terms]
    if if_possible:
        name = "preferredDuringSchedulingIgnoredDuringExecution"
        preference = {"weight": 100, "preference": _and_others_than({}, if_possible)}
        affinity[name] = [*affinity.get(name, ()), preference]


def _and_others_than(term: Mapping[str, Any], names: tuple[str, ...]) -> Manifest:
    rule = {"key": HOSTNAME_LABEL, "operator": "NotIn", "values": list(names)}
    return {**term, "matchExpressions": [*term.get("matchExpressions", ()), rule]}
