"""The base of all models of the API: one spelling (camelCase), bounded values, rules for the API server.

Every string, list and map has an upper bound, so that the API server can bound the cost of the CEL rules.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic.alias_generators import to_camel

GROUP = "cosmos.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
KIND = "PostTrainingJob"
PLURAL = "posttrainingjobs"
INFERENCE_KIND = "InferenceJob"
INFERENCE_PLURAL = "inferencejobs"

RULES = "x-kubernetes-validations"
"""Key under which an OpenAPI schema carries its CEL rules."""

MAX_JOB_NAME = 40
"""Leaves room for ``-<attempt>-worker-<index>`` within the 63 characters of a DNS label."""
JOB_NAME_PATTERN = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"
"""A DNS-1035 label, which PyTorchJob demands."""
QUANTITY_PATTERN = r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$"


class ApiModel(BaseModel):
    """Base of all models: unknown fields are errors, values cannot be changed, names in YAML are camelCase."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, alias_generator=to_camel, use_attribute_docstrings=True
    )


def rules(*pairs: tuple[str, str]) -> dict[str, Any]:
    """Extra of a JSON schema that holds these ``(CEL rule, message)`` pairs."""
    return {RULES: [{"rule": rule, "message": message} for rule, message in pairs]}


def immutable(field: str, kind: str = KIND) -> dict[str, Any]:
    """Extra of the JSON schema of a field that cannot be changed once the object of a kind exists."""
    return rules(
        (
            "self == oldSelf",
            f"{field} cannot be changed; create another {kind} (finished stages are shared)",
        )
    )


def _quantity_text(value: object) -> object:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


Quantity = Annotated[
    str,
    BeforeValidator(_quantity_text),
    Field(pattern=QUANTITY_PATTERN, max_length=32),
    WithJsonSchema(
        {
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "x-kubernetes-int-or-string": True,
            "pattern": QUANTITY_PATTERN,
            "maxLength": 32,
        }
    ),
]
"""A Kubernetes quantity, such as 4, 500m or 64Gi."""

Count = Annotated[int, Field(ge=1, le=1_000_000_000)]
CountOrZero = Annotated[int, Field(ge=0, le=1_000_000_000)]
Seconds = Annotated[int, Field(ge=1, le=31_536_000)]
ArtifactName = Annotated[
    str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9]([A-Za-z0-9._/-]*[A-Za-z0-9])?$")
]
"""Name of a model, tokenizer, encoder or dataset."""
PublishedName = Annotated[
    str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$")
]
"""Name of a published model: one folder."""
ItemName = Annotated[
    str, Field(min_length=1, max_length=40, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
]
"""Name of a sub-object, a DNS label."""
ObjectName = Annotated[
    str, Field(min_length=1, max_length=253, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")
]
"""Name of another Kubernetes object."""
OptionalObjectName = Annotated[
    str, Field(max_length=253, pattern=r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?)?$")
]
"""Name of another Kubernetes object, or empty."""
Address = Annotated[str, Field(min_length=1, max_length=1024)]
"""A path or a volume address."""
RelativeFolder = Annotated[
    str,
    Field(
        max_length=255, pattern=r"^([A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*)?$"
    ),
]
"""A folder inside a claim, without '..'; empty = the claim's root."""
