"""Kinds that the API server has: the built-in ones, and those of CustomResourceDefinitions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Object = dict[str, Any]
VERBS = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]


@dataclass(frozen=True)
class Resource:
    """One kind of object."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True
    has_status: bool = False
    counts_generations: bool = False
    """True if metadata.generation counts the changes of fields outside metadata and status."""
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    is_custom: bool = False

    @property
    def key(self) -> str:
        """``plural.group``, as the real server names it in messages."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def api_version(self) -> str:
        """``group/version``, or the version alone in the core group."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def discovery(self) -> list[Object]:
        """Its entries in the list of its group and version."""
        entry: Object = {
            "name": self.plural,
            "singularName": self.kind.lower(),
            "namespaced": self.namespaced,
            "kind": self.kind,
            "verbs": VERBS,
        }
        if self.short_names:
            entry["shortNames"] = list(self.short_names)
        if self.categories:
            entry["categories"] = list(self.categories)
        names = ["status"] if self.has_status else []
        names += ["log", "eviction"] if self.key == "pods" else []
        below = [
            {
                "name": f"{self.plural}/{name}",
                "singularName": "",
                "namespaced": self.namespaced,
                "kind": self.kind,
                "verbs": ["get", "patch", "update"],
            }
            for name in names
        ]
        return [entry, *below]


def _core(plural: str, kind: str, **more: Any) -> Resource:
    return Resource("", "v1", plural, kind, **more)


BUILT_IN = (
    _core("namespaces", "Namespace", namespaced=False, has_status=True, short_names=("ns",)),
    _core("nodes", "Node", namespaced=False, has_status=True, short_names=("no",)),
    _core("pods", "Pod", has_status=True, counts_generations=True, short_names=("po",)),
    _core("services", "Service", has_status=True, short_names=("svc",)),
    _core("configmaps", "ConfigMap", short_names=("cm",)),
    _core("secrets", "Secret"),
    _core("serviceaccounts", "ServiceAccount", short_names=("sa",)),
    _core("persistentvolumeclaims", "PersistentVolumeClaim", has_status=True, short_names=("pvc",)),
    _core("events", "Event", short_names=("ev",)),
    Resource("batch", "v1", "jobs", "Job", has_status=True, counts_generations=True),
    Resource("storage.k8s.io", "v1", "storageclasses", "StorageClass", namespaced=False),
    Resource("scheduling.k8s.io", "v1", "priorityclasses", "PriorityClass", namespaced=False),
    Resource("coordination.k8s.io", "v1", "leases", "Lease"),
    Resource(
        "apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition",
        namespaced=False, has_status=True, counts_generations=True, short_names=("crd", "crds"),
    ),
)  # fmt: skip
CRDS = "customresourcedefinitions.apiextensions.k8s.io"


def resource_of_crd(crd: Object) -> Resource:
    """The resource that a CustomResourceDefinition brings (its stored version)."""
    spec = crd["spec"]
    names = spec["names"]
    version = next(version for version in spec["versions"] if version.get("storage"))
    return Resource(
        spec["group"],
        version["name"],
        names["plural"],
        names["kind"],
        namespaced=spec["scope"] == "Namespaced",
        has_status="status" in version.get("subresources", {}),
        counts_generations=True,
        short_names=tuple(names.get("shortNames", ())),
        categories=tuple(names.get("categories", ())),
        is_custom=True,
    )


def open_crd(
    group: str, version: str, plural: str, kind: str, *, namespaced: bool = True
) -> Object:
    """A CustomResourceDefinition that takes everything, for kinds of other operators."""
    anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced" if namespaced else "Cluster",
            "names": {"kind": kind, "plural": plural, "singular": kind.lower()},
            "versions": [
                {
                    "name": version,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "schema": {"openAPIV3Schema": anything},
                }
            ],
        },
    }
