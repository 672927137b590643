"""Models → structural OpenAPI schema → CustomResourceDefinition.

Kubernetes accepts a subset of JSON schema: no references, no titles, no null types, one type per field
(quantities apart), boolean exclusive bounds. The API server prunes unknown fields by itself.

Defaults of a CRD are stored with each job: where one changes later, ``kubectl replace`` of an unchanged file would
change the job. So only those are in the CRD that will always mean the same; the operator applies the others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from cosmos_operator.api.base import (
    API_VERSION,
    GROUP,
    INFERENCE_KIND,
    INFERENCE_PLURAL,
    JOB_NAME_PATTERN,
    KIND,
    MAX_JOB_NAME,
    PLURAL,
    RULES,
    VERSION,
)
from cosmos_operator.api.inferencejob import InferenceJob
from cosmos_operator.api.labels import PART_OF, PART_OF_LABEL
from cosmos_operator.api.status import OPEN
from cosmos_operator.api.v1alpha1 import PostTrainingJob

Schema = dict[str, Any]
Columns = tuple[tuple[str, str, str, int], ...]
"""Name, type, JSON path, priority (1 = only with -o wide) of each column of ``kubectl get``."""

PRINTER_COLUMNS: Columns = (
    ("State", "string", ".status.state", 0),
    ("Progress", "string", ".status.progress.summary", 0),
    ("Loss", "string", ".status.progress.loss", 0),
    ("ETA", "string", ".status.progress.eta", 0),
    ("Attempt", "integer", ".status.attempts[-1:].number", 0),
    ("Age", "date", ".metadata.creationTimestamp", 0),
    ("GPUs", "integer", ".spec.compute.gpusPerNode", 1),
    ("Nodes", "integer", ".spec.compute.nodes", 1),
    ("Checkpoint", "integer", ".status.checkpoints.latestStep", 1),
    ("Message", "string", ".status.message", 1),
)
INFERENCE_COLUMNS: Columns = (
    ("State", "string", ".status.state", 0),
    ("Job", "string", ".spec.model.job", 0),
    ("Published", "string", ".spec.model.published", 0),
    ("Videos", "string", ".status.inference[*].numVideos", 0),
    ("Age", "date", ".metadata.creationTimestamp", 0),
    ("Message", "string", ".status.message", 1),
)

LASTING_DEFAULTS: dict[str, Any] = {
    "nodes": 1,
    "operator": "Equal",
    "state": "Pending",
    "gpuResourceName": "nvidia.com/gpu",
}
"""Fields whose defaults will never change, beside those that stand for nothing: false, 0, no text, an empty list."""


@dataclass(frozen=True)
class ResourceKind:
    """A kind of resource of this project."""

    kind: str
    plural: str
    short_name: str
    model: type[BaseModel]
    columns: Columns


POST_TRAINING_JOB = ResourceKind(KIND, PLURAL, "ptj", PostTrainingJob, PRINTER_COLUMNS)
INFERENCE_JOB = ResourceKind(
    INFERENCE_KIND, INFERENCE_PLURAL, "ij", InferenceJob, INFERENCE_COLUMNS
)
RESOURCE_KINDS = (POST_TRAINING_JOB, INFERENCE_JOB)


def build_crds() -> list[dict[str, Any]]:
    """The CustomResourceDefinitions of all kinds."""
    return [build_crd(resource) for resource in RESOURCE_KINDS]


def build_crd(resource: ResourceKind = POST_TRAINING_JOB) -> dict[str, Any]:
    """The CustomResourceDefinition of a kind."""
    columns = [
        {"name": name, "type": kind, "jsonPath": path, "priority": priority}
        for name, kind, path, priority in resource.columns
    ]
    version = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "additionalPrinterColumns": columns,
        "schema": {"openAPIV3Schema": _lasting(build_schema(resource))},
    }
    names = {
        "kind": resource.kind,
        "listKind": f"{resource.kind}List",
        "plural": resource.plural,
        "singular": resource.kind.lower(),
        "shortNames": [resource.short_name],
        "categories": ["cosmos"],
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{resource.plural}.{GROUP}",
            "labels": {PART_OF_LABEL: PART_OF},
        },
        "spec": {"group": GROUP, "scope": "Namespaced", "names": names, "versions": [version]},
    }


def build_schema(resource: ResourceKind = POST_TRAINING_JOB) -> Schema:
    """The structural schema of a whole resource, with all defaults and all words of its open sets."""
    source = resource.model.model_json_schema(by_alias=True)
    definitions = source.pop("$defs")
    schema = _structural(source, definitions)
    schema["properties"]["apiVersion"] = {"type": "string", "enum": [API_VERSION]}
    schema["properties"]["metadata"] = {
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": MAX_JOB_NAME, "pattern": JOB_NAME_PATTERN}
        },
    }
    # kstatus takes an object without conditions for ready: from its creation on, a job shows that it was not seen yet
    schema["properties"]["status"]["default"] = {}
    return schema


def _lasting(schema: Schema, name: str = "") -> Schema:
    """A copy of a schema without what may change: defaults are told in the description, words of open sets are text."""
    schema = dict(schema)
    if schema.pop(OPEN, False):
        del schema["enum"]
    if schema.get("default") and LASTING_DEFAULTS.get(name) != schema["default"]:
        schema["description"] = f"{schema.get('description', '')} Default: {schema.pop('default')}."
    if "properties" in schema:
        schema["properties"] = {
            key: _lasting(each, key) for key, each in schema["properties"].items()
        }
    for part in ("items", "additionalProperties"):
        if isinstance(schema.get(part), dict):
            schema[part] = _lasting(schema[part])
    return schema


def _structural(schema: Schema, definitions: dict[str, Schema]) -> Schema:
    """A copy of a JSON schema, in the subset of JSON schema that Kubernetes accepts."""
    schema = _inlined(schema, definitions)
    schema.pop("title", None)
    schema = _of_a_map(schema)
    if "const" in schema:
        schema["enum"] = [schema.pop("const")]
    for bound, name in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if bound in schema:
            schema[name], schema[bound] = schema[bound], True
    for name in ("items", "additionalProperties"):
        if isinstance(schema.get(name), dict):
            schema[name] = _structural(schema[name], definitions)
    if "properties" in schema:
        schema["properties"] = {
            name: _property(value, definitions) for name, value in schema["properties"].items()
        }
    if schema.get("x-kubernetes-list-map-keys"):
        keys = set(schema["x-kubernetes-list-map-keys"])
        schema["items"]["required"] = sorted(keys | set(schema["items"].get("required", ())))
    return schema


def _of_a_map(schema: Schema) -> Schema:
    """The schema of a mapping without what is not in the subset: the names of a map are left to CEL rules."""
    schema.pop("propertyNames", None)
    if "patternProperties" in schema:
        (schema["additionalProperties"],) = schema.pop("patternProperties").values()
    if schema.get("additionalProperties") is False:
        del schema["additionalProperties"]
    return schema


def _property(schema: Schema, definitions: dict[str, Schema]) -> Schema:
    """The schema of a field; an object that may be omitted defaults to {}, so that the defaults in it apply."""
    schema = dict(schema)
    optional = {"type": "null"} in schema.get("anyOf", ())
    has_default = schema.get("default") is not None
    if schema.get("default", 0) is None:
        del schema["default"]
    result = _structural(schema, definitions)
    if has_default and not optional and result.get("type") == "object":
        result["default"] = {}
    return result


def _inlined(schema: Schema, definitions: dict[str, Schema]) -> Schema:
    """The schema with its reference, or its one type beside null, inlined; keys beside the reference win."""
    schema = dict(schema)
    parts = [part for part in schema.get("anyOf", ()) if part != {"type": "null"}]
    if len(parts) == 1:
        del schema["anyOf"]
        schema = _merged(_inlined(parts[0], definitions), schema)
    if "$ref" in schema:
        name = schema.pop("$ref").rsplit("/", 1)[-1]
        schema = _merged(_inlined(definitions[name], definitions), schema)
    return schema


def _merged(base: Schema, beside: Schema) -> Schema:
    merged = {**base, **beside}
    if found := [*base.get(RULES, ()), *beside.get(RULES, ())]:
        merged[RULES] = found
    return merged
