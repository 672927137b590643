"""Carries out the actions of a decision, and puts what they change into the cache at once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from weakref import WeakValueDictionary

from cosmos_operator.api.labels import JOB_NAME_LABEL, MANAGED_BY, MANAGED_LABEL
from cosmos_operator.controller.cache import Cache, News
from cosmos_operator.controller.informer import INFORMED
from cosmos_operator.controller.router import Router
from cosmos_operator.decide.decision import (
    Action,
    AddOwner,
    Annotate,
    Create,
    GiveUp,
    ReportProgress,
)
from cosmos_operator.errors import Refused
from cosmos_operator.kube.kinds import JobKey, Manifest, ObjectKey
from cosmos_operator.kube.objects import is_being_deleted, labels_of, name_of, owner_uids
from cosmos_operator.kube.protocol import Cluster

logger = logging.getLogger(__name__)


@dataclass
class Memory:
    """Knowledge that the last pass over a job has from its writes; the next pass gains it again if it is lost."""

    refusals: dict[ObjectKey, str] = field(default_factory=dict)
    """Objects that the API server refused to create, and why."""
    foreign: dict[ObjectKey, Manifest] = field(default_factory=dict)
    """Objects of other people under names that the job needs."""
    has_begun: bool = False
    """True once the job's first objects have been asked for."""


