"""A model of the API server: objects with uids and versions, preconditions, owners, deletion, and a history."""

from __future__ import annotations

import asyncio
import json
import marshal
import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import unquote

from cosmos_operator.kube.client import Answer, Query
from cosmos_operator.kube.kinds import JOB_KINDS, KINDS, OPTIONAL_KINDS, Manifest
from cosmos_operator.kube.objects import format_time
from support.crash_sweep.clock import SimulatedLoop
from support.fakekube.patches import merge_patch, strategic_patch

FOREGROUND = "foregroundDeletion"
POD_GRACE_S = 30
UNWATCHED = ("Lease", "Event")
"""Kinds that nobody watches."""
_PATH = re.compile(
    r"/(?:api/v1|apis/[^/]+/[^/]+)(?:/namespaces/(?P<namespace>[^/]+))?/(?P<plural>[a-z]+)"
    r"(?:/(?P<name>[^/]+))?(?:/(?P<part>status|log))?"
)
_KINDS = {one.plural: kind for kind, one in KINDS.items() if kind not in OPTIONAL_KINDS}
Key = tuple[str, str, str]
"""Kind, namespace, name."""


def copied(value: Any) -> Any:
    """A copy of JSON values; much faster than deepcopy."""
    return marshal.loads(marshal.dumps(value))


@dataclass(frozen=True)
class Change:
    """One change of an object."""

    version: int
    type: str
    kind: str
    body: Manifest
    before: Manifest | None


@dataclass(frozen=True)
class Request:
    """A request, with what its path means."""

    method: str
    kind: str
    namespace: str
    name: str
    part: str
    query: Mapping[str, str]
    body: Manifest
    accept: str = ""

    @property
    def verb(self) -> str:
        """Method, kind and part of an object, for counts and messages."""
        return " ".join(filter(None, (self.method, self.kind, self.part)))


def read_request(
    method: str, path: str, query: Query, body: Manifest | None, accept: str
) -> Request | None:
    """The meaning of a request; None for a path that is not served."""
    found = _PATH.fullmatch(path)
    if found is None or found["plural"] not in _KINDS:
        return None
    return Request(
        method,
        _KINDS[found["plural"]],
        unquote(found["namespace"] or ""),
        unquote(found["name"] or ""),
        found["part"] or "",
        dict(query),
        body or {},
        accept,
    )


