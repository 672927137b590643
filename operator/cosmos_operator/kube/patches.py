"""Requests that change a part of an object: its owners, its annotations, a part of its status."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping

from cosmos_operator.kube.client import Answer, Client
from cosmos_operator.kube.kinds import KINDS, Manifest, Resource
from cosmos_operator.kube.paths import object_path
from cosmos_operator.kube.protocol import FIELD_MANAGER

MERGE = "application/merge-patch+json"
STRATEGIC_MERGE = "application/strategic-merge-patch+json"


class Patches:
    """Part of a cluster: the requests that patch objects."""

    _client: Client

    @abstractmethod
    async def _resource(self, kind: str) -> Resource | None:
        """Path of a kind on this server; None if it is an optional kind that is not served."""

    async def add_owner(
        self, kind: str, namespace: str, name: str, owner: Manifest, *, uid: str
    ) -> Manifest | None:
        """Add an owner reference to the object of a built-in kind with this uid; None if it is gone."""
        return await self._patch_owners(kind, namespace, name, owner, {"uid": uid} if uid else {})

    async def remove_owner(
        self,
        kind: str,
        namespace: str,
        name: str,
        owner_uid: str,
        *,
        uid: str,
        resource_version: str,
    ) -> Manifest | None:
        """Remove an owner reference of an object; None if it is gone or has another version now."""
        gone = {"$patch": "delete", "uid": owner_uid}
        seen = {"uid": uid, "resourceVersion": resource_version}
        return await self._patch_owners(kind, namespace, name, gone, seen)

    async def _patch_owners(
        self, kind: str, namespace: str, name: str, owner: Manifest, seen: Mapping[str, str]
    ) -> Manifest | None:
        answer = await self._client.request(
            "PATCH",
            object_path(KINDS[kind], namespace, name),
            query=(("fieldManager", FIELD_MANAGER),),
            body={"metadata": {**seen, "ownerReferences": [owner]}},
            content_type=STRATEGIC_MERGE,
        )
        if answer.status in (404, 409) or _is_another(answer):  # the next pass sees what is there
            return None
        return answer.read(f"change the owners of {kind} {namespace}/{name}")

    async def merge(
        self, kind: str, namespace: str, name: str, changes: Manifest
    ) -> Manifest | None:
        """Merge into an object; returns it as it is now, or None if it is gone or has another uid than the changes."""
        return await self._patch(kind, namespace, name, changes)

    async def annotate(
        self, kind: str, namespace: str, name: str, annotations: Mapping[str, str], *, uid: str
    ) -> Manifest | None:
        """Set annotations of the object with this uid; None if it is gone."""
        metadata = {"uid": uid, "annotations": dict(annotations)}
        return await self._patch(kind, namespace, name, {"metadata": metadata})

    async def report_progress(
        self, kind: str, namespace: str, name: str, trainer_status: Manifest, *, uid: str
    ) -> None:
        """Write ``status.trainerStatus`` of the TrainJob with this uid; nothing happens if it is gone."""
        body = {"metadata": {"uid": uid}, "status": {"trainerStatus": trainer_status}}
        await self._patch(kind, namespace, name, body, "/status")

    async def _patch(
        self, kind: str, namespace: str, name: str, body: Manifest, subresource: str = ""
    ) -> Manifest | None:
        """Merge into an object; None if it, or its kind, is gone or another one has its name."""
        resource = await self._resource(kind)
        if resource is None:
            return None
        answer = await self._client.request(
            "PATCH",
            object_path(resource, namespace, name) + subresource,
            query=(("fieldManager", FIELD_MANAGER),),
            body=body,
            content_type=MERGE,
        )
        if answer.status in (404, 409) or _is_another(answer):
            return None
        return answer.read(f"change {kind} {namespace}/{name}")


def _is_another(answer: Answer) -> bool:
    """True if the object has another uid than the one that was to be changed."""
    return answer.status == 422 and "metadata.uid" in answer.message
