"""Shared state of the simulated controllers and nodes: objects, time scale, images, disks, faults."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from support.fakekube.errors import ApiError
from support.fakekube.logs import PodLogs
from support.fakekube.resources import Object
from support.fakekube.sidecars import Sidecar, inject
from support.fakekube.store import Event, Store, random_suffix, utc_now

logger = logging.getLogger(__name__)

Key = tuple[str, str]
"""Namespace and name."""


@dataclass
class Timing:
    """Seconds that things take; short, in the proportions of a real cluster."""

    controller_s: float = 0.005
    """From a change until a controller looks at it."""
    start_s: float = 0.02
    """Start of a container."""
    retry_s: float = 0.1
    """Between two tries to pull an image, to find a ConfigMap, to place a pod."""
    stage_s: float = 0.1
    """A stage other than the training."""
    step_s: float = 0.02
    """A training step."""
    peer_s: float = 0.03
    """Until a training process notices that a peer is gone."""
    max_grace_s: float = 1.0
    """Longest time between SIGTERM and SIGKILL, whatever the pod says."""
    job_backoff_s: float = 0.1
    """Before a Job replaces a failed pod; doubles with each."""
    unreachable_s: float = 0.3
    """Before the pods of a lost node are marked for deletion."""


@dataclass
class Fault:
    """Something that goes wrong in a stage, once."""

    stage: str
    """Stage, such as train or generate-before."""
    kind: str = "exit"
    """exit: with exit_code, reason, message; oom: killed for memory; hang: nothing more is said or done."""
    exit_code: int = 1
    reason: str = "Bug"
    message: str = "RuntimeError: scripted"
    step: int = 0
    """After so many steps of the training or units of another stage."""
    job: str | None = None
    """Only in pods with this cosmos.dev/job label; None = any."""
    attempt: int | None = None
    """Only in this attempt of the training, or start of the stage's pod; None = the next."""
    rank: int = 0
    """Node rank in which it happens."""
    times: int = 1
    """Number of times."""


class Disk(dict[str, Any]):
    """The files of a claim: path → content."""

    def below(self, folder: str) -> list[str]:
        """Paths in a folder."""
        start = folder.rstrip("/") + "/"
        return sorted(path for path in self if path.startswith(start))


@dataclass
class World:
    """Everything but the HTTP server."""

    store: Store = field(default_factory=Store)
    timing: Timing = field(default_factory=Timing)
    logs: PodLogs = field(default_factory=PodLogs)
    images: set[str] = field(default_factory=set)
    """Images that can be pulled; ``*`` = all."""
    disks: dict[Key, Disk] = field(default_factory=dict)
    """By namespace and claim."""
    faults: list[Fault] = field(default_factory=list)
    sidecars: list[Sidecar] = field(default_factory=list)
    """Containers that are put into new pods."""
    locks: dict[tuple[int, str], str] = field(default_factory=dict)
    """(disk, folder of a run) → uid of the pod that trains there."""
    gangs: dict[Key, Any] = field(default_factory=dict)
    starts: dict[tuple[str, str, str], int] = field(default_factory=dict)
    """(namespace, job label, stage) → pods that ran."""
    mishaps: list[str] = field(default_factory=list)
    """Violations that no operator should let happen, such as two trainings in one folder."""
    exec_cuts: list[int] = field(default_factory=list)
    """Bytes after which the connections of the next commands in pods break."""
    crashes: list[BaseException] = field(default_factory=list)
    """Bugs of the simulation itself."""

    def __post_init__(self) -> None:
        self.store.admission.append(self._admit)

    def _admit(self, key: str, obj: Object) -> None:
        """Change an object before it is stored, as admission webhooks do."""
        if key == "pods" and self.sidecars:
            inject(obj, self.sidecars)

    def disk(self, namespace: str, claim: str) -> Disk:
        """The files of a claim."""
        return self.disks.setdefault((namespace, claim), Disk())

    def has_image(self, image: str) -> bool:
        """True if an image can be pulled."""
        return "*" in self.images or image in self.images

    def owned(self, key: str, owner: Object) -> list[Object]:
        """Objects whose controller is this one."""
        uid = owner["metadata"]["uid"]
        found = self.store.list(key, owner["metadata"]["namespace"])
        return [obj for obj in found if controller_of(obj) == uid]

    def write_event(self, obj: Object, kind: str, reason: str, message: str, source: str) -> None:
        """Write an Event, or count one more of the same."""
        meta = obj["metadata"]
        namespace = meta.get("namespace") or "default"
        for event in self.store.list("events", namespace):
            same = (event["involvedObject"]["uid"], event["reason"], event["message"])
            if same == (meta["uid"], reason, message):
                newer = {**event, "count": event["count"] + 1, "lastTimestamp": utc_now()}
                newer["metadata"] = dict(event["metadata"])
                self.store.update("events", newer)
                return
        about = {"kind": obj["kind"], "apiVersion": obj["apiVersion"], "namespace": namespace,
                 "name": meta["name"], "uid": meta["uid"]}  # fmt: skip
        event = {
            "metadata": {"name": f"{meta['name']}.{random_suffix()}", "namespace": namespace},
            "involvedObject": about,
            "type": kind,
            "reason": reason,
            "message": message,
            "count": 1,
            "firstTimestamp": utc_now(),
            "lastTimestamp": utc_now(),
            "source": {"component": source},
        }
        try:
            self.store.create("events", event)
        except ApiError:  # the namespace is going
            logger.debug("no event: %s %s", reason, message)


