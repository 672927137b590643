"""The operator's requests on a real API server: each is a path, a body, and the meaning of the answers.

Every answer of the server becomes a value, ``ClusterUnavailable`` or ``Refused`` here.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import aclosing
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from time import monotonic

from cosmos_operator.errors import Refused
from cosmos_operator.kube.client import Answer, Client, Connection, Query, load_configuration
from cosmos_operator.kube.discovery import discover
from cosmos_operator.kube.kinds import KINDS, OPTIONAL_KINDS, Manifest, Resource
from cosmos_operator.kube.lists import (
    Change,
    Page,
    Selection,
    read_changes,
    read_pages,
)
from cosmos_operator.kube.patches import Patches
from cosmos_operator.kube.paths import object_path, path_of, title_of
from cosmos_operator.kube.protocol import FIELD_MANAGER
from cosmos_operator.kube.schemas import read_schema

LOG_TIMEOUT_S = 10.0
"""Longest time that reading a log may take: it comes from a node, which may be gone."""
MAX_LOG_BYTES = 4 * 1024 * 1024
DISCOVERY_TTL_S = 120.0
"""Seconds for which the list of served kinds is reused before it is asked for again."""

OTHER_VERSIONS = {"LocalQueue": ("v1beta1",), "Workload": ("v1beta1",)}
"""Versions to try where the one in ``KINDS`` is not served; the fields that we read are the same in them."""

APPLY = "application/apply-patch+yaml"

Manifests = list[Manifest]


async def connect(kubeconfig: Path | None, context: str | None = None) -> KubeCluster:
    """The cluster of a kubeconfig, or the default one, see :func:`load_configuration`.

    Raises:
        InvalidSpec: no credentials.
    """
    return KubeCluster(Client(await load_configuration(kubeconfig, context)))


class KubeCluster(Patches):
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

    def now(self) -> datetime:
        """The time of the API server, in UTC."""
        return self._client.clock.now()

    # --- the protocol --------------------------------------------------------------------------

    async def get(self, kind: str, namespace: str | None, name: str) -> Manifest | None:
        """An object, or None if it is absent or its kind is not served."""
        resource = await self._resource(kind)
        if resource is None:
            return None
        answer = await self._client.request("GET", object_path(resource, namespace, name))
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
        pages = self.pages(kind, namespace, labels, fields)
        return [item async for page in pages for item in page.items]

    async def create(self, manifest: Manifest) -> Manifest | None:
        """Create an object; None if one of that name exists already."""
        answer = await self._post(manifest)
        if answer.status == 409 and answer.reason == "AlreadyExists":
            return None
        if answer.status == 500:  # an admission plugin or a webhook fails: people must hear of it
            raise Refused(answer.status, answer.message)
        return answer.read(f"create {title_of(manifest)}")

    async def delete(
        self,
        kind: str,
        namespace: str,
        name: str,
        uid: str,
        *,
        foreground: bool,
        resource_version: str = "",
    ) -> Manifest | None:
        """Delete the object with this uid, and in this version if one is given; nothing happens if it is gone."""
        resource = await self._resource(kind)
        if resource is None:
            return None
        seen = {"uid": uid} | ({"resourceVersion": resource_version} if resource_version else {})
        answer = await self._client.request(
            "DELETE",
            object_path(resource, namespace, name),
            body={
                "apiVersion": "v1",
                "kind": "DeleteOptions",
                "preconditions": seen,
                "propagationPolicy": "Foreground" if foreground else "Background",
            },
        )
        is_another = answer.status == 409 and "precondition" in answer.message.lower()
        if answer.status == 404 or is_another:
            return None
        left = answer.read(f"delete {kind} {namespace}/{name}")
        return left if left.get("kind") == kind else None

    async def apply_status(self, manifest: Manifest) -> Manifest:
        """Replace the status of a job by server-side apply; a newer resourceVersion there is a conflict."""
        answer = await self._client.request(
            "PATCH",
            f"{path_of(manifest)}/status",
            query=(("fieldManager", FIELD_MANAGER), ("force", "true")),
            body=manifest,
            content_type=APPLY,
        )
        return answer.read(f"write the status of {title_of(manifest)}")

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
            f"{object_path(KINDS['Pod'], namespace, pod)}/log",
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

    async def follow_log(
        self, namespace: str, pod: str, container: str, query: Query, silence_s: float
    ) -> AsyncIterator[str]:
        """The lines of a container's log, until it has ended or the query's end, or says nothing for so long.

        Raises:
            ClusterUnavailable: no answer, or no connection.
            Refused: there is no log yet, or no longer.
        """
        path = f"{object_path(KINDS['Pod'], namespace, pod)}/log"
        lines = self._client.lines(
            path,
            (("container", container), *query),
            accept="*/*",
            silence_s=silence_s,
            with_rest=True,
        )
        async with aclosing(lines):
            async for line in lines:
                yield line.decode(errors="replace")

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
        return answer.read(f"create (dry run) {title_of(manifest)}")

    async def served_schema(self, kind: str) -> Manifest | None:
        """The schema of a kind as the API server has it; None if it does not tell."""
        return await read_schema(self._client, kind)

    # --- beside the protocol -------------------------------------------------------------------

    async def serving(self, kinds: Iterable[str]) -> frozenset[str]:
        """Those of the given kinds that the API server has now; asked for at each call."""
        found = await self._discover({*kinds, *OPTIONAL_KINDS})
        self._served = {kind: found[kind] for kind in OPTIONAL_KINDS if kind in found}
        self._served_until = monotonic() + DISCOVERY_TTL_S
        return frozenset(kinds) & frozenset(found)

    async def list_metadata(
        self, kind: str, namespace: str | None, labels: Mapping[str, str] | None = None
    ) -> Manifests:
        """All objects with these labels, without spec and status where the server can omit them."""
        pages = self.pages(kind, namespace, labels, metadata_only=True)
        return [item async for page in pages for item in page.items]

    async def pages(
        self,
        kind: str,
        namespace: str | None,
        labels: Mapping[str, str] | None = None,
        fields: str = "",
        *,
        metadata_only: bool = False,
    ) -> AsyncIterator[Page]:
        """All objects with these labels, page by page; no page if the kind is not served."""
        resource = await self._resource(kind)
        if resource is None:
            return
        path = object_path(resource, namespace)
        selection = Selection(path, labels or {}, fields, metadata_only)
        async for page in read_pages(self._client, selection):
            for item in page.items:  # items of built-in kinds come without the two
                item["apiVersion"], item["kind"] = resource.api_version, kind
            yield page

    async def changes(
        self,
        kind: str,
        namespace: str | None,
        labels: Mapping[str, str],
        version: str,
        *,
        metadata_only: bool = False,
    ) -> AsyncIterator[Change]:
        """Changes after this resourceVersion, until the API server ends the watch; see ``read_changes``."""
        resource = await self._resource(kind)
        if resource is None:
            return
        selection = Selection(object_path(resource, namespace), labels, "", metadata_only)
        async for change in read_changes(self._client, selection, version):
            change.body["apiVersion"], change.body["kind"] = resource.api_version, kind
            yield change

    async def replace(self, manifest: Manifest) -> Manifest | None:
        """Replace an object; None if it is gone or is no longer at this resourceVersion."""
        answer = await self._client.request("PUT", path_of(manifest), body=manifest)
        if answer.status in (404, 409):
            return None
        return answer.read(f"replace {title_of(manifest)}")

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
        candidates = (
            (kind, replace(KINDS[kind], version=version))
            for kind in kinds
            for version in (KINDS[kind].version, *OTHER_VERSIONS.get(kind, ()))
        )
        return await discover(self._client, candidates)

    async def _post(self, manifest: Manifest, query: Query = ()) -> Answer:
        query = (("fieldManager", FIELD_MANAGER), *query)
        return await self._client.request("POST", path_of(manifest, named=False), query, manifest)
