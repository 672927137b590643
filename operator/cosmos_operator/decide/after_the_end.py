"""A job that has ended: what still runs is stopped, its pods stay for a while, then all its objects go. Pure.

Its files stay on their claims, and its status has all results, so that nothing depends on the objects.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from cosmos_operator.decide.decision import Action, Decision, Delete
from cosmos_operator.decide.pass_state import SHORT_WAIT_S
from cosmos_operator.decide.sharing import give_up, give_up_job
from cosmos_operator.kube.kinds import WORKLOAD_KINDS, Manifest, ObjectKey
from cosmos_operator.kube.objects import is_being_deleted, owner_uids, read_state, seconds_since
from cosmos_operator.kube.observed import Observed
from cosmos_operator.plan.job_plan import JobPlan
from cosmos_operator.settings import Settings

OWNED_KINDS = (*WORKLOAD_KINDS, "ConfigMap", "Service")
"""Kinds of object that a job owns."""


def decide_after_the_end(
    plan: JobPlan, observed: Observed, now: datetime, settings: Settings
) -> Decision:
    """Decide what to do about a job that has succeeded or failed.

    Args:
        plan: the job.
        observed: the state of the cluster around it.
        now: the time, with its time zone.
        settings: settings of the installation.
    """
    metadata, ended = plan.document["metadata"], plan.previous.completion_time
    uid = str(metadata["uid"])
    if running := tuple(_stop_what_runs(uid, observed)):
        return Decision(running, requeue_after_s=SHORT_WAIT_S)
    if ended is None:
        return Decision()
    passed_s, waits_s = seconds_since(ended, now), []
    policy = plan.document.get("spec", {}).get("runPolicy") or {}
    ttl_s = policy.get("ttlSecondsAfterFinished")
    if ttl_s is not None and passed_s >= ttl_s:
        reason = f"spec.runPolicy.ttlSecondsAfterFinished={ttl_s}"
        return Decision((Delete(plan.document["kind"], metadata["name"], uid, reason),))
    if ttl_s is not None:
        waits_s.append(ttl_s - passed_s)
    if left_over := tuple(_give_up_all(uid, observed)):
        if passed_s >= settings.keep_finished_seconds:
            return Decision(left_over, requeue_after_s=SHORT_WAIT_S)
        waits_s.append(settings.keep_finished_seconds - passed_s)
    return Decision(requeue_after_s=min(waits_s, default=None))


def _stop_what_runs(uid: str, observed: Observed) -> Iterator[Action]:
    """Stop workloads that still run; one that another job shares is given up, and goes on for that."""
    for (kind, name), one in _owned(uid, observed):
        if kind in WORKLOAD_KINDS and read_state(one).state in ("Active", "Suspended"):
            config_map = observed.get("ConfigMap", name)
            yield from give_up_job(one, config_map, uid, "the job has ended")


def _give_up_all(uid: str, observed: Observed) -> Iterator[Action]:
    for _, one in _owned(uid, observed):
        action = give_up(one, uid, "the job ended a while ago")
        if action is not None:
            yield action


def _owned(uid: str, observed: Observed) -> Iterator[tuple[ObjectKey, Manifest]]:
    """Objects of the job, alone or with others, that are not being deleted."""
    for key, one in observed.objects.items():
        if key[0] in OWNED_KINDS and uid in owner_uids(one) and not is_being_deleted(one):
            yield key, one
