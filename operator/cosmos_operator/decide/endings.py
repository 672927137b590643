"""Sentences about the end of a worker: that its memory was too small, and that others keep its pod alive. Pure."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from cosmos_operator.kube.containers import kept_alive_by
from cosmos_operator.kube.kinds import Manifest
from cosmos_operator.kube.objects import name_of, seconds_since
from cosmos_operator.kube.pods import Ending
from cosmos_operator.plan.names import stage_field
from cosmos_worker.errors import EXIT_OK, EXIT_USER_ERROR

OUT_OF_MEMORY = "OutOfMemory"
WITH_COMPUTE_RESOURCES = ("train", "generate")
"""Kinds of stage whose memory is that of spec.compute.resources."""


def memory_field(kind: str) -> str:
    """The field of a job with the memory limit of a kind of stage, such as embed-text."""
    if kind in WITH_COMPUTE_RESOURCES:
        return "spec.compute.resources.limits.memory"
    return (
        "resources.limits.memory of the container 'worker' in "
        f"spec.stages.{stage_field(kind)}.podTemplate.spec.containers"
    )


def deadline_field(kind: str) -> str:
    """The field of a job with the deadline of a kind of stage."""
    return f"spec.stages.{stage_field(kind)}.activeDeadlineSeconds"


def explain(ending: Ending, kind: str) -> Ending:
    """The same ending; if the container ran out of memory, with what it had and what to raise.

    Args:
        ending: the end of a worker.
        kind: kind of its stage, such as embed-text.
    """
    if ending.reason != "OOMKilled" or not ending.is_of_worker:
        return ending
    if ending.exit_code in (EXIT_OK, EXIT_USER_ERROR):
        return ending  # a helper process was killed for memory, and the worker went on
    said = f"; its last words: {ending.message}" if ending.message else ""
    if ending.memory_limit:
        text = f"ran out of memory: its container may use {ending.memory_limit}; raise {memory_field(kind)}"
    else:
        text = (
            "ran out of memory: its container has no limit, so the memory of its node was used up; ask for as much as "
            f"it needs in {memory_field(kind)}, and the same in requests"
        )
    return replace(ending, reason=OUT_OF_MEMORY, message=text + said)


def is_overdue(ending: Ending, now: datetime, grace_s: float) -> bool:
    """True once other containers have had their time to end after the worker.

    The end is told by the clock of the node: one in the future is no time to wait for.
    """
    return not 0 <= seconds_since(ending.finish_time, now) < grace_s


def tell_others(pod: Manifest) -> str:
    """A sentence on the containers that keep a pod alive after its worker has ended; empty if none does."""
    names = kept_alive_by(pod)
    if not names:
        return ""
    containers = ", ".join(map(repr, names))
    return (
        f"pod {name_of(pod)} was ended, because {containers} did not end with the worker; make it a native sidecar (an "
        "init container with restartPolicy Always; Istio: ENABLE_NATIVE_SIDECARS), or keep it out of these pods "
        '(Istio: the label sidecar.istio.io/inject: "false" in spec.podTemplate.metadata)'
    )
