"""Names and labels of everything that a job owns. Pure."""

from __future__ import annotations

import hashlib
import re

from cosmos_operator.api.labels import COMMON_LABELS, JOB_LABELS, KEY_LABEL, STAGE_LABEL

MAX_NAME = 63
"""Characters of a DNS label."""


def shorten(name: str, max_length: int = MAX_NAME) -> str:
    """The name; if it is too long, its beginning and 8 hex digits of its SHA-256."""
    if len(name) <= max_length:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{name[: max_length - 9].rstrip('-.')}-{digest}"


def folder_name(name: str, key: str) -> str:
    """``<name>-<key>`` with the name made safe for one path component."""
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")
    return f"{shorten(safe, 80)}-{key}"


def object_name(job: str | None, stage: str, key: str, variant: str = "") -> str:
    """Name of a stage's objects: ``<job>-<stage>-<key>``, or ``cosmos-<stage>-<key>-<variant>`` if jobs share it.

    The variant of a shared stage stands for its pod, with image, claims, Secrets and resources: who would run another
    pod shares nothing but the files. That of an InferenceJob's own stages is ``ij``, so that a PostTrainingJob of the
    same name has other names.
    """
    parts = (job or "cosmos", stage, key, variant)
    return shorten("-".join(part for part in parts if part))


def stage_field(kind: str) -> str:
    """The name of a kind of stage in spec.stages, such as fetchModel for fetch-model."""
    first, *rest = kind.split("-")
    return first + "".join(word.capitalize() for word in rest)


def attempt_name(job: str, attempt: int) -> str:
    """Name of the training workload of an attempt."""
    return f"{job}-{attempt}"


def labels(kind: str, job: str | None, stage: str, key: str) -> dict[str, str]:
    """Labels of a stage's objects.

    Args:
        kind: kind of the job.
        job: its name; None for objects that jobs share.
        stage: name of the stage.
        key: its content key.
    """
    result = {**COMMON_LABELS, STAGE_LABEL: stage, KEY_LABEL: key}
    if job is not None:
        result[JOB_LABELS[kind]] = job
    return result
