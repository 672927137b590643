"""Groups, versions and kinds that the API server serves, in one request where it can tell."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from cosmos_operator.kube.client import JSON, Client
from cosmos_operator.kube.kinds import Manifest, Resource
from cosmos_operator.kube.paths import root_path

ALL_AT_ONCE = f"{JSON};g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,{JSON}"
"""Media types of the groups with their kinds (Kubernetes 1.30 and later), else of the groups alone."""


async def discover(
    client: Client, candidates: Iterable[tuple[str, Resource]]
) -> dict[str, Resource]:
    """Of each kind, the first resource that the API server has.

    Args:
        client: the API server.
        candidates: kinds and resources, the best of each kind first.

    Raises:
        ClusterUnavailable: try again later.
        Refused: our account may not read them.
    """
    offer = await _read_offer(client)
    found: dict[str, Resource] = {}
    for kind, resource in candidates:
        if kind not in found and resource.plural in await _plurals(client, offer, resource):
            found[kind] = resource
    return found


@dataclass
class _Offer:
    """The groups and kinds that the API server has told of."""

    versions: set[str] | None = None
    """Groups with their versions; None = the server does not list them."""
    plurals: dict[str, set[str]] = field(default_factory=dict)
    """Group and version → plurals of its kinds, as far as they are known."""


async def _read_offer(client: Client) -> _Offer:
    answer = await client.request("GET", "/apis", accept=ALL_AT_ONCE)
    if answer.status == 404:
        return _Offer()
    document = answer.read("list the API groups")
    if document.get("kind") == "APIGroupDiscoveryList":
        plurals = _read_plurals(document)
        return _Offer(set(plurals), plurals)
    groups = document.get("groups") or ()
    return _Offer({one["groupVersion"] for group in groups for one in group.get("versions") or ()})


def _read_plurals(document: Manifest) -> dict[str, set[str]]:
    return {
        f"{group['metadata']['name']}/{one['version']}": {
            entry["resource"] for entry in one.get("resources") or ()
        }
        for group in document.get("items") or ()
        for one in group.get("versions") or ()
    }


async def _plurals(client: Client, offer: _Offer, resource: Resource) -> set[str]:
    """Plurals of the kinds in the group and version of a resource."""
    version = resource.api_version
    if offer.versions is not None and version not in offer.versions:
        return set()
    if version not in offer.plurals:
        answer = await client.request("GET", root_path(resource))
        document = {} if answer.status == 404 else answer.read(f"list what {version} serves")
        entries = document.get("resources") or ()
        offer.plurals[version] = {entry.get("name", "") for entry in entries}
    return offer.plurals[version]
