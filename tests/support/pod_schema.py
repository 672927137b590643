"""The field types of a pod template, read from an API server's OpenAPI document (``/openapi/v2``)."""

from __future__ import annotations

from typing import Any

CORE = "io.k8s.api.core.v1."
SCALARS = {
    "io.k8s.apimachinery.pkg.api.resource.Quantity": "quantity",
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": "int-or-string",
    "io.k8s.apimachinery.pkg.apis.meta.v1.Time": "string",
    "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime": "string",
    "io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1": "object",
}

Table = dict[str, dict[str, str]]


def field_types(openapi: dict[str, Any], root: str = CORE + "PodTemplateSpec") -> Table:
    """Every object below a pod template → its fields → their types, written as ``api/pod_schema.py`` reads them."""
    found: Table = {}
    waiting = [root]
    while waiting:
        path = waiting.pop()
        name = path.rpartition(".")[2]
        if name in found:
            continue
        fields = openapi["definitions"][path].get("properties", {})
        found[name] = {field: _type(schema, waiting) for field, schema in sorted(fields.items())}
    return dict(sorted(found.items()))


def _type(schema: dict[str, Any], waiting: list[str]) -> str:
    if "$ref" in schema:
        path = schema["$ref"].removeprefix("#/definitions/")
        if path in SCALARS:
            return SCALARS[path]
        waiting.append(path)
        return str(path.rpartition(".")[2])
    if schema.get("type") == "array":
        merges = "merge" in schema.get("x-kubernetes-patch-strategy", "").split(",")
        key = schema.get("x-kubernetes-patch-merge-key", "*") if merges else ""
        return f"[{key}]{_type(schema['items'], waiting)}"
    if "additionalProperties" in schema:
        return "{}" + _type(schema["additionalProperties"], waiting)
    return str(schema.get("type", "object"))
