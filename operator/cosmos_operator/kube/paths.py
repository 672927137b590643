"""Paths of objects on an API server. Pure."""

from __future__ import annotations

from dataclasses import replace
from urllib.parse import quote

from cosmos_operator.kube.kinds import KINDS, Manifest, Resource


def root_path(resource: Resource) -> str:
    """Path of the API group and version of a resource."""
    return f"/{'apis' if resource.group else 'api'}/{resource.api_version}"


def object_path(resource: Resource, namespace: str | None, name: str | None = None) -> str:
    """Path of an object, or without a name of all objects of its kind."""
    parts = [root_path(resource)]
    if namespace is not None and resource.namespaced:
        parts += ["namespaces", quote(namespace, safe="")]
    parts.append(resource.plural)
    if name is not None:
        parts.append(quote(name, safe=""))
    return "/".join(parts)


def path_of(manifest: Manifest, *, named: bool = True) -> str:
    """Path of an object, in the API version of its manifest."""
    resource = KINDS[manifest["kind"]]
    group, _, version = manifest["apiVersion"].rpartition("/")
    resource = replace(resource, group=group, version=version)
    metadata = manifest["metadata"]
    return object_path(resource, metadata.get("namespace"), metadata["name"] if named else None)


def title_of(manifest: Manifest) -> str:
    """Kind, namespace and name of an object, for messages."""
    metadata = manifest.get("metadata", {})
    return f"{manifest.get('kind')} {metadata.get('namespace', '')}/{metadata.get('name', '')}"
