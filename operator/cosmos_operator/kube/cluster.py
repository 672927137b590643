"""The operator's requests on a real API server: each is a path, a body, and the meaning of the answers.

Every answer of the server becomes a value, ``ClusterUnavailable`` or ``Refused`` here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from time import monotonic
from urllib.parse import quote

from cosmos_operator.errors import ClusterUnavailable
from cosmos_operator.kube.client import JSON, Answer, Client, Connection, Query, load_configuration
from cosmos_operator.kube.kinds import KINDS, OPTIONAL_KINDS, Manifest, Resource
from cosmos_operator.kube.protocol import FIELD_MANAGER

LOG_TIMEOUT_S = 10.0
"""Longest time that reading a log may take: it comes from a node, which may be gone."""
MAX_LOG_BYTES = 4 * 1024 * 1024
PAGE_SIZE = 500
"""Objects that one request lists; a longer list takes several."""
DISCOVERY_TTL_S = 30.0
"""Seconds for which the list of served kinds is reused before it is asked for again."""

OTHER_VERSIONS = {"LocalQueue": ("v1beta1",), "Workload": ("v1beta1",)}
"""Versions to try where the one in ``KINDS`` is not served; the fields that we read are the same in them."""

APPLY = "application/apply-patch+yaml"
STRATEGIC_MERGE = "application/strategic-merge-patch+json"
METADATA_ONLY = f"{JSON};as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,{JSON}"

Manifests = list[Manifest]


async def connect(kubeconfig: Path | None) -> KubeCluster:
    """The cluster of a kubeconfig, or the default one, see :func:`load_configuration`.

    Raises:
        InvalidSpec: no credentials.
    """
    return KubeCluster(Client(await load_configuration(kubeconfig)))


class KubeCluster:
    """The protocol ``Cluster`` on a real API server, with a few requests more."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._served: dict[str, Resource] = {}
        self._served_until = 0.0
        self._discovery = asyncio.Lock()

    async def close(self) -> None:
        """Close all connections."""
        await self._client.close()

    async def connection(self) -> Connection:
        """Address and credentials of the same API server for the same user, for another client."""
        return await self._client.connection()

    # --- the protocol --------------------------------------------------------------------------

    async def get(self, kind: str, namespace: str | None, name: str) -> Manifest | None:
        """An object, or None if it is absent or its kind is not served."""
        resource = await self._resource(kind)
        if resource is None:
            return None
        answer = await self._client.request("GET", _path(resource, namespace, name))
        if answer.status == 404:
            return None
        return answer.read(f"get {kind} {namespace}/{name}")

    async def list(
        self,
        kind: str,
        namespace: str | None,
        labels: Mapping[str, str] | None = None,
        fields: str = "",
    ) -> list[Manifest]:
        """All objects with these labels; empty if the kind is not served."""
        return await self._list(kind, namespace, labels, fields, JSON)

    async def create(self, manifest: Manifest) -> bool:
        """Create an object; False if one of that name exists already."""
        answer = await self._post(manifest)
        if answer.status == 409 and answer.reason == "AlreadyExists":
            return False
        answer.read(f"create {_title(manifest)}")
        return True

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
            _path(KINDS[kind], namespace, name),
            query=(("fieldManager", FIELD_MANAGER),),
            body={"metadata": {**seen, "ownerReferences": [owner]}},
            content_type=STRATEGIC_MERGE,
        )
        is_another = answer.status == 422 and "metadata.uid" in answer.message
        if answer.status in (404, 409) or is_another:  # the next pass sees what is there now
            return None
        return answer.read(f"change the owners of {kind} {namespace}/{name}")

    async def delete(
        self,
        kind: str,
        namespace: str,
        name: str,
        uid: str,
        *,
        foreground: bool,
        resource_version: str = "",
    ) -> None:
        """Delete the object with this uid, and in this version if one is given; nothing happens if it is gone."""
        resource = await self._resource(kind)
        if resource is None:
            return
        seen = {"uid": uid} | ({"resourceVersion": resource_version} if resource_version else {})
        answer = await self._client.request(
            "DELETE",
            _path(resource, namespace, name),
            body={
                "apiVersion": "v1",
                "kind": "DeleteOptions",
                "preconditions": seen,
                "propagationPolicy": "Foreground" if foreground else "Background",
            },
        )
        is_another = answer.status == 409 and "precondition" in answer.message.lower()
        if answer.status != 404 and not is_another:
            answer.read(f"delete {kind} {namespace}/{name}")

    async def apply_status(self, manifest: Manifest) -> None:
        """Replace the status of a PostTrainingJob by server-side apply."""
        answer = await self._client.request(
            "PATCH",
            f"{_path_of(manifest)}/status",
            query=(("fieldManager", FIELD_MANAGER), ("force", "true")),
            body=manifest,
            content_type=APPLY,
        )
        answer.read(f"write the status of {_title(manifest)}")

    async def create_event(self, manifest: Manifest) -> None:
        """Create an Event; nothing happens if one of that name exists already."""
        await self.create(manifest)

    async def read_log(
        self, namespace: str, pod: str, container: str, tail_lines: int
    ) -> str | None:
        """The last lines of a container's log; None if there is no log yet, or no longer.

        A node that does not answer has no log either: its pod's status says what became of it.
        """
        answer = await self._client.request(
            "GET",
            f"{_path(KINDS['Pod'], namespace, pod)}/log",
            query=(
                ("container", container),
                ("tailLines", str(tail_lines)),
                ("limitBytes", str(MAX_LOG_BYTES)),
            ),
            accept="*/*",
            timeout_s=LOG_TIMEOUT_S,
            timeout_status=504,
        )
        if answer.status in (400, 404) or answer.status >= 500:
            return None
        if not answer.is_success:
            raise answer.error(f"read the log of pod {namespace}/{pod}")
        return answer.data.decode(errors="replace")

    async def served(self) -> frozenset[str]:
        """The ``OPTIONAL_KINDS`` that the API server has now; asked for at most every ``DISCOVERY_TTL_S``."""
        async with self._discovery:
            if monotonic() >= self._served_until:
                self._served = await self._discover(OPTIONAL_KINDS)
                self._served_until = monotonic() + DISCOVERY_TTL_S
            return frozenset(self._served)

    async def dry_run(self, manifest: Manifest) -> Manifest:
        """Create an object without storing it; returns the object as the API server would store it."""
        answer = await self._post(manifest, (("dryRun", "All"),))
        return answer.read(f"create (dry run) {_title(manifest)}")

    # --- beside the protocol -------------------------------------------------------------------

    async def serving(self, kinds: Iterable[str]) -> frozenset[str]:
        """Those of the given kinds that the API server has now; asked for at each call."""
        return frozenset(await self._discover(kinds))

    async def list_metadata(
        self, kind: str, namespace: str | None, labels: Mapping[str, str] | None = None
    ) -> Manifests:
        """All objects with these labels, without spec and status where the server can omit them."""
        return await self._list(kind, namespace, labels, "", METADATA_ONLY)

    async def replace(self, manifest: Manifest) -> bool:
        """Replace an object; False if it is gone or is no longer at this resourceVersion."""
        answer = await self._client.request("PUT", _path_of(manifest), body=manifest)
        if answer.status in (404, 409):
            return False
        answer.read(f"replace {_title(manifest)}")
        return True

    async def may(self, attributes: Mapping[str, str]) -> bool:
        """True if our account may do what these ``resourceAttributes`` of a SelfSubjectAccessReview describe."""
        answer = await self._client.request(
            "POST",
            "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
            body={
                "apiVersion": "authorization.k8s.io/v1",
                "kind": "SelfSubjectAccessReview",
                "spec": {"resourceAttributes": dict(attributes)},
            },
        )
        return answer.read("review our access").get("status", {}).get("allowed") is True

    # --- parts of requests -----------------------------------------------------------------------

    async def _resource(self, kind: str) -> Resource | None:
        """Path of a kind on this server; None if it is an optional kind that is not served."""
        if kind not in OPTIONAL_KINDS:
            return KINDS[kind]
        await self.served()
        return self._served.get(kind)

    async def _discover(self, kinds: Iterable[str]) -> dict[str, Resource]:
        answers: dict[str, set[str]] = {}
        found: dict[str, Resource] = {}
        for kind in kinds:
            first = KINDS[kind]
            for version in (first.version, *OTHER_VERSIONS.get(kind, ())):
                resource = replace(first, version=version)
                if resource.api_version not in answers:
                    answers[resource.api_version] = await self._plurals(resource)
                if resource.plural in answers[resource.api_version]:
                    found[kind] = resource
                    break
        return found

    async def _plurals(self, resource: Resource) -> set[str]:
        answer = await self._client.request("GET", _root(resource))
        if answer.status == 404:
            return set()
        document = answer.read(f"list what {resource.api_version} serves")
        return {entry.get("name", "") for entry in document.get("resources") or ()}

    async def _list(
        self,
        kind: str,
        namespace: str | None,
        labels: Mapping[str, str] | None,
        fields: str,
        accept: str,
    ) -> Manifests:
        resource = await self._resource(kind)
        if resource is None:
            return []
        query: Query = (("limit", str(PAGE_SIZE)),)
        if labels:
            query += (("labelSelector", ",".join(f"{k}={v}" for k, v in labels.items())),)
        if fields:
            query += (("fieldSelector", fields),)
        items: Manifests = []
        token = ""
        while True:
            page: Query = (("continue", token),) if token else ()
            answer = await self._client.request(
                "GET", _path(resource, namespace), query=query + page, accept=accept
            )
            if answer.status == 404:
                return []
            if answer.status == 410:  # the list is older than what the server remembers
                raise ClusterUnavailable(f"list {kind}: {answer.message}")
            document = answer.read(f"list {kind}")
            items += document.get("items") or ()
            token = (document.get("metadata") or {}).get("continue", "")
            if not token:
                break
        for item in items:  # items of built-in kinds come without the two
            item["apiVersion"], item["kind"] = resource.api_version, kind
        return items

    async def _post(self, manifest: Manifest, query: Query = ()) -> Answer:
        query = (("fieldManager", FIELD_MANAGER), *query)
        return await self._client.request("POST", _path_of(manifest, named=False), query, manifest)


def _root(resource: Resource) -> str:
    return f"/{'apis' if resource.group else 'api'}/{resource.api_version}"


def _path(resource: Resource, namespace: str | None, name: str | None = None) -> str:
    parts = [_root(resource)]
    if namespace is not None and resource.namespaced:
        parts += ["namespaces", quote(namespace, safe="")]
    parts.append(resource.plural)
    if name is not None:
        parts.append(quote(name, safe=""))
    return "/".join(parts)


def _path_of(manifest: Manifest, *, named: bool = True) -> str:
    """Path of an object, in the API version of its manifest."""
    resource = KINDS[manifest["kind"]]
    group, _, version = manifest["apiVersion"].rpartition("/")
    resource = replace(resource, group=group, version=version)
    metadata = manifest["metadata"]
    return _path(resource, metadata.get("namespace"), metadata["name"] if named else None)


def _title(manifest: Manifest) -> str:
    metadata = manifest.get("metadata", {})
    return f"{manifest.get('kind')} {metadata.get('namespace', '')}/{metadata.get('name', '')}"