class ModelServer:
    """All objects, and what requests do to them. Objects are replaced, never changed in place."""

    def __init__(self, loop: SimulatedLoop) -> None:
        self.loop = loop
        self.version = 1
        self.objects: dict[Key, Manifest] = {}
        self.history: dict[str, list[Change]] = defaultdict(list)
        """Kind → its changes."""
        self.oldest = 0
        """Version before which no watch can begin."""
        self.listeners: list[Callable[[Change], None]] = []
        self.logs: Callable[[Manifest], str | None] = lambda _: None
        self.waiters: dict[str, list[asyncio.Future[None]]] = defaultdict(list)
        """Kind → watches that wait for a change."""
        self._uids = 0

    # --- objects -------------------------------------------------------------------------------

    def get(self, kind: str, name: str, namespace: str = "lab") -> Manifest | None:
        return self.objects.get((kind, namespace, name))

    def all(self, kind: str) -> list[Manifest]:
        return [self.objects[key] for key in sorted(self.objects) if key[0] == kind]

    def create(self, manifest: Manifest) -> Manifest:
        made = copied(manifest)
        metadata = made["metadata"]
        self._uids += 1
        metadata |= {"uid": f"uid-{self._uids}", "creationTimestamp": format_time(self.loop.now())}
        metadata["generation"] = 1
        return self.write("ADDED", made, None)

    def write(self, what: str, new: Manifest, before: Manifest | None) -> Manifest:
        self.version += 1
        metadata = new["metadata"]
        metadata["resourceVersion"] = str(self.version)
        key = (new["kind"], metadata.get("namespace", ""), metadata["name"])
        if what == "DELETED":
            del self.objects[key]
        else:
            self.objects[key] = new
        change = Change(self.version, what, new["kind"], new, before)
        if change.kind not in UNWATCHED:
            self.history[change.kind].append(change)
            self._wake(change.kind)
        for listener in self.listeners:
            listener(change)
        return new

    def change(self, found: Manifest, edit: Callable[[Manifest], object]) -> Manifest:
        """Change an object as it is now; nothing happens if the edit changes nothing."""
        new = copied(found)
        edit(new)
        if new == found:
            return found
        return self.write("MODIFIED", new, found)

    def remove(self, found: Manifest) -> None:
        """Let an object go at once."""
        self.write("DELETED", copied(found), found)

    def delete(self, found: Manifest, *, foreground: bool = False) -> bool:
        """Delete an object; True if it is gone at once."""
        if found["kind"] == "Pod":
            if "deletionTimestamp" not in found["metadata"]:
                due = format_time(
                    self.loop.now().replace(microsecond=0) + timedelta(seconds=POD_GRACE_S)
                )
                self.change(found, lambda new: new["metadata"].update(
                    deletionTimestamp=due, deletionGracePeriodSeconds=POD_GRACE_S))  # fmt: skip
            return False
        if not foreground:
            self.remove(found)
            return True
        if "deletionTimestamp" not in found["metadata"]:
            stamp = format_time(self.loop.now())
            self.change(found, lambda new: new["metadata"].update(
                deletionTimestamp=stamp, finalizers=[FOREGROUND]))  # fmt: skip
        return False

    def wake(self) -> None:
        """Let all watches look at what has happened."""
        for kind in list(self.waiters):
            self._wake(kind)

    def _wake(self, kind: str) -> None:
        for waiter in self.waiters.pop(kind, ()):
            if not waiter.done():
                waiter.set_result(None)

    def since(self, kind: str, version: int) -> list[Change]:
        """The changes of a kind after a version."""
        history = self.history[kind]
        first = len(history)
        while first and history[first - 1].version > version:
            first -= 1
        return history[first:]

    def forget_history(self) -> None:
        """Let no watch go on from before now."""
        self.history.clear()
        self.oldest = self.version

    # --- requests ------------------------------------------------------------------------------

    def answer(self, request: Request | None) -> Answer:
        """The answer to a request."""
        if request is None:
            return Answer(404, b"404 page not found\n")
        if request.method == "POST":
            return self._post(request)
        if request.method == "GET" and not request.name:
            return self._list(request)
        found = self.get(request.kind, request.name, request.namespace)
        if found is None:
            return refusal(404, "NotFound", f"{request.kind} {request.name} not found")
        if request.part == "log":
            text = self.logs(found)
            return Answer(400, b"") if text is None else Answer(200, text.encode())
        if request.method == "GET":
            return accepted(found)
        if request.method == "DELETE":
            return self._delete(request, found)
        if request.method == "PUT":
            return self._put(request, found)
        return self._patch(request, found)

    def _post(self, request: Request) -> Answer:
        body = request.body
        name = body["metadata"]["name"]
        if self.get(request.kind, name, request.namespace) is not None:
            return refusal(409, "AlreadyExists", f"{request.kind} {name} already exists")
        if request.query.get("dryRun"):
            return accepted(body)
        return accepted(self.create(body), 201)

    def _list(self, request: Request) -> Answer:
        labels = _selector(request.query.get("labelSelector", ""))
        items = [
            _without_contents(one) if "PartialObjectMetadata" in request.accept else one
            for one in self.all(request.kind)
            if labels.items() <= one["metadata"].get("labels", {}).items()
            and request.namespace in ("", one["metadata"].get("namespace", ""))
        ]
        if request.kind == "Event":
            items = []
        return accepted({"metadata": {"resourceVersion": str(self.version)}, "items": items})

    def _delete(self, request: Request, found: Manifest) -> Answer:
        seen = request.body.get("preconditions") or {}
        for name in ("uid", "resourceVersion"):
            if name in seen and seen[name] != found["metadata"][name]:
                return refusal(409, "Conflict", f"Precondition failed: {name}: {seen[name]}")
        foreground = request.body.get("propagationPolicy") == "Foreground"
        if self.delete(found, foreground=foreground):
            return accepted({"kind": "Status", "status": "Success"})
        return accepted(self.objects[request.kind, request.namespace, request.name])

    def _put(self, request: Request, found: Manifest) -> Answer:
        if request.body["metadata"].get("resourceVersion") != found["metadata"]["resourceVersion"]:
            return refusal(409, "Conflict", "the object has been modified")
        return accepted(self.write("MODIFIED", copied(request.body), found))

    def _patch(self, request: Request, found: Manifest) -> Answer:
        metadata = request.body.get("metadata", {})
        version = metadata.get("resourceVersion")
        if version is not None and version != found["metadata"]["resourceVersion"]:
            return refusal(409, "Conflict", "the object has been modified")
        if metadata.get("uid") not in (None, found["metadata"]["uid"]):
            return refusal(409, "Conflict", "metadata.uid: the object has another one")
        if request.part == "status" and request.kind in JOB_KINDS:
            return accepted(
                self.change(found, lambda new: new.update(status=copied(request.body["status"])))
            )
        body = copied(request.body)
        for name in ("uid", "resourceVersion"):
            body.get("metadata", {}).pop(name, None)
        is_strategic = "ownerReferences" in metadata
        patched = (strategic_patch if is_strategic else merge_patch)(copied(found), body)
        if is_strategic and not patched["metadata"].get("ownerReferences"):
            patched["metadata"].pop("ownerReferences", None)
        if patched == found:
            return accepted(found)
        return accepted(self.write("MODIFIED", patched, found))


def accepted(body: Manifest, status: int = 200) -> Answer:
    """A success."""
    return Answer(status, json.dumps(body).encode())


def refusal(status: int, reason: str, message: str) -> Answer:
    """A refusal, as the API server words it."""
    body = {
        "kind": "Status",
        "status": "Failure",
        "reason": reason,
        "message": message,
        "code": status,
    }
    return Answer(status, json.dumps(body).encode())


def _selector(text: str) -> dict[str, str]:
    pairs = (part.partition("=") for part in text.split(",") if part)
    return {name: value for name, _, value in pairs}


def _without_contents(manifest: Manifest) -> Manifest:
    return {name: manifest[name] for name in ("apiVersion", "kind", "metadata") if name in manifest}
