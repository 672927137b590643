"""Problems of pydantic in words for people: what a pattern means, what to do about a type, which problems follow."""

from __future__ import annotations

import re

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from cosmos_operator.api.base import (
    JOB_NAME_PATTERN,
    KEY_OR_EMPTY_PATTERN,
    KEY_PATTERN,
    LABEL_PATTERN,
    SUBDOMAIN_PATTERN,
)
from cosmos_operator.api.image import IMAGE_PATTERN
from cosmos_operator.api.quantities import EXTENDED_NAME_PATTERN
from cosmos_operator.api.training import OVERRIDE_PATTERN
from cosmos_worker.config.documents import PATTERN_WORDS

QUOTED = re.compile(r"[+-]?[0-9.]{1,20}(e[+-]?[0-9]+)?|true|false|yes|no|on|off", re.IGNORECASE)
"""A text that would be a number or a truth value without its quotes."""
MAX_EXAMPLE = 200
"""Characters of a value up to which advice repeats it."""
PATTERNS_IN_WORDS = {
    SUBDOMAIN_PATTERN: "is no name of a Kubernetes object; use lower-case letters and digits, with - and . between",
    KEY_PATTERN: "is no key of a label; use NAME or DOMAIN/NAME, of letters and digits with -_. between",
    KEY_OR_EMPTY_PATTERN: "is no key of a taint; use NAME or DOMAIN/NAME, of letters and digits with -_. between",
    LABEL_PATTERN: "is no value of a label; use at most 63 letters and digits, with -_. between",
    OVERRIDE_PATTERN: "is no option of the experiment; use KEY=VALUE without spaces around =, such as "
    "optimizer.learning_rate=1e-5",
    EXTENDED_NAME_PATTERN: "is no resource of a device; use DOMAIN/NAME, such as nvidia.com/gpu",
    IMAGE_PATTERN: "is no image; use REGISTRY/REPOSITORY:TAG or REGISTRY/REPOSITORY@sha256:DIGEST, the repository in "
    "lower case",
    **PATTERN_WORDS,
    JOB_NAME_PATTERN: "is no name of a job; use lower-case letters, digits and -, beginning with a letter",
}
"""Pattern of a field → what a text that does not match it is told."""


def causes(error: ValidationError) -> list[ErrorDetails]:
    """The problems of a job, without those of a list or block that follow from problems inside it."""
    problems = error.errors()
    places = [problem["loc"] for problem in problems]
    return [
        problem
        for problem in problems
        if not (
            problem["type"] == "too_short"
            and any(place[: len(problem["loc"])] == problem["loc"] != place for place in places)
        )
    ]


def kind_of(value: object) -> str:
    """The type of a value, as YAML calls it."""
    return "mapping" if isinstance(value, dict) else type(value).__name__


def advice_on(kind: str, got: object) -> str:
    """Advice about a value of another type than its field's."""
    if kind == "string_type" and isinstance(got, bool | int | float):
        return "; put it in quotes as it is meant, YAML takes it for another type"
    if kind == "string_type" and isinstance(got, dict) and len(got) == 1:
        ((name, value),) = got.items()
        example = f"{name}={value}"
        shows = example.isprintable() and len(example) <= MAX_EXAMPLE
        return "; write it as one text" + (f", such as {example}" if shows else "")
    if kind in ("int_type", "float_type", "bool_type") and isinstance(got, str):
        return "; a value in quotes is a text, remove them" if QUOTED.fullmatch(got) else ""
    return ""
