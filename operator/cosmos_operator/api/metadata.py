"""The metadata of a job: the part that its plan needs, and the rules by which the API server admits all of it. Pure."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from cosmos_operator.api.base import JOB_NAME_PATTERN, KEY_PATTERN, MAX_JOB_NAME, NAME_PART

_TIMES = ("creationTimestamp", "deletionTimestamp")
TEXTS = ("name", "generateName", "namespace", "uid", "resourceVersion", "selfLink", *_TIMES)
NUMBERS = ("generation", "deletionGracePeriodSeconds")
LISTS = ("finalizers", "ownerReferences", "managedFields")
MAPPINGS = ("labels", "annotations")
FIELDS = (*TEXTS, *NUMBERS, *LISTS, *MAPPINGS)
OWNER_FIELDS, OWNER_SWITCHES = (
    ("apiVersion", "kind", "name", "uid"),
    ("controller", "blockOwnerDeletion"),
)
"""Fields of an owner reference: those that it must have, and those that it may have."""
TIME_PATTERN = r"\d{4}-\d{2}-\d{2}[Tt]\d{2}:\d{2}:\d{2}(\.\d+)?([Zz]|[-+]\d{2}:\d{2})"
NUM_RANDOM = 5
"""Characters that the API server appends to ``generateName``."""


Texts = Annotated[dict[str, str], BeforeValidator(lambda value: {} if value is None else value)]


class Metadata(BaseModel):
    """The part of the object's metadata that the plan of a job needs; the rest is ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True, use_attribute_docstrings=True)

    name: Annotated[str, Field(max_length=MAX_JOB_NAME, pattern=JOB_NAME_PATTERN)]
    """Name of the job, at most 40 characters, a DNS-1035 label."""
    namespace: Annotated[str, Field(max_length=63)] | None = None
    """Namespace of the job and of all its objects."""
    uid: Annotated[str, Field(max_length=128)] | None = None
    """Uid that the API server has given the job."""
    labels: Texts = Field(default_factory=dict)
    """Labels of the job, which its pods get too."""
    annotations: Texts = Field(default_factory=dict)
    """Annotations of the job."""


def metadata_problems(metadata: Mapping[str, Any]) -> Iterator[str]:
    """Problems of the metadata of a new object, each with its field."""
    for name, value in metadata.items():
        where = f"metadata.{name}"
        if name not in FIELDS:
            near = difflib.get_close_matches(name, FIELDS, n=1, cutoff=0.0)[0]
            yield f"metadata: unknown field {name!r}; did you mean {near!r}?"
        elif value is None:
            continue
        elif name in MAPPINGS:
            yield from _mapping_problems(name, value)
        elif not isinstance(value, _type_of(name)) or isinstance(value, bool):
            wanted = {str: "a text", int: "a whole number", list: "a list"}[_type_of(name)]
            yield f"{where}: expected {wanted} (got {value!r}){_quotes(value)}"
        elif name in _TIMES and not re.fullmatch(TIME_PATTERN, str(value)):
            yield f"{where}: {value!r} is no time; remove it, the API server sets it"
    yield from _name_problems(metadata)
    yield from _finalizer_problems(metadata.get("finalizers"))
    yield from _owner_problems(metadata.get("ownerReferences"))


def name_for(metadata: Mapping[str, Any]) -> str | None:
    """The name that a job without one goes by on this machine: the beginning of its generated ones."""
    start = metadata.get("generateName")
    return start.rstrip("-") if isinstance(start, str) and not metadata.get("name") else None


def _type_of(name: str) -> type:
    return str if name in TEXTS else int if name in NUMBERS else list


def _name_problems(metadata: Mapping[str, Any]) -> Iterator[str]:
    namespace, start = metadata.get("namespace"), metadata.get("generateName")
    if isinstance(namespace, str) and not re.fullmatch(
        r"([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)?", namespace
    ):
        yield f"metadata.namespace: {namespace!r} is no DNS label of at most 63 characters"
    if not isinstance(start, str) or metadata.get("name"):
        return
    if len(start) + NUM_RANDOM > MAX_JOB_NAME:
        yield (
            f"metadata.generateName: {start!r} has {len(start)} characters, and the name gets {NUM_RANDOM} more; use "
            f"at most {MAX_JOB_NAME - NUM_RANDOM}"
        )
    elif start and not re.match(JOB_NAME_PATTERN, start + "x" * NUM_RANDOM):
        yield f"metadata.generateName: {start!r} begins no DNS label; use letters, digits and -"


def _finalizer_problems(finalizers: object) -> Iterator[str]:
    for number, one in enumerate(finalizers if isinstance(finalizers, list) else ()):
        if not isinstance(one, str) or not re.match(KEY_PATTERN, one.lower()):
            yield f"metadata.finalizers[{number}]: {one!r} is no name of a finalizer; use DOMAIN/NAME"


def _owner_problems(owners: object) -> Iterator[str]:
    for number, one in enumerate(owners if isinstance(owners, list) else ()):
        where = f"metadata.ownerReferences[{number}]"
        if not isinstance(one, Mapping):
            yield f"{where}: expected a mapping (got {one!r})"
            continue
        missing = [name for name in OWNER_FIELDS if not one.get(name)]
        if missing:
            yield f"{where}: {', '.join(missing)} missing; give {', '.join(OWNER_FIELDS)}"
        for name in one.keys() - {*OWNER_FIELDS, *OWNER_SWITCHES}:
            yield f"{where}: unknown field {name!r}; use {', '.join((*OWNER_FIELDS, *OWNER_SWITCHES))}"


def _mapping_problems(field: str, value: object) -> Iterator[str]:
    """Problems of labels or annotations."""
    if not isinstance(value, Mapping):
        yield f"metadata.{field}: expected a mapping (got {value!r})"
        return
    for key, text in value.items():
        where = f"metadata.{field}.{key}"
        if not re.match(KEY_PATTERN, key if field == "labels" else key.lower()):
            yield f"{where}: {key!r} is no key; use NAME or DOMAIN/NAME, of letters, digits and -_. inside"
        if text is None:
            continue
        if not isinstance(text, str):
            yield f"{where}: expected a text (got {text!r}){_quotes(text)}"
        elif field == "labels" and not re.fullmatch(f"({NAME_PART})?", text):
            yield (
                f"{where}: {text!r} is no value of a label; use at most 63 letters and digits, with -_. inside"
            )


def _quotes(value: object) -> str:
    return "; put it in quotes" if isinstance(value, bool | int | float) else ""
