"""Server-side apply: who owns which field, what an apply changes, and what it removes.

A set of fields is a set of paths. A path is a tuple of ``f:name``, ``k:{"key":"value"}`` and ``v:"member"``, as in
``metadata.managedFields[].fieldsV1``; the item of a list-map is a member of the set itself.
"""

from __future__ import annotations

import copy
import json
from typing import Any

from support.fakekube.errors import ApiError
from support.fakekube.shapes import Shape, key_of

Path = tuple[str, ...]
Fields = set[Path]
Object = dict[str, Any]
NEVER_OWNED = {("f:apiVersion",), ("f:kind",)}
SYSTEM_METADATA = ("name", "namespace", "uid", "resourceVersion", "generation", "creationTimestamp", "managedFields",
                   "deletionTimestamp", "deletionGracePeriodSeconds")  # fmt: skip


def fields_of(value: Any, shape: Shape, path: Path = ()) -> Fields:
    """The leaves of a value."""
    found: Fields = set()
    if isinstance(value, dict) and (value or not path):
        for name, inner in value.items():
            if not (path == ("f:metadata",) and name in SYSTEM_METADATA):
                found |= fields_of(inner, shape.child(name), (*path, f"f:{name}"))
        return found - NEVER_OWNED
    if isinstance(value, list) and shape.keys:
        for item in value:
            below = (*path, _item_name(item, shape.keys))
            found |= {below} | fields_of(item, shape.item(), below)
        return found
    if isinstance(value, list) and shape.is_set:
        return {(*path, f"v:{json.dumps(item)}") for item in value}
    return {path}


def _item_name(item: Object, keys: tuple[str, ...]) -> str:
    named = {name: item.get(name) for name in keys} if isinstance(item, dict) else {}
    return f"k:{json.dumps(named, separators=(',', ':'), sort_keys=True)}"


def value_at(value: Any, path: Path) -> Any:
    """The value of a field, or None."""
    for part in path:
        kind, text = part[0], part[2:]
        if kind == "f":
            value = value.get(text) if isinstance(value, dict) else None
        elif not isinstance(value, list):
            return None
        else:
            found = [item for item in value if _matches(item, kind, json.loads(text))]
            value = found[0] if found else None
    return value


def _matches(item: Any, kind: str, wanted: Any) -> bool:
    if kind == "v":
        return bool(item == wanted)
    return all(item.get(name) == value for name, value in wanted.items())


def _remove(value: Any, path: Path) -> None:
    """Remove a field, with all below it."""
    part, rest = path[0], path[1:]
    kind, text = part[0], part[2:]
    if kind == "f" and isinstance(value, dict) and text in value:
        if rest:
            _remove(value[text], rest)
        else:
            del value[text]
    elif kind in "kv" and isinstance(value, list):
        for item in [item for item in value if _matches(item, kind, json.loads(text))]:
            if rest:
                _remove(item, rest)
            else:
                value.remove(item)


def _with_parents(fields: Fields) -> Fields:
    """The fields and all that they are in."""
    return {path[:length] for path in fields for length in range(1, len(path) + 1)}


def merge(live: Any, applied: Any, shape: Shape) -> Any:
    """What is there with what is applied over it."""
    if isinstance(live, dict) and isinstance(applied, dict):
        result = dict(live)
        for name, inner in applied.items():
            result[name] = merge(live.get(name), inner, shape.child(name))
        return result
    if isinstance(live, list) and isinstance(applied, list) and shape.keys:
        given = {key_of(item, shape.keys): item for item in applied}
        kept = {key_of(item, shape.keys) for item in live}
        merged = [
            merge(item, given[key_of(item, shape.keys)], shape.item())
            if key_of(item, shape.keys) in given
            else item
            for item in live
        ]
        return merged + [item for item in applied if key_of(item, shape.keys) not in kept]
    if isinstance(live, list) and isinstance(applied, list) and shape.is_set:
        return live + [item for item in applied if item not in live]
    return copy.deepcopy(applied)


# --- managedFields ---------------------------------------------------------------------------


def encode(fields: Fields) -> Object:
    """``fieldsV1`` of a set of fields."""
    tree: Object = {}
    for path in sorted(fields):
        node = tree
        for part in path:
            node = node.setdefault(part, {})
        if path[-1].startswith("k:"):
            node["."] = {}
    return tree


def decode(tree: Object, path: Path = ()) -> Fields:
    """The set of fields of a ``fieldsV1``."""
    found: Fields = set()
    if path and (not tree or "." in tree):
        found.add(path)
    for part, below in tree.items():
        if part != ".":
            found |= decode(below, (*path, part))
    return found


