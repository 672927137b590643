"""Objects that several jobs share: each user is an owner, and the last one that gives its share up deletes. Pure.

Both ways of giving up name the version of the object in which its owners were seen. Of two jobs that give up at once,
one is refused, and finds in its next pass that it is the last; a job that has become an owner meanwhile keeps the
object.
"""

from __future__ import annotations

from cosmos_operator.decide.decision import Delete, RemoveOwner
from cosmos_operator.kube.kinds import Manifest
from cosmos_operator.kube.objects import is_being_deleted, name_of, owner_uids


def give_up(manifest: Manifest, uid: str, reason: str) -> RemoveOwner | Delete | None:
    """What a job does to give up its share of an object; None if it has none, or the object goes anyway.

    Args:
        manifest: the object.
        uid: of the job.
        reason: for the log.
    """
    owners, metadata = owner_uids(manifest), manifest["metadata"]
    if uid not in owners or is_being_deleted(manifest):
        return None
    version = str(metadata.get("resourceVersion", ""))
    if owners == {uid}:
        return Delete(
            manifest["kind"], name_of(manifest), metadata["uid"], reason, resource_version=version
        )
    return RemoveOwner(manifest["kind"], name_of(manifest), metadata["uid"], version, uid)


def give_up_job(
    job: Manifest, config_map: Manifest | None, uid: str, reason: str
) -> tuple[RemoveOwner | Delete, ...]:
    """What a job does to give up its share of a stage's Job, and of the ConfigMap that its pods mount.

    While others go on using the Job, its ConfigMap is never deleted.
    """
    first = give_up(job, uid, reason)
    second = give_up(config_map, uid, reason) if config_map is not None else None
    if isinstance(first, RemoveOwner) and isinstance(second, Delete):
        second = None
    return tuple(action for action in (first, second) if action is not None)
