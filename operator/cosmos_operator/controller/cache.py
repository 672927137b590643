"""The objects that the watches have delivered, trimmed to what decisions read, and found by job, owner or name.

Objects are kept as JSON text, which takes a tenth of the memory of dictionaries and cannot be changed by those who
read it. Of a job that has ended only what is needed to delete it in time is kept, and of the objects that are its own
none that has ended as well. All methods are for the event loop's thread.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from sys import intern

from cosmos_operator.api.base import GROUP, KIND
from cosmos_operator.api.labels import JOB_LABELS
from cosmos_operator.controller.trim import has_ended, is_new, trim
from cosmos_operator.kube.kinds import JOB_KINDS, JobKey, Manifest, ObjectKey
from cosmos_operator.kube.objects import conditions_of, labels_of
from cosmos_operator.kube.pods import is_over


@dataclass(frozen=True, slots=True)
class Entry:
    """An object in the cache."""

    uid: str
    version: str
    text: str
    """The trimmed object, without resourceVersion, as JSON."""
    users: tuple[JobKey, ...]
    """Jobs that the object belongs to, by its owner references or, without any, by its label."""
    controller: ObjectKey | None = None
    """Kind and name of the object that made this one, such as the Job of a pod."""
    labelled: JobKey | None = None
    """The job in its label."""
    wanted: bytes = b""
    """Digest of all of a job but its status."""
    publishes: str = ""
    """Name under which a job publishes its model."""
    has_ended: bool = False


@dataclass(frozen=True, slots=True)
class News:
    """An object of which something has changed that a decision may depend on."""

    kind: str
    namespace: str
    name: str
    users: tuple[JobKey, ...]
    controller: ObjectKey | None
    is_new_job: bool = False
    """True for a job that has had no pass."""


DEPARTED_S = 60.0
"""Seconds for which the end of a pod that is gone can be read: a pass follows its deletion within seconds."""
PUBLISHES = "publishes"
"""Word under which jobs are found by the names of their models."""
Place = tuple[str, str]
"""Kind and namespace."""


class Cache:
    """Objects by kind, namespace and name."""

    def __init__(self) -> None:
        self.served: frozenset[str] = frozenset()
        """The ``OPTIONAL_KINDS`` that the API server has."""
        self.awaiting_kinds: set[JobKey] = set()
        """Jobs that need one which it has not."""
        self._objects: dict[Place, dict[str, Entry]] = {}
        self._found: dict[tuple[str, str, str], dict[ObjectKey, None]] = {}
        self._retired: set[JobKey] = set()
        self._departed: dict[JobKey, dict[str, tuple[float, str]]] = {}

    # --- reading ---------------------------------------------------------------------------------

    def get(self, kind: str, namespace: str, name: str) -> Manifest | None:
        """An object; None if it is absent, or of no use to any job."""
        entry = self._objects.get((kind, namespace), {}).get(name)
        return _read(kind, entry) if entry is not None else None

    def wanted(self, key: JobKey) -> bytes:
        """Digest of all of a job but its status; empty if there is no such job."""
        entry = self._objects.get((key.kind, key.namespace), {}).get(key.name)
        return entry.wanted if entry is not None else b""

    def version(self, kind: str, namespace: str, name: str) -> str:
        """ResourceVersion of an object; empty if it is absent."""
        entry = self._objects.get((kind, namespace), {}).get(name)
        return entry.version if entry is not None else ""

    def names(self, kind: str, namespace: str) -> tuple[str, ...]:
        """Names of all objects of a kind in a namespace, in their order."""
        return tuple(sorted(self._objects.get((kind, namespace), ())))

    def jobs(self, namespace: str | None = None) -> Iterator[tuple[JobKey, bool]]:
        """All jobs of a namespace, or of all; with each, whether it has ended."""
        for (kind, where), entries in self._objects.items():
            if kind in JOB_KINDS and namespace in (None, where):
                for name, entry in entries.items():
                    yield JobKey(kind, where, name), entry.has_ended

    def of_job(self, key: JobKey) -> list[Manifest]:
        """Objects that belong to a job or bear its name in their label."""
        found: dict[ObjectKey, None] = {}
        for place in _places_of(key):
            found |= self._found.get(place, {})
        return self._read_all(key.namespace, found)

    def departed(self, key: JobKey) -> list[Manifest]:
        """Pods of a job that had ended when they were deleted, a short while ago.

        Kubernetes may delete a pod right after its worker has ended, before any pass could read what it said last.
        """
        self._forget_departed()
        return [json.loads(text) for _, text in self._departed.get(key, {}).values()]

    def publishing(self, namespace: str, name: str) -> tuple[Manifest, ...]:
        """The jobs of a namespace that publish a model of this name."""
        return tuple(self._read_all(namespace, self._found.get((namespace, PUBLISHES, name), {})))

    def made_by(self, namespace: str, kind: str, name: str) -> list[Manifest]:
        """Objects that another object has made, such as the pods of a Job."""
        return self._read_all(namespace, self._found.get((namespace, kind, name), {}))

    def users_of(self, namespace: str, key: ObjectKey) -> tuple[JobKey, ...]:
        """Jobs that an object belongs to."""
        entry = self._objects.get((key[0], namespace), {}).get(key[1])
        return entry.users if entry is not None else ()

    # --- writing ---------------------------------------------------------------------------------

    def put(self, kind: str, manifest: Manifest, *, is_needed: bool = False) -> News | None:
        """Take note of an object as the API server has it now.

        Args:
            kind: its kind.
            manifest: the object.
            is_needed: True: a job is about to use it, although all jobs that it belongs to have ended.

        Returns:
            None if no decision can depend on what has changed: an older version, a job of which only the status is
            another (we have written it), an object that has ended together with its jobs.
        """
        metadata = manifest["metadata"]
        namespace, name = metadata.get("namespace", ""), metadata["name"]
        before = self._objects.get((kind, namespace), {}).get(name)
        version = str(metadata.get("resourceVersion", ""))
        if before is not None:
            is_known = (before.uid, before.version) == (metadata["uid"], version)
            if is_known or _is_older(version, before.version):
                return None
        kept = trim(kind, manifest)
        entry = _make_entry(kind, kept, str(metadata["uid"]), version)
        if entry.has_ended:
            self._retired.add(JobKey(kind, namespace, name))
        elif not is_needed and self._is_of_no_use(kind, namespace, kept, entry):
            self._drop(kind, namespace, name)
            return None
        self._store(kind, namespace, name, entry)
        if before is not None and before.uid == entry.uid:
            same = before.wanted == entry.wanted if kind in JOB_KINDS else before.text == entry.text
            if same:
                return None
        is_new_job = kind in JOB_KINDS and is_new(kept)
        return News(kind, namespace, name, entry.users, entry.controller, is_new_job)

    def remove(
        self,
        kind: str,
        namespace: str,
        name: str,
        uid: str,
        version: str = "",
        last: Manifest | None = None,
    ) -> News | None:
        """Take note that an object has gone; None if another one of its name is there, or it was of no use.

        Args:
            kind: its kind.
            namespace: its namespace.
            name: its name.
            uid: its uid.
            version: resourceVersion of its deletion; empty = not known.
            last: the object as it was when it was deleted; None = not known.
        """
        entry = self._objects.get((kind, namespace), {}).get(name)
        if entry is None or entry.uid != uid or _is_older(version, entry.version):
            return None
        self._drop(kind, namespace, name)
        if kind == "Pod" and entry.labelled is not None and last is not None and is_over(last):
            self._forget_departed()
            text = _make_entry(kind, trim(kind, last), uid, version).text
            self._departed.setdefault(entry.labelled, {})[uid] = time.monotonic(), text
        if kind in JOB_KINDS:
            self._retired.discard(JobKey(kind, namespace, name))
        return News(kind, namespace, name, entry.users, entry.controller)

    def keep_only(
        self, kind: str, namespace: str | None, names: set[tuple[str, str]], version: str
    ) -> list[News]:
        """Take note of a complete list.

        Args:
            kind: its kind.
            namespace: the namespace that was listed; None = all.
            names: namespaces and names of the objects in it.
            version: resourceVersion of the list; what is newer stays.

        Returns:
            What has gone.
        """
        gone = [
            (where, name, entry)
            for (found, where), entries in self._objects.items()
            if found == kind and namespace in (None, where)
            for name, entry in entries.items()
            if (where, name) not in names and not _is_older(version, entry.version)
        ]
        news = (self.remove(kind, where, name, entry.uid) for where, name, entry in gone)
        return [one for one in news if one is not None]

    # --- jobs that have ended --------------------------------------------------------------------

    def retire(self, key: JobKey) -> None:
        """Forget the objects of a job that has ended, other than those that jobs share."""
        self._retired.add(key)
        for kind, name in list(self._found.get(_places_of(key)[1], {})):
            for made in list(self._found.get((key.namespace, kind, name), {})):
                self._drop(made[0], key.namespace, made[1])
            self._drop(kind, key.namespace, name)

    def is_retired(self, key: JobKey) -> bool:
        """True if objects of the job have been forgotten, or were never taken up because it had ended."""
        return key in self._retired

    def take_up(self, key: JobKey) -> None:
        """Take note that a job that had ended goes on, and that its objects are put into the cache anew."""
        self._retired.discard(key)

    def has_objects(self, key: JobKey) -> bool:
        """True if the cache has any object of a job, alone or with others."""
        return any(self._found.get(place) for place in _places_of(key))

    # --- inside ----------------------------------------------------------------------------------

    def _forget_departed(self) -> None:
        oldest = time.monotonic() - DEPARTED_S
        for key, pods in list(self._departed.items()):
            kept = {uid: one for uid, one in pods.items() if one[0] >= oldest}
            if kept:
                self._departed[key] = kept
            else:
                del self._departed[key]

    def _has_ended(self, key: JobKey) -> bool:
        entry = self._objects.get((key.kind, key.namespace), {}).get(key.name)
        return entry is not None and entry.has_ended

    def _is_of_no_use(self, kind: str, namespace: str, kept: Manifest, entry: Entry) -> bool:
        """True for an object that has ended, as have all jobs that it belongs to."""
        if kind in JOB_KINDS:
            return False
        if kind == "Workload":
            return "Finished" in conditions_of(kept)
        if not entry.labelled:  # shared: a job of tomorrow may use it, as long as its Job is there
            is_orphan = entry.controller is not None and not self._knows(
                namespace, entry.controller
            )
            return kind == "Pod" and is_over(kept) and is_orphan
        if kind != "Pod" or not is_over(kept):
            return False  # a job that has ended deletes its objects after a while
        return bool(entry.users) and all(map(self._has_ended, entry.users))

    def _knows(self, namespace: str, key: ObjectKey) -> bool:
        return key[1] in self._objects.get((key[0], namespace), {})

    def _read_all(self, namespace: str, keys: Iterable[ObjectKey]) -> list[Manifest]:
        return [_read(kind, self._objects[kind, namespace][name]) for kind, name in keys]

    def _store(self, kind: str, namespace: str, name: str, entry: Entry) -> None:
        self._drop(kind, namespace, name)
        self._objects.setdefault((intern(kind), intern(namespace)), {})[name] = entry
        for found in _index_keys(namespace, entry):
            self._found.setdefault(found, {})[kind, name] = None

    def _drop(self, kind: str, namespace: str, name: str) -> None:
        entry = self._objects.get((kind, namespace), {}).pop(name, None)
        if entry is None:
            return
        for found in _index_keys(namespace, entry):
            self._found[found].pop((kind, name), None)
            if not self._found[found]:
                del self._found[found]


def users_of(manifest: Manifest) -> tuple[JobKey, ...]:
    """Jobs that an object belongs to: those that own it, otherwise the one in its label."""
    metadata = manifest["metadata"]
    namespace = intern(metadata.get("namespace", ""))
    owners = tuple(
        JobKey(intern(owner["kind"]), namespace, owner["name"])
        for owner in metadata.get("ownerReferences") or ()
        if owner["kind"] in JOB_KINDS and owner["apiVersion"].startswith(f"{GROUP}/")
    )
    labelled = _labelled(manifest) if not owners else None
    return owners if labelled is None else (labelled,)


def _labelled(manifest: Manifest) -> JobKey | None:
    """The job in an object's label; None if it has no such label."""
    labels, namespace = labels_of(manifest), intern(manifest["metadata"].get("namespace", ""))
    for kind, label in JOB_LABELS.items():
        if name := labels.get(label):
            return JobKey(intern(kind), namespace, name)
    return None


