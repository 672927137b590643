"""Limits that an installation sets to its jobs: fields of pod templates, names of objects, access to nodes. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from typing import Any

from pydantic.alias_generators import to_snake

from cosmos_operator.api.check_pods import FileJob, templates
from cosmos_operator.api.credentials import CredentialsSpec
from cosmos_operator.api.pod_template import Template
from cosmos_operator.settings import AllowedInJobs

Found = tuple[str, str]
"""Path of a value in a job, and the value."""
HOST_FLAGS = ("hostNetwork", "hostPID", "hostIPC", "privileged", "hostProcess")
HOST_CAPABILITIES = frozenset(
    {"ALL", "BPF", "DAC_READ_SEARCH", "MKNOD", "SYS_ADMIN", "SYS_MODULE", "SYS_PTRACE", "SYS_RAWIO"}
)
"""Capabilities with which a container can leave its bounds."""
SECRET_KEYS = ("secretKeyRef", "secretRef", "nodePublishSecretRef", "imagePullSecrets")
"""Fields that hold the name of a Secret in a field ``name``."""


def permission_problems(job: FileJob, allowed: AllowedInJobs) -> list[str]:
    """Everything in a job that the installation does not allow, one line each."""
    problems: list[str] = []
    for where, template in templates(job):
        problems += _fields(template, where, allowed.fields)
        if not allowed.host_access:
            problems += [
                f"{path}: {what} opens the node to the pod, which this installation does not allow "
                "(jobs.allow.hostAccess of the chart); remove it"
                for path, what in host_access(template.get("spec"), f"{where}.spec")
            ]
    problems += _names("Secret", _secrets(job), allowed.secrets, "jobs.allow.secrets")
    for kind, field, patterns, setting in (
        ("service account", "serviceAccountName", allowed.service_accounts, "serviceAccounts"),
        ("priority class", "priorityClassName", allowed.priority_classes, "priorityClasses"),
    ):
        problems += _names(kind, _named(job, field), patterns, f"jobs.allow.{setting}")
    images = list(_images(job))
    problems += _names("image", images, allowed.images, "jobs.allow.images")
    if allowed.image_digests:
        problems += [
            f"{where}: {image!r} has no digest, which this installation demands (jobs.allow.imageDigests of the "
            "chart); give NAME@sha256:..."
            for where, image in images
            if "@sha256:" not in image
        ]
    return problems


def _fields(template: Template, where: str, allowed: tuple[str, ...]) -> Iterator[str]:
    if "*" in allowed:
        return
    for field in _fields_of(template):
        if not any(field == one or field.startswith(f"{one}.") for one in allowed):
            yield (
                f"{where}.{field}: this installation does not allow it in jobs (jobs.allow.fields of the chart); "
                f"allowed: {', '.join(allowed) or 'none'}"
            )


def _fields_of(template: Template) -> Iterator[str]:
    """Paths of the fields that a template sets, those of the container one level deeper."""
    for part in ("metadata", "spec"):
        for name in template.get(part) or {}:
            if name != "containers":
                yield f"{part}.{name}"
    for container in (template.get("spec") or {}).get("containers") or ():
        yield from (f"spec.containers.{name}" for name in container if name != "name")


def _names(kind: str, found: Iterable[Found], patterns: tuple[str, ...], setting: str) -> list[str]:
    return [
        f"{where}: this installation does not allow the {kind} {name!r} in jobs ({setting} of the chart); allowed: "
        f"{', '.join(patterns) or 'none'}"
        for where, name in found
        if not any(fnmatchcase(name, pattern) for pattern in patterns)
    ]


def host_access(value: Any, where: str) -> Iterator[Found]:  # noqa: ANN401 - JSON
    """(path, what) of everything in a pod's specification that opens the node to the pod."""
    for name, inner, path in _walk(value, where):
        if (name in HOST_FLAGS and inner is True) or (name == "hostPath" and inner is not None):
            yield path, name
        elif name == "hostPort" and inner:
            yield path, f"hostPort {inner}"
        elif name == "procMount" and inner == "Unmasked":
            yield path, "procMount Unmasked"
        elif name == "add" and path.endswith("capabilities.add"):
            found = {str(one).upper().removeprefix("CAP_") for one in inner or ()}
            if risky := sorted(found & HOST_CAPABILITIES):
                yield path, f"the capability {', '.join(risky)}"


def _walk(value: Any, where: str) -> Iterator[tuple[str, Any, str]]:  # noqa: ANN401 - JSON
    """(name, value, path) of every field, at any depth."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield name, inner, f"{where}.{name}"
            yield from _walk(inner, f"{where}.{name}")
    elif isinstance(value, list | tuple):
        for number, inner in enumerate(value):
            yield from _walk(inner, f"{where}[{number}]")


def _secrets(job: FileJob) -> Iterator[Found]:
    """Every Secret that a job names."""
    credentials = job.spec.credentials or CredentialsSpec()
    if credentials.hugging_face is not None:
        yield "spec.credentials.huggingFace.name", credentials.hugging_face.name
    if credentials.s3 is not None:
        yield "spec.credentials.s3.name", credentials.s3.name
    for where, template in templates(job):
        for name, inner, path in _walk(template.get("spec"), f"{where}.spec"):
            if name == "secretName" and inner:
                yield path, str(inner)
            for one in inner if isinstance(inner, list) else [inner]:
                if isinstance(one, dict) and one.get("name") and _holds_secret(name, path):
                    yield path, str(one["name"])


def _named(job: FileJob, field: str) -> Iterator[Found]:
    """The names that a job gives in a field of its pods, and of its scheduling."""
    if value := getattr(job.spec.scheduling, to_snake(field), None):
        yield f"spec.scheduling.{field}", value
    for where, template in templates(job):
        if value := (template.get("spec") or {}).get(field):
            yield f"{where}.spec.{field}", str(value)


def _holds_secret(name: str, path: str) -> bool:
    return name in SECRET_KEYS or (name == "secret" and ".projected." in path)


def _images(job: FileJob) -> Iterator[Found]:
    """Every image that a job names."""
    if job.spec.compute is not None and job.spec.compute.image:
        yield "spec.compute.image", job.spec.compute.image
    for where, template in templates(job):
        spec = template.get("spec") or {}
        for number, container in enumerate(spec.get("initContainers") or ()):
            if container.get("image"):
                yield f"{where}.spec.initContainers[{number}].image", container["image"]
        for number, volume in enumerate(spec.get("volumes") or ()):
            if reference := (volume.get("image") or {}).get("reference"):
                yield f"{where}.spec.volumes[{number}].image.reference", reference
