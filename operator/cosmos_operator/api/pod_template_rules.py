"""Fields that a pod template may change, so that the job still works: others are refused by name. Pure."""

from __future__ import annotations

import difflib
import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from cosmos_operator.api.base import GROUP
from cosmos_operator.api.labels import MANAGED_LABEL, PART_OF_LABEL
from cosmos_operator.api.pod_schema import TEMPLATE
from cosmos_operator.api.pod_shape import PATCH, shape_problems
from cosmos_operator.api.pod_template import METADATA_FIELDS, POD_FIELDS
from cosmos_operator.pod_variables import CREDENTIALS, reason_of_reserved

WORKER = "worker"
"""Name of the worker's container in templates, whatever the backend calls it."""
MIN_GRACE_SECONDS = 60
WORKER_FIELDS = ("name", "env", "envFrom", "resources", "securityContext", "volumeMounts", "volumeDevices")  # fmt: skip
NEEDED_IN_POD = ("containers", "volumes", "terminationGracePeriodSeconds")
NEEDED_IN_WORKER = ("env", "volumeMounts")
REASONS_IN_POD = {
    "activeDeadlineSeconds": "give spec.runPolicy.activeDeadlineSeconds",
    "ephemeralContainers": "they are for kubectl debug",
    "hostname": "the pods of a training find each other by it",
    "hostnameOverride": "the pods of a training find each other by their names",
    "nodeName": "give nodeSelector or affinity",
    "priority": "give priorityClassName",
    "resources": f"give the resources of the container {WORKER}",
    "restartPolicy": "the operator decides what is tried again, see spec.runPolicy",
    "serviceAccount": "give serviceAccountName",
    "setHostnameAsFQDN": "the pods of a training find each other by their names",
    "shareProcessNamespace": "the worker must be the first process of its container",
    "subdomain": "the pods of a training find each other by it",
}
REASONS_IN_WORKER = {
    "args": "the operator says what the worker does",
    "command": "the operator says what the worker does",
    "image": "give spec.compute.image",
    "imagePullPolicy": "give image.pullPolicy of the chart",
    "lifecycle": "the worker saves its checkpoint at SIGTERM by itself",
    "restartPolicy": "the operator decides what is tried again, see spec.runPolicy",
    "terminationMessagePath": "the worker says there why it ended",
    "terminationMessagePolicy": "the worker says there why it ended",
    "workingDir": "the operator says what the worker does",
}
OUR_VOLUMES = re.compile(r"(config|scratch|shared-memory|claim)(-\d+)*")
OUR_MOUNTS = ("/etc/cosmos", "/tmp", "/dev/shm", "/dev/termination-log", "/mnt/cosmos")  # noqa: S108
OUR_LABELS = {
    rf"{re.escape(GROUP)}/.*": "the operator finds its pods by it",
    f"{re.escape(MANAGED_LABEL)}|{re.escape(PART_OF_LABEL)}": "the operator sets it",
    r"kueue\.x-k8s\.io/.*": "give it as a label of the job (metadata.labels), or spec.scheduling.queueName",
    r"(training|trainer)\.kubeflow\.org/.*|jobset\.sigs\.k8s\.io/.*|batch\.kubernetes\.io/.*|job-name|controller-uid": (
        "the controller of the workload sets it"
    ),
}
"""Patterns of labels that templates cannot set → the reason."""
OUR_ANNOTATIONS = {
    rf"{re.escape(GROUP)}/.*": "it is one of the operator's own",
    r"kubectl\.kubernetes\.io/.*": "the operator sets it",
    r"batch\.kubernetes\.io/.*": "the controller of the workload sets it",
}
CONTAINER_NAMES = (WORKER, "pytorch", "node", "init-pytorch")
"""Names that init containers cannot have."""


def passes_to_pods(label: str) -> bool:
    """True if a label of a job is passed on to its pods: all but those that have a meaning for controllers."""
    return not _reserved(label, OUR_LABELS)


def template_problems(template: Mapping[str, Any], where: str, gpu_name: str) -> list[str]:
    """Everything that is wrong with a pod template by itself, one line each.

    Args:
        template: a template of a job or of the installation.
        where: its path, for messages.
        gpu_name: the resource name of GPUs, whose number the job gives elsewhere.
    """
    if shape := list(shape_problems(template, TEMPLATE, where)):
        return shape
    spec, place = template.get("spec") or {}, f"{where}.spec"
    problems = [*_nulls(template, ("metadata", "spec"), where), *_nulls(spec, NEEDED_IN_POD, place)]
    problems += _metadata_problems(template.get("metadata") or {}, f"{where}.metadata")
    problems += _unusable(spec, POD_FIELDS, REASONS_IN_POD, place)
    for number, container in enumerate(spec.get("containers") or ()):
        problems += _container_problems(container, f"{place}.containers[{number}]", gpu_name)
    for number, container in enumerate(spec.get("initContainers") or ()):
        if container.get("name") in CONTAINER_NAMES:
            problems.append(
                f"{place}.initContainers[{number}].name: {container['name']!r} is the name of another container of the "
                "pod; choose another"
            )
    for number, volume in enumerate(spec.get("volumes") or ()):
        problems += _our_volume(volume, f"{place}.volumes[{number}].name")
    grace = spec.get("terminationGracePeriodSeconds")
    if grace is not None and grace < MIN_GRACE_SECONDS and _concerns_training(where):
        problems.append(
            f"{place}.terminationGracePeriodSeconds: {grace} leaves a training no time to save its checkpoint; give at "
            f"least {MIN_GRACE_SECONDS}, or give it for other stages in spec.stages"
        )
    return problems


