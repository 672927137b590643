"""What the API server checks and adds before it stores an object, beyond the schema of custom resources."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from support.fakekube import errors
from support.fakekube.errors import Problem, quoted
from support.fakekube.resources import Object, Resource

if TYPE_CHECKING:
    from support.fakekube.store import Store

SUBDOMAIN = re.compile(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\Z")
LABEL_VALUE = re.compile(r"^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?\Z")
LABEL_TEXT = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start "
    "and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation "
    "is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
)
SUBDOMAIN_TEXT = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start "
    "and end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
DEFAULT_GRACE_S = 30
FIXED_IN_JOBS = (
    "template", "completions", "completionMode", "podFailurePolicy", "backoffLimitPerIndex",
)  # fmt: skip
DIRECTIONS = ("nodeSelector", "affinity", "tolerations", "schedulingGates")
FINAL = ("Succeeded", "Failed")


def admit(
    store: Store, resource: Resource, obj: Object, old: Object | None, part: str = ""
) -> None:
    """Complete an object and check it.

    Raises:
        ApiError: it is wrong.
    """
    name = obj["metadata"].get("name", "")
    problems = _name_problems(resource, name) if old is None else []
    problems += _label_problems("metadata.labels", obj["metadata"].get("labels"))
    if resource.schema is not None:
        resource.schema.prune(obj)
        resource.schema.fill(obj)
        problems += resource.schema.problems(obj, old, part)
    elif old is None:
        problems += _job_problems(obj) if resource.key == "jobs.batch" else []
        if not problems:
            _complete(store, resource, obj)
    else:
        problems += _fixed_fields(resource, obj, old)
    if problems:
        raise errors.invalid(resource.group, resource.kind, name, problems)


def grace_seconds(resource: Resource, obj: Object, given: int | None) -> int:
    """How long an object stays after its deletion, before anything else holds it back."""
    if resource.key != "pods":
        return 0
    is_running = obj["spec"].get("nodeName") and obj.get("status", {}).get("phase") not in FINAL
    if not is_running:
        return 0
    seconds = obj["spec"].get("terminationGracePeriodSeconds", DEFAULT_GRACE_S)
    return int(seconds if given is None else given)


def has_contents(resource: Resource) -> bool:
    """Whether a kind is emptied by a controller before it goes."""
    return resource.key == "namespaces"


def _name_problems(resource: Resource, name: str) -> list[Problem]:
    if not name:
        return [
            (
                "FieldValueRequired",
                "metadata.name",
                "Required value: name or generateName is required",
            )
        ]
    problems: list[Problem] = []
    if resource.key == "services" and len(name) > 63:
        text = f"Invalid value: {quoted(name)}: must be no more than 63 characters"
        problems.append(("FieldValueInvalid", "metadata.name", text))
    if len(name) > 253:
        text = "Invalid value: " + quoted(name) + ": must be no more than 253 bytes"
        problems.append(("FieldValueInvalid", "metadata.name", text))
    if not SUBDOMAIN.match(name):
        text = f"Invalid value: {quoted(name)}: {SUBDOMAIN_TEXT}"
        problems.append(("FieldValueInvalid", "metadata.name", text))
    return problems


def _label_problems(field: str, labels: dict[str, str] | None) -> list[Problem]:
    problems: list[Problem] = []
    for value in (labels or {}).values():
        start = f"Invalid value: {quoted(value)}: "
        if len(value) > 63:
            text = "must be no more than 63 bytes"
            problems.append(("FieldValueInvalid", field, start + text))
        elif not LABEL_VALUE.match(value):
            problems.append(("FieldValueInvalid", field, start + LABEL_TEXT))
    return problems


def _job_problems(obj: Object) -> list[Problem]:
    """What every Job of ours could get wrong."""
    template = obj["spec"]["template"]
    labels = {"job-name": obj["metadata"]["name"], **template.get("metadata", {}).get("labels", {})}
    problems = _label_problems("spec.template.labels", labels)
    pod = template["spec"]
    if not pod.get("containers"):
        problems.append(("FieldValueRequired", "spec.template.spec.containers", "Required value"))
    if pod.get("restartPolicy") not in ("Never", "OnFailure"):
        text = 'Required value: valid values: "OnFailure", "Never"'
        problems.append(("FieldValueRequired", "spec.template.spec.restartPolicy", text))
    return problems


def _fixed_fields(resource: Resource, obj: Object, old: Object) -> list[Problem]:
    if resource.key == "configmaps" and old.get("immutable") and obj.get("data") != old.get("data"):
        text = "Forbidden: field is immutable when `immutable` is set"
        return [("FieldValueForbidden", "data", text)]
    if resource.key != "jobs.batch":
        return []
    was, now = (_without_directions(spec, old) for spec in (old["spec"], obj["spec"]))
    return [
        (
            "FieldValueInvalid",
            f"spec.{name}",
            f"Invalid value: {quoted(now.get(name))}: field is immutable",
        )
        for name in FIXED_IN_JOBS
        if now.get(name) != was.get(name)
    ]


def _without_directions(spec: Object, old: Object) -> Object:
    """The spec of a Job, without what decides where its pods go while it is suspended."""
    if not old["spec"].get("suspend"):
        return spec
    template = spec["template"]
    pod = {name: value for name, value in template["spec"].items() if name not in DIRECTIONS}
    return {**spec, "template": {"spec": pod}}


# --- defaults of built-in kinds --------------------------------------------------------------


def _complete(store: Store, resource: Resource, obj: Object) -> None:
    if resource.key == "jobs.batch":
        _complete_job(obj)
    elif resource.key == "pods":
        _complete_pod(store, resource, obj)
    elif resource.key == "persistentvolumeclaims":
        _complete_claim(store, obj)
    elif resource.key == "namespaces":
        obj["metadata"].setdefault("labels", {})["kubernetes.io/metadata.name"] = obj["metadata"][
            "name"
        ]
        obj["status"] = {"phase": "Active"}
    elif resource.key == "customresourcedefinitions.apiextensions.k8s.io":
        established = {"type": "Established", "status": "True", "reason": "InitialNamesAccepted"}
        accepted = {"type": "NamesAccepted", "status": "True", "reason": "NoConflicts"}
        obj["status"] = {"conditions": [accepted, established]}


def _complete_job(obj: Object) -> None:
    spec: dict[str, Any] = obj["spec"]
    spec.setdefault("parallelism", 1)
    spec.setdefault("completions", 1)
    spec.setdefault("backoffLimit", 6)
    spec.setdefault("completionMode", "NonIndexed")
    spec.setdefault("suspend", False)
    policy = "Failed" if "podFailurePolicy" in spec else "TerminatingOrFailed"
    spec.setdefault("podReplacementPolicy", policy)


def _complete_pod(store: Store, resource: Resource, obj: Object) -> None:
    spec = obj["spec"]
    priority = spec.get("priorityClassName")
    if priority and not store.find("priorityclasses.scheduling.k8s.io", None, priority):
        why = f"no PriorityClass with name {priority} was found"
        meta = obj["metadata"]
        raise errors.forbidden("", resource.plural, meta.get("generateName") or meta["name"], why)
    spec.setdefault("restartPolicy", "Always")
    spec.setdefault("terminationGracePeriodSeconds", DEFAULT_GRACE_S)
    spec.setdefault("schedulerName", "default-scheduler")
    for container in spec["containers"]:
        container.setdefault("terminationMessagePath", "/dev/termination-log")
        container.setdefault("terminationMessagePolicy", "File")
    obj["status"] = {"phase": "Pending", "qosClass": "BestEffort"}


def _complete_claim(store: Store, obj: Object) -> None:
    marker = "storageclass.kubernetes.io/is-default-class"
    for storage_class in store.list("storageclasses.storage.k8s.io"):
        if storage_class["metadata"].get("annotations", {}).get(marker) == "true":
            obj["spec"].setdefault("storageClassName", storage_class["metadata"]["name"])
    obj["metadata"].setdefault("finalizers", ["kubernetes.io/pvc-protection"])
    obj["status"] = {"phase": "Pending"}
