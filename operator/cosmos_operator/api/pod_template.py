"""Pod templates in a job: a part of Kubernetes' PodTemplateSpec that is merged into the operator's own.

The CRD describes the fields of ``spec.podTemplate`` one by one and leaves what is inside to Kubernetes; the templates
of stages and inference items have the same fields. Nothing is pruned, so that ``null`` and ``$patch`` arrive, and a
field that has no place here is refused by name (``pod_template_rules.py``) instead of being lost.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import AfterValidator, WithJsonSchema

from cosmos_operator.api.base import ApiModel, Seconds

Template = dict[str, Any]
"""A pod template as JSON values."""
MAX_CHARACTERS = 32 * 1024
"""Characters of one template, all of its names and values together."""
MAX_DEPTH = 32
"""Levels of one template; those of Kubernetes have less than 20."""
OPEN = {"x-kubernetes-preserve-unknown-fields": True}
TYPES: dict[str, Any] = {
    "object": dict, "array": (list, tuple), "string": str, "boolean": bool, "integer": int,
}  # fmt: skip


def _object(text: str, properties: Template | None = None) -> Template:
    schema = {"type": "object", "nullable": True, "maxProperties": 64, **OPEN, "description": text}
    return schema if properties is None else {**schema, "properties": properties}


def _list(text: str) -> Template:
    items = {"type": "object", "maxProperties": 64, **OPEN}
    return {"type": "array", "nullable": True, "maxItems": 64, "items": items, "description": text}


def _texts(text: str) -> Template:
    values = {"type": "string", "nullable": True, "maxLength": 4096}
    return {
        "type": "object", "nullable": True, "maxProperties": 64, "additionalProperties": values, "description": text,
    }  # fmt: skip


def _text(text: str) -> Template:
    return {"type": "string", "nullable": True, "maxLength": 253, "description": text}


def _switch(text: str) -> Template:
    return {"type": "boolean", "nullable": True, "description": text}


HOST = "Refused unless the installation allows it (jobs.allow.hostAccess of the chart)."
POD_FIELDS: dict[str, Template] = {
    "affinity": _object("Affinity of the pods to nodes and to other pods."),
    "automountServiceAccountToken": _switch(
        "True mounts the token of the service account, with which a pod can reach the API server."
    ),
    "containers": _list(
        "The container of the worker, whose name here is worker whatever runs the training: its env, envFrom, "
        "resources, securityContext, volumeMounts and volumeDevices. Any other container goes into initContainers."
    ),
    "dnsConfig": _object("DNS parameters of the pods, beside those of dnsPolicy."),
    "dnsPolicy": _text("DNS policy of the pods: ClusterFirst, Default, None."),
    "hostAliases": _list("Lines of /etc/hosts, merged by ip."),
    "hostIPC": _switch(f"True shares the IPC namespace of the node. {HOST}"),
    "hostNetwork": _switch(f"True gives the pods the network of their nodes. {HOST}"),
    "hostPID": _switch(f"True shows the pods the processes of their nodes. {HOST}"),
    "hostUsers": _switch("False gives the pods a user namespace of their own."),
    "imagePullSecrets": _list("Secrets for image registries, merged by name."),
    "initContainers": _list(
        "Containers that run before the worker, or beside it with restartPolicy Always (native sidecars)."
    ),
    "nodeSelector": _texts("Labels that a node must have, merged key by key."),
    "priorityClassName": _text("Priority class of the pods."),
    "resourceClaims": _list("Claims of dynamic resource allocation, merged by name."),
    "runtimeClassName": _text("Runtime class of the pods."),
    "schedulerName": _text("Scheduler of the pods."),
    "securityContext": _object(
        "Security context of the pods, field by field. To leave user and group to the platform, as OpenShift wants "
        "it, set runAsUser, runAsGroup and fsGroup to null."
    ),
    "serviceAccountName": _text("Service account of the pods, such as one with access to a bucket."),
    "terminationGracePeriodSeconds": {
        "type": "integer", "nullable": True, "minimum": 1, "maximum": 86400,
        "description": "Seconds between SIGTERM and SIGKILL; a training saves its checkpoint in all but 30 of them, "
        "and has 300 where nothing is given.",
    },
    "tolerations": _list("Taints of nodes that the pods tolerate; the list is replaced as a whole."),
    "topologySpreadConstraints": _list("Constraints on the spread of the pods, merged by topologyKey."),
    "volumes": _list("Further volumes, merged by name; the operator's own cannot be changed."),
}  # fmt: skip
"""Fields of a pod that a template may set → their schemas."""
METADATA_FIELDS = {
    "labels": _texts("Labels of the pods, beside the labels of the job, which all of its pods have."),
    "annotations": _texts("Annotations of the pods."),
}  # fmt: skip
SPEC_TEXT = (
    "Fields of a pod that are merged into the operator's, with the merge keys of Kubernetes: null removes a field, "
    "lists such as env and volumes are merged by name, tolerations are replaced as a whole."
)
SCHEMA: Template = {
    "type": "object",
    "maxProperties": 8,
    **OPEN,
    "properties": {
        "metadata": _object("Labels and annotations of the pods.", properties=METADATA_FIELDS),
        "spec": _object(SPEC_TEXT, properties=POD_FIELDS),
    },
}
BRIEF_SCHEMA: Template = {
    "type": "object",
    "maxProperties": 8,
    **OPEN,
    "properties": {
        "metadata": _object("As spec.podTemplate.metadata."),
        "spec": _object("As spec.podTemplate.spec."),
    },
}
"""The same for templates of stages and items, described once only, so that the CRD stays small."""


def _within_limits(template: Template) -> Template:
    """The template, if it keeps the limits of its schema.

    Raises:
        ValueError: what is too large, or of another type.
    """
    check_size(template)
    for problem in _excesses(template, SCHEMA, ""):
        raise ValueError(problem)
    return template


def check_size(template: Template) -> None:
    """Refuse what is too long or too deep, without going through all of it: aliases of YAML repeat at no cost.

    Raises:
        ValueError: it is too long or too deep.
    """
    waiting: list[tuple[Any, int]] = [(template, 1)]
    characters = 0
    while waiting:
        value, depth = waiting.pop()
        if isinstance(value, dict):
            characters += sum(len(str(name)) + 1 for name in value)
            waiting += [(inner, depth + 1) for inner in value.values()]
        elif isinstance(value, list | tuple):
            waiting += [(inner, depth + 1) for inner in value]
        else:
            characters += len(str(value))
        characters += 1
        if characters > MAX_CHARACTERS:
            raise ValueError(f"has more than {MAX_CHARACTERS} characters; make it shorter")
        if depth > MAX_DEPTH:
            raise ValueError(f"is deeper than {MAX_DEPTH} levels; no pod template is")


def _excesses(value: Any, schema: Template, where: str) -> Iterator[str]:  # noqa: ANN401 - JSON
    """Problems for which the API server refuses a value, by the schema of the CRD."""
    if value is None and schema.get("nullable"):
        return
    place, kind = f"{where}: " if where else "", schema["type"]
    if not isinstance(value, TYPES[kind]) or (isinstance(value, bool) and kind != "boolean"):
        yield f"{place}is of type {type(value).__name__}; give {kind}"
        return
    for keyword in ("maxProperties", "maxItems", "maxLength"):
        if keyword in schema and len(value) > schema[keyword]:
            yield f"{place}has {len(value)} elements; at most {schema[keyword]} are allowed"
    if "minimum" in schema and not schema["minimum"] <= value <= schema["maximum"]:
        yield f"{place}{value} is not between {schema['minimum']} and {schema['maximum']}"
    for name, inner, below in _parts(value, schema):
        yield from _excesses(inner, below, f"{where}{name}".lstrip("."))


def _parts(value: Any, schema: Template) -> Iterator[tuple[str, Any, Template]]:  # noqa: ANN401
    """(end of the path, value, schema) of what is in a list or an object, as far as the CRD knows it."""
    if schema["type"] == "array":
        yield from ((f"[{number}]", one, schema["items"]) for number, one in enumerate(value))
    elif schema["type"] == "object":
        known, others = schema.get("properties", {}), schema.get("additionalProperties")
        for name, inner in value.items():
            if found := known.get(name, others):
                yield f".{name}", inner, found


PodTemplate = Annotated[Template, AfterValidator(_within_limits), WithJsonSchema(SCHEMA)]
StagePodTemplate = Annotated[Template, AfterValidator(_within_limits), WithJsonSchema(BRIEF_SCHEMA)]


class StageSpec(ApiModel):
    """Changes of the pods of one kind of stage."""

    pod_template: StagePodTemplate | None = None
    """Changes of the stage's pods, merged after those of spec.podTemplate."""


