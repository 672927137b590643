"""The objects of a cluster and their history: versions, generations, deletion. Objects are never changed in place."""

from __future__ import annotations

import copy
import datetime
import json
import secrets
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from support.fakekube import defaults, errors
from support.fakekube.resources import BUILT_IN, CRDS, Object, Resource, resource_of_crd

MAX_HISTORY = 20_000
FOREGROUND, ORPHAN = "foregroundDeletion", "orphan"
SUFFIX = "bcdfghjklmnpqrstvwxz2456789"
KEPT = ("name", "namespace", "uid", "creationTimestamp", "generation", "deletionTimestamp",
        "deletionGracePeriodSeconds", "resourceVersion")  # fmt: skip
"""Metadata that no request changes."""


def utc_now() -> str:
    """The time as the API writes it."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def micro_now() -> str:
    """The time with microseconds."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def random_suffix() -> str:
    """Five characters, as generateName appends."""
    return "".join(secrets.choice(SUFFIX) for _ in range(5))


@dataclass
class Event:
    """One change."""

    version: int
    type: str
    resource: Resource
    obj: Object
    previous: Object | None
    _lines: dict[str, bytes] = field(default_factory=dict)

    def line(self, event_type: str) -> bytes:
        """The change as a watch sends it."""
        if event_type not in self._lines:
            event = {"type": event_type, "object": self.obj}
            self._lines[event_type] = json.dumps(event, separators=(",", ":")).encode() + b"\n"
        return self._lines[event_type]