class Executor:
    """Carries out actions.

    Args:
        cluster: the API server.
        cache: what the watches deliver; takes up at once what is written.
        router: knows which other jobs a change concerns.
        wake: asks for a pass over another job, of which this one has changed an object.
    """

    def __init__(
        self, cluster: Cluster, cache: Cache, router: Router, wake: Callable[[JobKey], object]
    ) -> None:
        self._cluster, self._cache, self._router, self._wake = cluster, cache, router, wake
        self._without_progress: set[str] = set()
        self._creations: dict[tuple[str, ObjectKey], asyncio.Event] = {}
        # many jobs become owners of one object: at the same time, each patch would conflict with the others
        self._patching: WeakValueDictionary[tuple[str, str, str], asyncio.Lock] = (
            WeakValueDictionary()
        )

    async def begin(self, key: JobKey, actions: tuple[Action, ...], memory: Memory) -> bool:
        """Create once, all of it at the same time, what a new job needs and nobody else has begun to create.

        Returns:
            False if there is no such object, or the job has begun before.
        """
        if memory.has_begun:
            return False
        memory.has_begun = True
        mine = tuple(
            one
            for one in actions
            if isinstance(one, Create)
            and (key.namespace, _key_of(one)) not in self._creations
            and self._cache.get(one.manifest["kind"], key.namespace, name_of(one.manifest)) is None
        )
        tries = await asyncio.gather(*(self._try(key, action, memory) for action in mine))
        memory.refusals = {
            _key_of(action): refusal
            for action, (_, refusal) in zip(mine, tries, strict=True)
            if refusal
        }
        return bool(mine)

    async def carry_out(self, key: JobKey, actions: tuple[Action, ...], memory: Memory) -> bool:
        """Carry out all actions of a pass over a job; what the API server refuses is remembered.

        Returns:
            True if the next pass would know more: something else was refused than before, or an object was there of
            which the cache did not know.
        """
        refused: dict[ObjectKey, str] = {}
        has_found = False
        for action in actions:
            was_there, refusal = await self._try(key, action, memory)
            has_found |= was_there
            if refusal:
                refused[_key_of(action)] = refusal
        has_learned = refused != memory.refusals or has_found
        memory.refusals = refused
        return has_learned

    async def _try(self, key: JobKey, action: Action, memory: Memory) -> tuple[bool, str]:
        """Carry out an action; returns what ``_execute`` does, and the reason if the API server refuses it."""
        try:
            return await self._execute(key, action, memory), ""
        except Refused as error:
            target = _key_of(action)
            logger.warning("%s: %s %s: %s", key.namespace, *target, error)
            return False, error.message or "no reason given"

    async def _execute(self, key: JobKey, action: Action, memory: Memory) -> bool:
        """Carry out an action; True if an object was there of which the cache did not know."""
        namespace, (kind, name) = key.namespace, _key_of(action)
        if isinstance(action, Create):
            return await self._create(key, action, memory)
        if isinstance(action, AddOwner):
            async with self._patching.setdefault((namespace, kind, name), asyncio.Lock()):
                changed = await self._cluster.add_owner(
                    kind, namespace, name, action.owner, uid=action.uid
                )
            if changed is not None:
                self._take(key, kind, changed)
        elif isinstance(action, GiveUp):
            await self._give_up(key, action)
        elif isinstance(action, Annotate):
            changed = await self._cluster.annotate(
                kind, namespace, name, action.annotations, uid=action.uid
            )
            if changed is not None:
                self._take(key, kind, changed)
        elif isinstance(action, ReportProgress):
            await self._report_progress(namespace, action)
        else:
            logger.info("%s: deleting %s %s: %s", namespace, kind, name, action.reason)
            left = await self._cluster.delete(
                kind, namespace, name, action.uid, foreground=action.foreground
            )
            self._take_deleted(key, (kind, name), action.uid, left)
        return False

    async def _report_progress(self, namespace: str, action: ReportProgress) -> None:
        """Write the progress into a workload's status, unless its kind has no field for it here."""
        if action.kind in self._without_progress:
            return
        try:
            await self._cluster.report_progress(
                action.kind, namespace, action.name, action.trainer_status, uid=action.uid
            )
        except Refused as error:
            self._without_progress.add(action.kind)
            logger.info("%s does not take reports of progress: %s", action.kind, error.message)

    async def _create(self, key: JobKey, action: Create, memory: Memory) -> bool:
        """Create an object; True if it was there already, or another job's pass has created it since."""
        target = _key_of(action)
        place = (key.namespace, target)
        if place in self._creations:
            await self._creations[place].wait()
            return True
        if self._cache.get(target[0], key.namespace, target[1]) is not None:
            return True
        self._creations[place] = asyncio.Event()
        try:
            metadata = {**action.manifest["metadata"], "namespace": key.namespace}
            made = await self._cluster.create({**action.manifest, "metadata": metadata})
            if target[0] not in INFORMED:
                return False  # nothing watches it, such as a TrainingRuntime, whose name tells its content
            if made is None:
                return await self._look_at(key, *target, memory)
            self._take(key, target[0], made)
        finally:
            self._creations.pop(place).set()
        logger.info("%s: created %s %s", key.namespace, *target)
        return False

    async def _give_up(self, key: JobKey, action: GiveUp) -> None:
        """Give up a share of an object in the version that it has now, whatever a pass has seen of it."""
        cluster, namespace, kind, name = self._cluster, key.namespace, action.kind, action.name
        found = await cluster.get(kind, namespace, name)
        if found is None or found["metadata"]["uid"] != action.uid:
            self._take_deleted(key, (kind, name), action.uid, None)
            return
        version, owners = str(found["metadata"]["resourceVersion"]), owner_uids(found)
        if is_being_deleted(found) or action.owner_uid not in owners:
            self._take(key, kind, found)
        elif owners != {action.owner_uid}:
            logger.info("%s: leaving %s %s to others: %s", namespace, kind, name, action.reason)
            changed = await cluster.remove_owner(
                kind, namespace, name, action.owner_uid, uid=action.uid, resource_version=version
            )
            if changed is not None:
                self._take(key, kind, changed)
        elif action.deletes:
            logger.info("%s: deleting %s %s: %s", namespace, kind, name, action.reason)
            left = await cluster.delete(
                kind, namespace, name, action.uid, foreground=True, resource_version=version
            )
            if left is not None:
                self._take(key, kind, left)

    def _take(self, key: JobKey, kind: str, manifest: Manifest) -> None:
        self._tell(key, self._cache.put(kind, manifest))

    def _take_deleted(
        self, key: JobKey, target: ObjectKey, uid: str, left: Manifest | None
    ) -> None:
        if left is not None:
            self._take(key, target[0], left)
        else:
            self._tell(key, self._cache.remove(target[0], key.namespace, target[1], uid))

    def _tell(self, key: JobKey, news: News | None) -> None:
        """Wake the other jobs that a change concerns which we have made: the watch brings them no news."""
        for other in self._router.route(news) if news is not None else ():
            if other != key:
                self._wake(other)

    async def _look_at(self, key: JobKey, kind: str, name: str, memory: Memory) -> bool:
        """Read an object that exists already: one that the cache does not know yet, or somebody else's."""
        found = await self._cluster.get(kind, key.namespace, name)
        if found is None:
            return True
        if INFORMED[kind] and labels_of(found).get(MANAGED_LABEL) != MANAGED_BY:
            memory.foreign[kind, name] = found
            return True
        self._cache.put(kind, found, is_needed=True)
        if kind == "Job":
            for pod in await self._cluster.list("Pod", key.namespace, {JOB_NAME_LABEL: name}):
                self._cache.put("Pod", pod, is_needed=True)
        return True


def _key_of(action: Action) -> ObjectKey:
    if isinstance(action, Create):
        return str(action.manifest["kind"]), name_of(action.manifest)
    return action.kind, action.name
