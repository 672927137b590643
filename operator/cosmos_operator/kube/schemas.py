"""The schema of a resource as the API server has it, from its OpenAPI document, which every account may read."""

from __future__ import annotations

from cosmos_operator.kube.client import Client
from cosmos_operator.kube.kinds import KINDS, Manifest


async def read_schema(client: Client, kind: str) -> Manifest | None:
    """The schema of a kind; None if the API server does not tell.

    Raises:
        ClusterUnavailable: no answer.
        Refused: the server rejects the request.
    """
    path = f"/openapi/v3/apis/{KINDS[kind].api_version}"
    answer = await client.request("GET", path)
    if answer.status in (403, 404, 406):
        return None
    document = answer.read(f"get the schema of {kind}")
    for schema in (document.get("components") or {}).get("schemas", {}).values():
        kinds = schema.get("x-kubernetes-group-version-kind") or ()
        if any(one.get("kind") == kind for one in kinds):
            found: Manifest = schema
            return found
    return None