def _concerns_training(where: str) -> bool:
    return ".stages.train." in where or not (".stages." in where or ".inference[" in where)


def _unusable(
    block: Mapping[str, Any], allowed: Iterable[str], reasons: Mapping[str, str], where: str
) -> Iterator[str]:
    """Fields of Kubernetes that have no place in a template."""
    if PATCH in block:
        yield f"{where}.{PATCH}: would remove what the operator needs; change single fields"
    for name in block:
        if name in allowed or name == PATCH:
            continue
        near = difflib.get_close_matches(name, list(allowed), n=1, cutoff=0.0)[0]
        reason = reasons.get(name, f"did you mean {near!r}?")
        yield f"{where}.{name}: cannot be set in a pod template: {reason} (allowed: {', '.join(allowed)})"


def _nulls(block: Mapping[str, Any], names: tuple[str, ...], where: str) -> Iterator[str]:
    for name in names:
        if name in block and block[name] is None:
            yield f"{where}.{name}: null would remove what the operator needs; change or remove single parts of it"


def _metadata_problems(metadata: Mapping[str, Any], where: str) -> Iterator[str]:
    yield from _nulls(metadata, tuple(METADATA_FIELDS), where)
    yield from _unusable(metadata, METADATA_FIELDS, {}, where)
    for field, reserved in (("labels", OUR_LABELS), ("annotations", OUR_ANNOTATIONS)):
        for name, value in (metadata.get(field) or {}).items():
            here = f"{where}.{field}[{name}]"
            if name == PATCH:
                yield f"{here}: would remove what the operator needs; change single {field}"
            elif reason := _reserved(name, reserved):
                yield f"{here}: cannot be set in a pod template: {reason}"
            elif not is_qualified(name):
                yield f"{here}: is no name for Kubernetes; use letters, digits, - _ . and an optional prefix/"
            elif field == "labels" and value is not None and not is_label_value(value):
                yield f"{here}: got {value!r}; use up to 63 letters, digits, - _ . with no mark at the ends"


def _reserved(name: str, patterns: Mapping[str, str]) -> str:
    found = (reason for pattern, reason in patterns.items() if re.fullmatch(pattern, name))
    return next(found, "")


def is_qualified(name: str) -> bool:
    """True if Kubernetes takes a text for the key of a label or annotation."""
    prefix, slash, rest = name.rpartition("/")
    dns = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
    fits = not slash or (len(prefix) <= 253 and re.fullmatch(dns, prefix) is not None)
    return fits and bool(rest) and is_label_value(rest)


def is_label_value(text: str) -> bool:
    """True if Kubernetes takes a text for the value of a label."""
    return re.fullmatch(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?", text) is not None


def _container_problems(container: Mapping[str, Any], where: str, gpu_name: str) -> Iterator[str]:
    name = container.get("name")
    if name != WORKER:
        yield (
            f"{where}: {name!r} would be a second container, for whose end the pod waits; make it a native sidecar: an "
            f"element of initContainers with restartPolicy Always (allowed here: {WORKER})"
        )
        return
    yield from _nulls(container, NEEDED_IN_WORKER, where)
    yield from _unusable(container, WORKER_FIELDS, REASONS_IN_WORKER, where)
    for number, variable in enumerate(container.get("env") or ()):
        yield from _variable_problems(variable, f"{where}.env[{number}]")
    for number, mount in enumerate(container.get("volumeMounts") or ()):
        here = f"{where}.volumeMounts[{number}]"
        yield from _our_volume(mount, f"{here}.name")
        yield from _our_mount(mount, f"{here}.mountPath")
    for part in ("requests", "limits"):
        if gpu_name in ((container.get("resources") or {}).get(part) or {}):
            yield (
                f"{where}.resources.{part}[{gpu_name}]: GPUs are given in spec.compute.gpusPerNode, "
                "spec.compute.preparation.gpus and spec.inference[].gpus; remove it"
            )


def _variable_problems(variable: Mapping[str, Any], where: str) -> Iterator[str]:
    name = variable.get("name", "")
    if variable.get(PATCH) == "replace":
        yield f"{where}: would remove what the operator needs; change single variables"
    elif re.fullmatch(CREDENTIALS, name):
        if not variable.get("valueFrom") and PATCH not in variable:
            yield f"{where}: {name} is a credential; give it from a Secret (valueFrom.secretKeyRef)"
    elif reason := reason_of_reserved(name):
        yield f"{where}: {name} cannot be given in a pod template: {reason}"


def _our_volume(entry: Mapping[str, Any], where: str) -> Iterator[str]:
    if entry.get(PATCH) == "replace":
        yield f"{where}: would remove what the operator needs; change single elements"
    elif OUR_VOLUMES.fullmatch(str(entry.get("name", ""))):
        yield f"{where}: {entry['name']!r} is a volume of the operator; choose another name"


def _our_mount(mount: Mapping[str, Any], where: str) -> Iterator[str]:
    path = posixpath.normpath("/" + str(mount.get("mountPath", "")).strip("/"))
    for ours in OUR_MOUNTS:
        below = path.startswith(f"{ours}/") and ours != "/tmp"  # noqa: S108
        if path == ours or below or ours.startswith(f"{path.rstrip('/')}/"):
            yield f"{where}: {path!r} would hide {ours}, which the worker uses; choose another path"
            return
