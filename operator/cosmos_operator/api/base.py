"""The base of all models of the API: one spelling (camelCase), bounded values, rules for the API server.

Every string, list and map has an upper bound, so that the API server can bound the cost of the CEL rules.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from cosmos_worker.config.choices import PATH_PATTERN
from cosmos_worker.config.values import (
    MAX_ADDRESS,
    MAX_COUNT,
    MAX_NAME,
)

GROUP = "cosmos.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
KIND = "PostTrainingJob"
PLURAL = "posttrainingjobs"
INFERENCE_KIND = "InferenceJob"
INFERENCE_PLURAL = "inferencejobs"

RULES = "x-kubernetes-validations"
"""Key under which an OpenAPI schema carries its CEL rules."""

ADVICE_IMMUTABLE = "cannot be changed; create another PostTrainingJob (finished stages are shared)"

MAX_JOB_NAME = 40
"""Leaves room for ``-<attempt>-worker-<index>`` within the 63 characters of a DNS label."""
JOB_NAME_PATTERN = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"
"""A DNS-1035 label, which PyTorchJob demands."""
_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
SUBDOMAIN = rf"{_LABEL}(\.{_LABEL})*"
"""A DNS-1123 subdomain, as Kubernetes' names of objects are, without its length."""
SUBDOMAIN_PATTERN = f"^{SUBDOMAIN}$"
NAME_PART = r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
"""A value of a label, or the part of its key behind the domain."""
LABEL_PATTERN = f"^({NAME_PART})?$"
KEY_PATTERN = f"^({SUBDOMAIN}/)?{NAME_PART}$"
"""A key of a label, an annotation or a taint."""
KEY_OR_EMPTY_PATTERN = f"{KEY_PATTERN}|^$"


class ApiModel(BaseModel):
    """Base of all models: unknown fields are errors, values cannot be changed, names in YAML are camelCase."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, alias_generator=to_camel, use_attribute_docstrings=True
    )


def rules(*pairs: tuple[str, str]) -> dict[str, Any]:
    """Extra of a JSON schema that holds these ``(CEL rule, message)`` pairs."""
    return {RULES: [{"rule": rule, "message": message} for rule, message in pairs]}


ANOTHER_JOB = "create another PostTrainingJob (finished stages are shared)"


def cel_text(pattern: str) -> str:
    """A pattern as it stands between the quotes of a CEL text."""
    return pattern.replace("\\", "\\\\")


def immutable(field: str, instead: str = ANOTHER_JOB) -> dict[str, Any]:
    """Extra of the JSON schema of a field that cannot be changed once the object exists.

    Args:
        field: its name, for the message.
        instead: what to do instead of changing it.
    """
    return rules(("self == oldSelf", f"{field} cannot be changed; {instead}"))


def unchanged(field: str) -> str:
    """The CEL rule that an optional field of an object stays as it is, or stays omitted."""
    return (
        f"has(self.{field}) == has(oldSelf.{field}) && "
        f"(!has(self.{field}) || self.{field} == oldSelf.{field})"
    )


Count = Annotated[int, Field(ge=1, le=MAX_COUNT)]
CountOrZero = Annotated[int, Field(ge=0, le=MAX_COUNT)]
Seconds = Annotated[int, Field(ge=1, le=31_536_000)]
SecondsOrZero = Annotated[int, Field(ge=0, le=31_536_000)]
_NAME = r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?"
ArtifactName = Annotated[
    str, Field(min_length=1, max_length=MAX_NAME, pattern=rf"^{_NAME}(/{_NAME})*$")
]
"""Name of a model, tokenizer, encoder or dataset: a folder, or several behind one another."""
PublishedName = Annotated[str, Field(min_length=1, max_length=MAX_NAME, pattern=f"^{_NAME}$")]
"""Name of a published model: one folder."""
ItemName = Annotated[
    str, Field(min_length=1, max_length=40, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
]
"""Name of a sub-object, a DNS label."""
ObjectName = Annotated[str, Field(min_length=1, max_length=253, pattern=SUBDOMAIN_PATTERN)]
"""Name of another Kubernetes object."""
ObjectNameOrEmpty = Annotated[str, Field(max_length=253, pattern=f"^({SUBDOMAIN})?$")]
"""Name of another Kubernetes object, or empty where that has a meaning of its own."""
LabelValue = Annotated[str, Field(max_length=63, pattern=LABEL_PATTERN)]
"""Value of a label or of a taint."""
Labels = Annotated[
    dict[Annotated[str, Field(max_length=317, pattern=KEY_PATTERN)], LabelValue],
    Field(
        max_length=16,
        json_schema_extra=rules(
            (
                f"self.all(key, key.size() <= 317 && key.matches('{cel_text(KEY_PATTERN)}'))",
                "a key of a label is NAME or DOMAIN/NAME, of letters, digits and -_. inside",
            )
        ),
    ),
]
"""Labels that a node must have."""
Address = Annotated[str, Field(min_length=1, max_length=MAX_ADDRESS, pattern=PATH_PATTERN)]
"""A path or a volume address."""
RelativeFolder = Annotated[
    str,
    Field(
        max_length=255, pattern=r"^([A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*)?$"
    ),
]
"""A folder inside a claim, without '..'; empty = the claim's root."""
