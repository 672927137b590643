"""How lists merge: which are maps with keys, which are sets, and which are replaced as a whole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

MERGE_KEYS = {
    "ownerReferences": ("uid",),
    "conditions": ("type",),
    "containers": ("name",),
    "initContainers": ("name",),
    "volumes": ("name",),
    "env": ("name",),
    "volumeMounts": ("mountPath",),
    "imagePullSecrets": ("name",),
}
"""Keys of lists in built-in kinds, by the name of the field."""
MERGE_SETS = ("finalizers",)


@dataclass(frozen=True)
class Shape:
    """What is known about a value's type: a structural schema, or the name of the field in a built-in kind."""

    schema: dict[str, Any] | None = None
    field: str = ""
    is_root: bool = True

    def child(self, name: str) -> Shape:
        """The shape of a field of this object."""
        if self.schema is None or (self.is_root and name == "metadata"):
            return Shape(None, name, False)
        below = self.schema.get("properties", {}).get(name)
        below = below or self.schema.get("additionalProperties") or {}
        return Shape(below if isinstance(below, dict) else {}, name, False)

    def item(self) -> Shape:
        """The shape of an item of this list."""
        return Shape(None if self.schema is None else self.schema.get("items", {}), "", False)

    @property
    def keys(self) -> tuple[str, ...]:
        """Keys by which items of this list are told apart; none if it is no list-map."""
        if self.schema is None:
            return MERGE_KEYS.get(self.field, ())
        return tuple(self.schema.get("x-kubernetes-list-map-keys", ()))

    @property
    def is_set(self) -> bool:
        """Whether this list is a set."""
        if self.schema is None:
            return self.field in MERGE_SETS
        return bool(self.schema.get("x-kubernetes-list-type") == "set")


def key_of(item: dict[str, Any], keys: tuple[str, ...]) -> tuple[Any, ...]:
    """The key of an item of a list-map."""
    return tuple(item.get(name) for name in keys)
