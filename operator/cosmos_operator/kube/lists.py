"""Lists and watches of one kind: pages of objects, then every change as it happens."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

from cosmos_operator.errors import ClusterUnavailable, Refused
from cosmos_operator.kube.client import JSON, Client, Query
from cosmos_operator.kube.kinds import Manifest

PAGE_SIZE = 100
"""Objects that one request lists; a longer list takes several. All of a page are in memory at a time."""
WATCH_S = 300
"""Longest time that the API server keeps a watch open, in seconds; then it is begun again where it ended."""
SILENCE_S = 90.0
"""Seconds without a word after which a watch is begun again; the API server sends a bookmark once a minute."""

METADATA_LIST = f"{JSON};as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,{JSON}"
METADATA = f"{JSON};as=PartialObjectMetadata;g=meta.k8s.io;v=v1,{JSON}"


@dataclass(frozen=True)
class Page:
    """A part of a list."""

    items: list[Manifest]
    version: str
    """resourceVersion of the whole list, from which a watch goes on."""


@dataclass(frozen=True)
class Change:
    """An event of a watch."""

    type: str
    """ADDED, MODIFIED, DELETED or BOOKMARK."""
    body: Manifest

    @property
    def version(self) -> str:
        """The resourceVersion from which the watch goes on after this event."""
        return str(self.body["metadata"]["resourceVersion"])


class WatchExpired(ClusterUnavailable):
    """The API server no longer knows what has changed since the version; list again."""


@dataclass(frozen=True)
class Selection:
    """The objects of one kind that a list or a watch is about."""

    path: str
    labels: Mapping[str, str]
    fields: str = ""
    metadata_only: bool = False
    """True: spec and status are left out where the server can omit them."""

    @property
    def query(self) -> Query:
        """The selectors as a query."""
        query: Query = ()
        if self.labels:
            query += (("labelSelector", ",".join(f"{k}={v}" for k, v in self.labels.items())),)
        if self.fields:
            query += (("fieldSelector", self.fields),)
        return query


async def read_pages(client: Client, selection: Selection) -> AsyncIterator[Page]:
    """All objects of a selection, page by page; no page if the kind is not served.

    Raises:
        ClusterUnavailable: try again later.
        Refused: our account may not list them.
    """
    query: Query = (("limit", str(PAGE_SIZE)), *selection.query)
    accept = METADATA_LIST if selection.metadata_only else JSON
    token = ""
    while True:
        page: Query = (("continue", token),) if token else ()
        answer = await client.request("GET", selection.path, query=query + page, accept=accept)
        if answer.status == 404:
            return
        if answer.status == 410:  # the list is older than what the server remembers
            raise ClusterUnavailable(f"list {selection.path}: {answer.message}")
        document = answer.read(f"list {selection.path}")
        metadata = document.get("metadata") or {}
        yield Page(list(document.get("items") or ()), str(metadata.get("resourceVersion", "")))
        token = metadata.get("continue", "")
        if not token:
            return


async def read_changes(client: Client, selection: Selection, version: str) -> AsyncIterator[Change]:
    """Changes in a selection after a version, until the API server ends the watch or falls silent.

    Raises:
        WatchExpired: list again.
        ClusterUnavailable: try again later.
        Refused: our account may not watch them.
    """
    query: Query = (
        ("watch", "true"),
        ("allowWatchBookmarks", "true"),
        ("resourceVersion", version),
        ("timeoutSeconds", str(WATCH_S)),
        *selection.query,
    )
    accept = METADATA if selection.metadata_only else JSON
    try:
        async for event in client.stream(selection.path, query, accept=accept, silence_s=SILENCE_S):
            body = event["object"]
            if event["type"] == "ERROR":
                raise Refused(int(body.get("code", 500)), str(body.get("message", "")))
            yield Change(str(event["type"]), body)
    except Refused as error:
        if error.status == 410:
            raise WatchExpired(f"watch {selection.path}: {error.message}") from None
        if error.status >= 500:
            raise ClusterUnavailable(f"watch {selection.path}: {error.message}") from None
        raise