class Store:
    """All objects, by resource, namespace and name."""

    def __init__(self) -> None:
        self.version = 1
        self.resources = {resource.key: resource for resource in BUILT_IN}
        self.history: deque[Event] = deque()
        self.oldest = 0
        self.listeners: list[Callable[[Event], None]] = []
        self.admission: list[Callable[[str, Object], None]] = []
        """Change a new object, of a kind named ``plural.group``, before it is stored."""
        self._objects: dict[str, dict[tuple[str, str], Object]] = {}

    # --- reading -------------------------------------------------------------------------------

    def resource(self, key: str) -> Resource:
        """A kind by ``plural.group``."""
        return self.resources[key]

    def serves(self, key: str) -> bool:
        """True if the kind is served."""
        return key in self.resources

    def find(self, key: str, namespace: str | None, name: str) -> Object | None:
        """An object, or None."""
        return self._objects.get(key, {}).get((namespace or "", name))

    def get(self, key: str, namespace: str | None, name: str) -> Object:
        """An object.

        Raises:
            ApiError: there is none.
        """
        found = self.find(key, namespace, name)
        if found is None:
            resource = self.resources[key]
            raise errors.not_found(resource.group, resource.plural, name)
        return found

    def list(self, key: str, namespace: str | None = None) -> list[Object]:
        """Objects of a kind, ordered as the API does."""
        found = self._objects.get(key, {})
        return [found[k] for k in sorted(found) if not namespace or k[0] == namespace]

    def everything(self) -> Iterator[tuple[Resource, Object]]:
        """All objects."""
        for key, objects in list(self._objects.items()):
            for obj in list(objects.values()):
                yield self.resources[key], obj

    # --- writing -------------------------------------------------------------------------------

    def create(self, key: str, obj: Object, *, dry_run: bool = False) -> Object:
        """Make an object, or in a dry run only say what would be made; the status that it brings is dropped.

        Raises:
            ApiError: the name is taken, or the namespace or a priority class is absent.
        """
        resource = self.resources[key]
        obj = copy.deepcopy(obj)
        meta = obj.setdefault("metadata", {})
        if not meta.get("name") and meta.get("generateName"):
            meta["name"] = meta["generateName"] + random_suffix()
        namespace = meta.get("namespace") if resource.namespaced else None
        if resource.namespaced:
            self._check_namespace(resource, namespace or "", meta.get("name", ""))
        else:
            meta.pop("namespace", None)
        obj.setdefault("apiVersion", resource.api_version)
        obj.setdefault("kind", resource.kind)
        for name in ("deletionTimestamp", "deletionGracePeriodSeconds", "resourceVersion"):
            meta.pop(name, None)
        if resource.has_status:
            obj.pop("status", None)
        if self.find(key, namespace, meta["name"]) is not None:
            raise errors.already_exists(resource.group, resource.plural, meta["name"])
        for admit in self.admission:
            admit(key, obj)
        defaults.complete(self, resource, obj)
        meta.update(uid=str(uuid.uuid4()), creationTimestamp=utc_now())
        if resource.counts_generations:
            meta["generation"] = 1
        return obj if dry_run else self._write("ADDED", resource, obj, None)

    def update(self, key: str, obj: Object, *, subresource: str = "") -> Object:
        """Replace an object: all but its status, or (subresource ``status``) its status alone.

        Raises:
            ApiError: it is gone, or newer than ``metadata.resourceVersion``.
        """
        resource = self.resources[key]
        given = obj["metadata"]
        old = self.get(key, given.get("namespace"), given["name"])
        meta = old["metadata"]
        _check_expected(resource, meta, given.get("uid"), given.get("resourceVersion"), lock=True)
        new = _combined(resource, old, copy.deepcopy(obj), subresource)
        for name in KEPT:
            new["metadata"].pop(name, None)
            if name in meta:
                new["metadata"][name] = meta[name]
        if resource.counts_generations and _wanted(new) != _wanted(old):
            new["metadata"]["generation"] = meta.get("generation", 0) + 1
        if new == old:
            return old
        new_meta = new["metadata"]
        waits = (
            new_meta.get("finalizers")
            or new_meta.get("deletionGracePeriodSeconds", 0) > 0
            or defaults.has_contents(resource)
        )
        if "deletionTimestamp" in new_meta and not waits:
            return self.remove(resource, new)
        return self._write("MODIFIED", resource, new, old)

    def patch_status(self, key: str, obj: Object, **values: Any) -> Object:
        """Set fields of an object's status, whatever happened to it meanwhile."""
        meta = obj["metadata"]
        new = copy.deepcopy(self.get(key, meta.get("namespace"), meta["name"]))
        new["status"] = {**new.get("status", {}), **copy.deepcopy(values)}
        return self.update(key, new, subresource="status")

    def delete(
        self,
        key: str,
        namespace: str | None,
        name: str,
        *,
        uid: str | None = None,
        version: str | None = None,
        propagation: str | None = None,
        grace_s: int | None = None,
    ) -> tuple[Object, bool]:
        """Delete an object, now or once nothing holds it back; returns it and whether it is gone.

        Raises:
            ApiError: it is gone already, or not the one that was meant.
        """
        resource = self.resources[key]
        old = self.get(key, namespace, name)
        _check_expected(resource, old["metadata"], uid, version, lock=False)
        obj = copy.deepcopy(old)
        meta = obj["metadata"]
        default = "Orphan" if key == "jobs.batch" else "Background"
        policy = propagation or default
        held = {"Foreground": [FOREGROUND], "Orphan": [ORPHAN]}.get(policy, [])
        finalizers = [f for f in meta.get("finalizers", []) if f not in (FOREGROUND, ORPHAN)]
        meta["finalizers"] = finalizers + held
        if not meta["finalizers"]:
            del meta["finalizers"]
        wait_s = defaults.grace_seconds(resource, old, grace_s)
        before = meta.get("deletionGracePeriodSeconds")
        wait_s = wait_s if before is None else min(wait_s, before)
        if not meta.get("finalizers") and wait_s == 0 and not defaults.has_contents(resource):
            return self.remove(resource, obj), True
        if "deletionTimestamp" not in meta:
            meta["deletionTimestamp"] = utc_now()
            if resource.counts_generations:
                meta["generation"] = meta.get("generation", 0) + 1
        meta["deletionGracePeriodSeconds"] = wait_s
        if obj == old:
            return old, False
        return self._write("MODIFIED", resource, obj, old), False

    def release(self, key: str, obj: Object, finalizer: str) -> None:
        """Take a finalizer away, whatever happened to the object meanwhile."""
        meta = obj["metadata"]
        live = self.find(key, meta.get("namespace"), meta["name"])
        if live is not None and finalizer in live["metadata"].get("finalizers", []):
            new = copy.deepcopy(live)
            left = [name for name in new["metadata"]["finalizers"] if name != finalizer]
            new["metadata"]["finalizers"] = left
            if not left:
                del new["metadata"]["finalizers"]
            self.update(key, new)

    def forget_history(self) -> None:
        """Let watches from any version before now fail."""
        self.history.clear()
        self.oldest = self.version

    # --- inside --------------------------------------------------------------------------------

    def _check_namespace(self, resource: Resource, namespace: str, name: str) -> None:
        found = self.find("namespaces", None, namespace)
        if found is None:
            raise errors.not_found("", "namespaces", namespace)
        if "deletionTimestamp" in found["metadata"]:
            why = f"unable to create new content in namespace {namespace} because it is being terminated"
            raise errors.forbidden(resource.group, resource.plural, name, why)

    def _write(self, kind: str, resource: Resource, obj: Object, previous: Object | None) -> Object:
        self.version += 1
        meta = obj["metadata"]
        meta["resourceVersion"] = str(self.version)
        key = (meta.get("namespace") or "", meta["name"])
        self._objects.setdefault(resource.key, {})[key] = obj
        if resource.key == CRDS:
            custom = resource_of_crd(obj)
            self.resources[custom.key] = custom
        self._notify_watches(Event(self.version, kind, resource, obj, previous))
        return obj

    def remove(self, resource: Resource, obj: Object) -> Object:
        """Let an object go at once."""
        self.version += 1
        meta = obj["metadata"]
        meta["resourceVersion"] = str(self.version)
        previous = self._objects[resource.key].pop((meta.get("namespace") or "", meta["name"]))
        if resource.key == CRDS:
            custom = resource_of_crd(obj)
            for instance in self.list(custom.key):
                self.remove(custom, copy.deepcopy(instance))
            self.resources.pop(custom.key, None)
            self._objects.pop(custom.key, None)
        self._notify_watches(Event(self.version, "DELETED", resource, obj, previous))
        return obj

    def _notify_watches(self, event: Event) -> None:
        self.history.append(event)
        while len(self.history) > MAX_HISTORY:
            self.oldest = self.history.popleft().version
        for listener in list(self.listeners):
            listener(event)