def _places_of(key: JobKey) -> tuple[tuple[str, str, str], ...]:
    """Index entries under which the objects of a job are found: those that it owns, and those that bear its name."""
    return (key.namespace, key.kind, key.name), (key.namespace, JOB_LABELS[key.kind], key.name)


def _controller_of(manifest: Manifest) -> ObjectKey | None:
    for owner in manifest["metadata"].get("ownerReferences") or ():
        if owner.get("controller") and owner["kind"] not in JOB_KINDS:
            return intern(owner["kind"]), owner["name"]
    return None


def _make_entry(kind: str, kept: Manifest, uid: str, version: str) -> Entry:
    text = json.dumps(kept, separators=(",", ":"), ensure_ascii=False)
    if kind not in JOB_KINDS:
        return Entry(uid, version, text, users_of(kept), _controller_of(kept), _labelled(kept))
    metadata = kept["metadata"]
    key = JobKey(intern(kind), intern(metadata.get("namespace", "")), metadata["name"])
    wanted = {name: value for name, value in kept.items() if name != "status"}
    digest = blake2b(json.dumps(wanted, sort_keys=True).encode(), digest_size=16).digest()
    publishes = published_name(kept) if kind == KIND else ""
    return Entry(
        uid, version, text, (key,), wanted=digest, publishes=publishes, has_ended=has_ended(kept)
    )


def published_name(job: Manifest) -> str:
    """Name under which a PostTrainingJob publishes its model."""
    outputs = (job.get("spec") or {}).get("outputs") or {}
    return str(outputs.get("name") or job["metadata"]["name"])


def _read(kind: str, entry: Entry) -> Manifest:
    manifest: Manifest = json.loads(entry.text)
    manifest["kind"] = kind
    manifest["metadata"]["resourceVersion"] = entry.version
    return manifest


def _index_keys(namespace: str, entry: Entry) -> Iterator[tuple[str, str, str]]:
    """The index entries of an object other than a job: its jobs, its label, the object that made it."""
    if entry.publishes:
        yield namespace, PUBLISHES, entry.publishes
    if entry.wanted:
        return
    for key in entry.users:
        yield namespace, key.kind, key.name
    if entry.labelled is not None:
        yield namespace, JOB_LABELS[entry.labelled.kind], entry.labelled.name
    if entry.controller is not None:
        yield namespace, *entry.controller


def _is_older(version: str, other: str) -> bool:
    """True if a resourceVersion is certainly older than another; they are numbers that grow."""
    return version.isdecimal() and other.isdecimal() and int(version) < int(other)
