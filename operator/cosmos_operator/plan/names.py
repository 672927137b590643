"""Names, labels and annotations of everything that a job owns. Pure."""

from __future__ import annotations

import hashlib
import re

from cosmos_operator.api.base import GROUP

JOB_LABEL = f"{GROUP}/job"
"""Job that an object belongs to; absent on objects that jobs share."""
STAGE_LABEL = f"{GROUP}/stage"
"""Stage that an object belongs to."""
KEY_LABEL = f"{GROUP}/key"
"""Content key of the stage."""
ATTEMPT_LABEL = f"{GROUP}/attempt"
"""Number of the attempt, on workloads of the training."""
ROLE_LABEL = f"{GROUP}/role"
"""``leader`` on the pod whose log tells how far the training is."""
LEADER = "leader"
DEPENDS_ANNOTATION = f"{GROUP}/depends-on"
"""Stages that must have finished, separated by commas."""
TEMPLATE_ANNOTATION = f"{GROUP}/template"
"""What the pods of a Job are made from: that of another job may have another image, or ask for other nodes."""

MAX_NAME = 63
"""Characters of a DNS label."""


def fit(name: str, max_length: int = MAX_NAME) -> str:
    """The name, or its beginning and 8 hex digits of its SHA-256 where it is too long."""
    if len(name) <= max_length:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{name[: max_length - 9].rstrip('-.')}-{digest}"


def folder_name(name: str, key: str) -> str:
    """``<name>-<key>`` with the name made safe for one path component."""
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")
    return f"{fit(safe, 80)}-{key}"


def object_name(job: str | None, stage: str, key: str, variant: str = "") -> str:
    """Name of a stage's objects: ``<job>-<stage>-<key>``, or ``cosmos-<stage>-<key>-<variant>`` if jobs share it.

    The variant stands for where a shared stage reads and writes: jobs with other claims share nothing.
    """
    parts = (job or "cosmos", stage, key, variant)
    return fit("-".join(part for part in parts if part))


def attempt_name(job: str, attempt: int) -> str:
    """Name of the training workload of an attempt."""
    return f"{job}-{attempt}"


def labels(job: str | None, stage: str, key: str) -> dict[str, str]:
    """Labels of a stage's objects."""
    result = {
        "app.kubernetes.io/managed-by": "cosmos",
        "app.kubernetes.io/part-of": "cosmos",
        STAGE_LABEL: stage,
        KEY_LABEL: key,
    }
    if job is not None:
        result[JOB_LABEL] = job
    return result
