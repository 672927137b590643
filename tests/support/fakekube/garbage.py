"""The garbage collector: deletes objects without owners, in the order of the propagation policy; empties namespaces."""

from __future__ import annotations

import copy
from collections.abc import Iterator

from support.fakekube.resources import CRDS, Object, Resource
from support.fakekube.store import FOREGROUND, ORPHAN, Event
from support.fakekube.world import Controller, Key, World


class GarbageCollector(Controller):
    """Keys are (resource, namespace/name)."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._gone_namespaces: set[str] = set()

    def keys(self, event: Event) -> Iterator[Key]:
        """The object itself, and all that it owns or that owns it."""
        yield _key(event.resource, event.obj)
        uid = event.obj["metadata"]["uid"]
        owners = {ref["uid"] for ref in event.obj["metadata"].get("ownerReferences", ())}
        is_going = event.type == "DELETED" or "deletionTimestamp" in event.obj["metadata"]
        if is_going:
            for resource, obj in self.store.everything():
                references = obj["metadata"].get("ownerReferences", ())
                if obj["metadata"]["uid"] in owners or any(ref["uid"] == uid for ref in references):
                    yield _key(resource, obj)
        if event.resource.key == "namespaces" and is_going:
            self._gone_namespaces.add(event.obj["metadata"]["name"])
        namespace = event.obj["metadata"].get("namespace", "")
        if event.type == "DELETED" and namespace in self._gone_namespaces:
            yield "namespaces", f"/{namespace}"

    def sync(self, key: Key) -> None:
        """Look at one object."""
        resource_key, full_name = key
        namespace, _, name = full_name.partition("/")
        obj = self.store.find(resource_key, namespace, name)
        if obj is None or resource_key == CRDS:
            return
        meta = obj["metadata"]
        if resource_key == "namespaces" and "deletionTimestamp" in meta:
            self._empty_namespace(obj)
            return
        finalizers = meta.get("finalizers", [])
        if ORPHAN in finalizers:
            self._orphan(obj)
            self.store.release(resource_key, obj, ORPHAN)
        elif FOREGROUND in finalizers:
            self._delete_dependents(resource_key, obj)
        elif meta.get("ownerReferences"):
            self._check_owners(resource_key, obj)

    def _dependents(self, owner: Object) -> list[tuple[Resource, Object, Object]]:
        uid = owner["metadata"]["uid"]
        return [
            (resource, obj, ref)
            for resource, obj in self.store.everything()
            for ref in obj["metadata"].get("ownerReferences", ())
            if ref["uid"] == uid
        ]

    def _orphan(self, owner: Object) -> None:
        for resource, obj, ref in self._dependents(owner):
            self._drop_owners(resource.key, obj, [ref["uid"]])

    def _delete_dependents(self, resource_key: str, owner: Object) -> None:
        """Foreground: dependents go first; the owner waits for those that block it."""
        is_blocked = False
        for resource, obj, ref in self._dependents(owner):
            self._check_owners(resource.key, obj)
            is_blocked |= bool(ref.get("blockOwnerDeletion"))
        if not is_blocked or not any(
            r.get("blockOwnerDeletion") for _, _, r in self._dependents(owner)
        ):
            self.store.release(resource_key, owner, FOREGROUND)

    def _check_owners(self, resource_key: str, obj: Object) -> None:
        """Delete an object without owners; where some are left, forget the others."""
        meta = obj["metadata"]
        solid, dangling, waiting = [], [], []
        for ref in meta.get("ownerReferences", ()):
            owner = self._find_owner(meta.get("namespace"), ref)
            if owner is None:
                dangling.append(ref["uid"])
            elif (
                FOREGROUND in owner["metadata"].get("finalizers", [])
                and "deletionTimestamp" in owner["metadata"]
            ):
                waiting.append(ref["uid"])
            else:
                solid.append(ref["uid"])
        if solid:
            if dangling or waiting:
                self._drop_owners(resource_key, obj, dangling + waiting)
        elif "deletionTimestamp" not in meta:
            policy = "Foreground" if waiting and self._dependents(obj) else "Background"
            self.store.delete(
                resource_key,
                meta.get("namespace"),
                meta["name"],
                uid=meta["uid"],
                propagation=policy,
            )

    def _find_owner(self, namespace: str | None, ref: Object) -> Object | None:
        group = ref["apiVersion"].rpartition("/")[0]
        for resource in self.store.resources.values():
            if (resource.group, resource.kind) == (group, ref["kind"]):
                scope = namespace if resource.namespaced else None
                owner = self.store.find(resource.key, scope, ref["name"])
                return (
                    owner if owner is not None and owner["metadata"]["uid"] == ref["uid"] else None
                )
        return None

    def _drop_owners(self, resource_key: str, obj: Object, uids: list[str]) -> None:
        new = copy.deepcopy(obj)
        left = [ref for ref in new["metadata"]["ownerReferences"] if ref["uid"] not in uids]
        new["metadata"]["ownerReferences"] = left
        if not left:
            del new["metadata"]["ownerReferences"]
        self.store.update(resource_key, new)

    def _empty_namespace(self, namespace: Object) -> None:
        name = namespace["metadata"]["name"]
        contents = [
            (resource.key, obj)
            for resource, obj in self.store.everything()
            if obj["metadata"].get("namespace") == name
        ]
        for key, obj in contents:
            if "deletionTimestamp" not in obj["metadata"]:
                self.store.delete(key, name, obj["metadata"]["name"], propagation="Background")
        if any(obj["metadata"].get("namespace") == name for _, obj in self.store.everything()):
            return
        self.store.remove(self.store.resource("namespaces"), copy.deepcopy(namespace))


def _key(resource: Resource, obj: Object) -> Key:
    meta = obj["metadata"]
    return resource.key, f"{meta.get('namespace') or ''}/{meta['name']}"