def controller_of(obj: Object) -> str:
    """Uid of the controller of an object, or empty."""
    for owner in obj["metadata"].get("ownerReferences", ()):
        if owner.get("controller"):
            return str(owner["uid"])
    return ""


def reference(owner: Object) -> Object:
    """The ownerReference of a controller."""
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def key_of(obj: Object) -> Key:
    """Namespace and name."""
    return obj["metadata"].get("namespace") or "", obj["metadata"]["name"]


def set_condition(
    conditions: list[Object], kind: str, status: str, reason: str, message: str
) -> list[Object]:
    """Conditions with one set; the time of its last change stays where nothing changed."""
    new = {"type": kind, "status": status, "reason": reason, "message": message}
    old = next((c for c in conditions if c["type"] == kind), None)
    if old is not None and all(old.get(name) == value for name, value in new.items()):
        return conditions
    new["lastTransitionTime"] = utc_now()
    if old is not None and old["status"] == status:
        new["lastTransitionTime"] = old.get("lastTransitionTime", utc_now())
    if old is None:
        return [*conditions, new]
    return [new if c is old else c for c in conditions]


def is_true(conditions: list[Object], kind: str) -> bool:
    """True if a condition has the status True."""
    return any(c["type"] == kind and c["status"] == "True" for c in conditions)


class Controller:
    """Brings one kind of object to what it asks for. ``sync`` looks at everything anew each time."""

    def __init__(self, world: World) -> None:
        self.world, self.store = world, world.store
        self.again: Callable[[Key, float], None] = lambda key, delay_s: None
        """Look at a key again after so many seconds; set by the loop."""

    def keys(self, event: Event) -> Iterator[Key]:
        """The objects to look at because of a change."""
        raise NotImplementedError

    def sync(self, key: Key) -> None:
        """Look at an object."""
        raise NotImplementedError


class ControlLoop:
    """Runs controllers one after another in the event loop, shortly after each change."""

    def __init__(self, world: World, controllers: list[Controller]) -> None:
        self.world, self.controllers = world, controllers
        self._loop = asyncio.get_running_loop()
        self._dirty: dict[tuple[int, Key], None] = {}
        self._is_planned = self._is_closed = False
        for number, controller in enumerate(controllers):
            controller.again = self._again(number)
        world.store.listeners.append(self._schedule)

    def close(self) -> None:
        """Do nothing more."""
        self._is_closed = True

    def _again(self, number: int) -> Callable[[Key, float], None]:
        def again(key: Key, delay_s: float) -> None:
            self._loop.call_later(delay_s, self._mark, number, key)

        return again

    def _mark(self, number: int, key: Key) -> None:
        self._dirty[number, key] = None
        if not self._is_planned and not self._is_closed:
            self._is_planned = True
            self._loop.call_later(self.world.timing.controller_s, self._run)

    def _schedule(self, event: Event) -> None:
        for number, controller in enumerate(self.controllers):
            for key in controller.keys(event):
                self._mark(number, key)

    def _run(self) -> None:
        self._is_planned = False
        todo, self._dirty = self._dirty, {}
        for number, key in todo:
            controller = self.controllers[number]
            if self._is_closed:
                return
            try:
                controller.sync(key)
            except ApiError as error:
                logger.debug("%s %s: %s", type(controller).__name__, key, error)
                self._loop.call_later(self.world.timing.retry_s, self._mark, number, key)
            except Exception as error:  # a bug of ours: told when the world stops
                logger.exception("%s %s", type(controller).__name__, key)
                self.world.crashes.append(error)
