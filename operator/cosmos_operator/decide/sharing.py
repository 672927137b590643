"""Objects that several jobs share: each user is an owner, and the last one that gives its share up deletes. Pure."""

from __future__ import annotations

from dataclasses import replace

from cosmos_operator.decide.decision import GiveUp
from cosmos_operator.kube.kinds import Manifest
from cosmos_operator.kube.objects import is_being_deleted, name_of, owner_uids


def give_up(manifest: Manifest, uid: str, reason: str) -> GiveUp | None:
    """The action by which a job gives up its share of an object; None if it has none, or the object goes anyway.

    Args:
        manifest: the object.
        uid: of the job.
        reason: for the log.
    """
    if uid not in owner_uids(manifest) or is_being_deleted(manifest):
        return None
    return GiveUp(
        manifest["kind"], name_of(manifest), str(manifest["metadata"]["uid"]), uid, reason
    )


def give_up_job(
    job: Manifest, config_map: Manifest | None, uid: str, reason: str
) -> tuple[GiveUp, ...]:
    """The actions by which a job gives up its share of a stage's Job, and of the ConfigMap that its pods mount.

    While others go on using the Job, its ConfigMap is never deleted.
    """
    first = give_up(job, uid, reason)
    second = give_up(config_map, uid, reason) if config_map is not None else None
    if second is not None and owner_uids(job) - {uid}:
        second = replace(second, deletes=False)
    return tuple(action for action in (first, second) if action is not None)