class Managers:
    """The owners of an object's fields."""

    def __init__(self, obj: Object) -> None:
        self.entries: list[Object] = copy.deepcopy(obj.get("metadata", {}).get("managedFields", []))

    def owned(self, manager: str, operation: str, subresource: str) -> Fields:
        """The fields of one manager."""
        entry = self._entry(manager, operation, subresource)
        return decode(entry["fieldsV1"]) if entry else set()

    def others(self, manager: str, operation: str, subresource: str) -> list[tuple[Object, Fields]]:
        """The entries of all others."""
        mine = self._entry(manager, operation, subresource)
        return [(entry, decode(entry["fieldsV1"])) for entry in self.entries if entry is not mine]

    def give(
        self, manager: str, operation: str, subresource: str, fields: Fields, about: tuple[str, str]
    ) -> None:
        """Let a manager own exactly these fields; ``about`` is the API version and the time."""
        entry = self._entry(manager, operation, subresource)
        if entry is None:
            entry = {"manager": manager, "operation": operation, "fieldsType": "FieldsV1"}
            if subresource:
                entry["subresource"] = subresource
            self.entries.append(entry)
        if entry.get("fieldsV1") != encode(fields):
            entry.update(apiVersion=about[0], time=about[1], fieldsV1=encode(fields))

    def take(self, fields: Fields, keep: tuple[str, str, str]) -> None:
        """Let nobody but one manager own these fields."""
        for entry, owned in self.others(*keep):
            entry["fieldsV1"] = encode(owned - fields)

    def store(self, obj: Object) -> None:
        """Write the owners into the object."""
        left = [entry for entry in self.entries if entry["fieldsV1"]]
        obj["metadata"].pop("managedFields", None)
        if left:
            obj["metadata"]["managedFields"] = left

    def _entry(self, manager: str, operation: str, subresource: str) -> Object | None:
        for entry in self.entries:
            names = (entry["manager"], entry["operation"], entry.get("subresource", ""))
            if names == (manager, operation, subresource):
                return entry
        return None


def apply(
    live: Object, applied: Object, shape: Shape, who: tuple[str, str], *, force: bool, now: str
) -> Object:
    """The object after a server-side apply.

    Args:
        live: the object as it is; ``{"metadata": ...}`` if it is to be made.
        applied: what the manager wants.
        shape: shape of the kind.
        who: manager and subresource.
        force: take fields from other managers instead of refusing.
        now: time of the request.
    """
    manager, subresource = who
    key = (manager, "Apply", subresource)
    managers = Managers(live)
    wanted, before = fields_of(applied, shape), managers.owned(*key)
    taken = {path for path in wanted if value_at(applied, path) != value_at(live, path)}
    problems = [
        (entry, sorted(owned & taken)) for entry, owned in managers.others(*key) if owned & taken
    ]
    if problems and not force:
        raise _conflicts(problems)
    result: Object = copy.deepcopy(merge(live, applied, shape))
    managers.take(taken, key)
    owned = wanted.union(*(owned for _, owned in managers.others(*key)))
    for path in sorted(_with_parents(before) - _with_parents(owned), key=len):
        _remove(result, path)
    managers.give(*key, wanted, (applied["apiVersion"], now))
    managers.store(result)
    return result


def track_update(
    old: Object, new: Object, shape: Shape, who: tuple[str, str], about: tuple[str, str]
) -> None:
    """Note in ``new`` who owns what another write than an apply has changed."""
    key = (who[0], "Update", who[1])
    managers = Managers(old)
    before, after = fields_of(old, shape), fields_of(new, shape)
    changed = {path for path in after if value_at(old, path) != value_at(new, path)}
    gone = before - after
    if changed or gone:
        managers.take(changed | gone, key)
        managers.give(*key, (managers.owned(*key) | changed) - gone, about)
    managers.store(new)


def _conflicts(problems: list[tuple[Object, list[Path]]]) -> ApiError:
    causes, lines = [], []
    for entry, paths in problems:
        where = f' with subresource "{entry["subresource"]}"' if entry.get("subresource") else ""
        who = f'"{entry["manager"]}"{where}'
        if entry["operation"] == "Update":
            who += f" using {entry['apiVersion']} at {entry['time']}"
        for path in paths:
            name = "".join(f".{part[2:]}" if part[0] == "f" else f"[{part[2:]}]" for part in path)
            causes.append(
                {"reason": "FieldManagerConflict", "message": f"conflict with {who}", "field": name}
            )
            lines.append((who, name))
    if len(lines) == 1:
        text = f"Apply failed with 1 conflict: conflict with {lines[0][0]}: {lines[0][1]}"
    else:
        groups = {who: [name for w, name in lines if w == who] for who, _ in lines}
        parts = [f"conflicts with {who}:\n- " + "\n- ".join(names) for who, names in groups.items()]
        text = f"Apply failed with {len(lines)} conflicts: " + "\n".join(parts)
    return ApiError(409, "Conflict", text, {"causes": causes})