def _check_expected(
    resource: Resource, meta: Object, uid: str | None, version: str | None, *, lock: bool
) -> None:
    name = meta["name"]
    if uid and uid != meta["uid"]:
        why = (
            f"the UID in the precondition ({uid}) does not match the UID in record ({meta['uid']}). "
            "The object might have been deleted and then recreated"
        )
        raise errors.conflict(resource.group, resource.kind, name, why)
    if version and version != meta["resourceVersion"]:
        why = (
            "the object has been modified; please apply your changes to the latest version and try again"
            if lock
            else f"Precondition failed: ResourceVersion in precondition: {version}, "
            f"ResourceVersion in object meta: {meta['resourceVersion']}"
        )
        raise errors.conflict(resource.group, resource.plural, name, why)


def _combined(resource: Resource, old: Object, new: Object, subresource: str) -> Object:
    """The part of ``new`` that a request to an endpoint may change, over ``old``."""
    if subresource == "status":
        result = copy.deepcopy(old)
        result.pop("status", None)
        if "status" in new:
            result["status"] = new["status"]
        return result
    new["apiVersion"], new["kind"] = old["apiVersion"], old["kind"]
    if resource.has_status:
        new.pop("status", None)
        if "status" in old:
            new["status"] = copy.deepcopy(old["status"])
    return new


def _wanted(obj: Object) -> Object:
    return {name: value for name, value in obj.items() if name not in ("metadata", "status")}
