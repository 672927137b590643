"""Plain YAML scalars → the values that Kubernetes reads in them, which are those of YAML 1.1 with some of 1.2. Pure.

``on``, ``yes`` and ``y`` are booleans, ``0100`` and ``0o100`` octal, ``1e3`` is a number, and dates and ``12:30`` are
texts. Source: github.com/yaml/go-yaml v2, resolve.go, as sigs.k8s.io/yaml has it.
"""

from __future__ import annotations

import base64
import binascii
import math
import re

Scalar = str | int | float | bool | None

BOOLEANS = {
    **dict.fromkeys(("y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"), True),
    **dict.fromkeys(("n", "N", "no", "No", "NO", "false", "False", "FALSE"), False),
    **dict.fromkeys(("off", "Off", "OFF"), False),
}  # fmt: skip
NULLS = ("", "~", "null", "Null", "NULL")
NOT_IN_JSON = (".inf", ".Inf", ".INF", ".nan", ".NaN", ".NAN")

_INTEGER = re.compile(
    r"([-+]?)(?:0[xX](?P<x>[0-9a-fA-F]+)|0[bB](?P<b>[01]+)|0[oO]?(?P<o>[0-7]+)|(?P<d>[1-9][0-9]*|0))"
)
_BASES = {"x": 16, "b": 2, "o": 8, "d": 10}
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_INTEGERS = range(-(1 << 63), 1 << 64)
MAX_DIGITS = 64
"""Digits of the largest integer, in base 2."""
_WHOLE_BELOW = 1e21
"""Bound below which JSON of Go has a float without exponent, so that a whole one is read as an integer."""
_TAG = "tag:yaml.org,2002:"
_TYPES: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "null": (type(None),),
}


def plain_value(text: str) -> Scalar:
    """The value of a scalar without quotes and without a tag.

    Raises:
        ValueError: a number that JSON, and so Kubernetes, does not have.
    """
    if text in BOOLEANS:
        return BOOLEANS[text]
    if text in NULLS:
        return None
    if text.lstrip("+-") in NOT_IN_JSON:
        raise ValueError(f"{text} is no number that Kubernetes has; give a finite one")
    if text[0] not in "+-.0123456789":
        return text
    digits = text.replace("_", "")
    number = _integer(digits)
    if number is not None:
        return number
    if not _FLOAT.fullmatch(digits):
        return text
    value = float(digits)
    if math.isinf(value):
        return text
    return int(value) if value.is_integer() and abs(value) < _WHOLE_BELOW else value


def _integer(digits: str) -> int | None:
    match = _INTEGER.fullmatch(digits)
    if match is None:
        return None
    form = str(match.lastgroup)
    if len(match[form].lstrip("0")) > MAX_DIGITS:
        return None
    number = int(match[form], _BASES[form])
    number = -number if match[1] == "-" else number
    return number if number in _INTEGERS else None


def tagged_value(text: str, tag: str) -> Scalar:
    """The value of a scalar with a tag; only those of YAML's own types have a meaning.

    Raises:
        ValueError: a text that is not of the tag's type.
    """
    name = tag.removeprefix(_TAG)
    if name == "binary":
        try:
            return base64.b64decode(text, validate=False).decode()
        except (binascii.Error, UnicodeDecodeError):
            raise ValueError("!!binary is no text in base64; write the text itself") from None
    if name not in _TYPES or not tag.startswith(_TAG):
        return text
    value = plain_value(text)
    if not isinstance(value, _TYPES[name]) or (isinstance(value, bool) and name != "bool"):
        raise ValueError(f"{text!r} is no !!{name}; remove the tag, or give such a value")
    return value


def key_text(value: Scalar) -> str:
    """The text that a key of a mapping becomes in JSON.

    Raises:
        ValueError: an empty key.
    """
    if value is None:
        raise ValueError("a key is empty; give it a name, in quotes if it is null")
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)