class TimedStageSpec(StageSpec):
    """Changes of the pods of one kind of stage, and its deadline."""

    active_deadline_seconds: Seconds | None = None
    """Seconds from the start of the stage after which it is ended and fails, with all its retries. Omitted: that of
    the installation (jobs.stageDeadlineSeconds of the chart)."""


class StagesSpec(ApiModel):
    """Changes of the pods of single stages."""

    fetch_model: TimedStageSpec = TimedStageSpec()
    """Stage that downloads models."""
    prepare_dataset: TimedStageSpec = TimedStageSpec()
    """Stage that downloads and indexes the dataset."""
    embed_text: TimedStageSpec = TimedStageSpec()
    """Stage that encodes captions and prompts."""
    cache_latents: TimedStageSpec = TimedStageSpec()
    """Stage that encodes the videos."""
    check_inputs: TimedStageSpec = TimedStageSpec()
    """Stage that reads the inputs of the inference list."""
    train: StageSpec = StageSpec()
    """Training."""
    publish: TimedStageSpec = TimedStageSpec()
    """Stage that publishes the model."""
    generate: TimedStageSpec = TimedStageSpec()
    """Stages that generate videos, one for each inference item."""
    report: TimedStageSpec = TimedStageSpec()
    """Stage that writes the report."""
