"""Quantities and names of compute resources, by the rules of Kubernetes, for Python and in CEL."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema

from cosmos_operator.api.base import NAME_PART, SUBDOMAIN, cel_text, rules

QUANTITY_PATTERN = r"^\+?([0-9]+(\.[0-9]*)?|\.[0-9]+)([numkMGTPE]|[KMGTPE]i|[eE][-+]?[0-9]{1,3})?$"
RESOURCE_PATTERN = (
    rf"^(cpu|memory|ephemeral-storage|hugepages-[1-9][0-9]*[KMG]i|{SUBDOMAIN}/{NAME_PART})$"
)
EXTENDED_NAME_PATTERN = f"^{SUBDOMAIN}/{NAME_PART}$"
"""An extended resource, which a device plugin offers."""
GPU_PATTERN = r"(?i)gpu|^nvidia\.com/mig-|^habana\.ai/|^google\.com/tpu|^aws\.amazon\.com/neuron"
"""Names of resources that are GPUs, or other devices that a training computes on; network devices are none."""

OVERCOMMITTED = ("cpu", "memory", "ephemeral-storage")
"""Resources of which a request may be below the limit."""
RESOURCE_NAMES = "use cpu, memory, ephemeral-storage, hugepages-SIZE, or a device's DOMAIN/NAME"
GPU_ADVICE = (
    "is for compute.gpusPerNode; remove it here, give gpusPerNode, and gpuResourceName if the GPUs are "
    "not nvidia.com/gpu"
)

WHOLE_NUMBERS = range(-(1 << 63), 1 << 63)
"""Numbers that JSON of Kubernetes has as whole ones."""

_SUFFIXES = {
    "": Decimal(1),
    **{name: Decimal(1000) ** power for power, name in enumerate("num", -3)},
    **{name: Decimal(1000) ** power for power, name in enumerate("kMGTPE", 1)},
    **{f"{name}i": Decimal(1024) ** power for power, name in enumerate("KMGTPE", 1)},
}


def quantity_value(text: str) -> Decimal:
    """The number that a quantity stands for, in units (cores, bytes, pieces).

    Raises:
        ValueError: no quantity.
    """
    match = re.fullmatch(QUANTITY_PATTERN.strip("^$"), text)
    if match is None:
        raise ValueError(f"{text!r} is no quantity, such as 4, 500m or 64Gi")
    number, suffix = Decimal(match[1]), match[3] or ""
    if suffix not in _SUFFIXES:
        return number * Decimal(10) ** int(suffix[1:])
    return number * _SUFFIXES[suffix]


def _quantity_text(value: object) -> object:
    if isinstance(value, float):
        raise ValueError(
            f'a fraction without quotes, which a custom resource cannot have; write "{value}" in quotes, '
            f"or {value * 1000:g}m"
        )
    if isinstance(value, bool) or not isinstance(value, int | str):
        return value
    if isinstance(value, int) and value not in WHOLE_NUMBERS:
        raise ValueError(f'{value} is above what a number can be; write "{value}" in quotes')
    quantity_value(str(value))
    return str(value)


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
            "minimum": 0,
        }
    ),
]
"""A Kubernetes quantity, such as 4, 500m or 64Gi."""


Quantities = Annotated[
    dict[Annotated[str, Field(max_length=253)], Quantity],
    Field(
        max_length=16,
        json_schema_extra=rules(
            (f"self.all(name, name.matches('{cel_text(RESOURCE_PATTERN)}'))", RESOURCE_NAMES),
            (f"self.all(name, !name.matches('{cel_text(GPU_PATTERN)}'))", f"a GPU {GPU_ADVICE}"),
        ),
    ),
]
"""Name of a compute resource → its quantity."""

RESOURCE_RULES: dict[str, Any] = rules(
    (
        "!has(self.requests) || !has(self.limits) || self.requests.all(name, !(name in self.limits) || "
        "quantity(string(self.requests[name])).compareTo(quantity(string(self.limits[name]))) <= 0)",
        "a request is above the limit of its resource; raise the limit, or lower the request",
    ),
    (
        f"!has(self.requests) || self.requests.all(name, name in {list(OVERCOMMITTED)} || "
        "(has(self.limits) && name in self.limits && "
        "quantity(string(self.requests[name])).compareTo(quantity(string(self.limits[name]))) == 0))",
        "a request of hugepages or of a device needs a limit of the same quantity; give it in limits alone",
    ),
)
"""Rules of an object with requests and limits, see :func:`resource_problems`."""


def resource_problems(requests: dict[str, str], limits: dict[str, str]) -> list[str]:
    """Problems of the requests and limits of a container, each with its field."""
    problems = []
    wrong: set[str] = set()
    for field, quantities in (("requests", requests), ("limits", limits)):
        for name in quantities:
            if re.search(GPU_PATTERN, name):
                problems.append(f"{field}: {name} {GPU_ADVICE}")
            elif not re.match(RESOURCE_PATTERN, name):
                problems.append(f"{field}: {name!r} is no resource; {RESOURCE_NAMES}")
            else:
                continue
            wrong.add(name)
    return problems + [
        f"requests: {name} {request} {problem}"
        for name, request in requests.items()
        if name not in wrong and (problem := _request_problem(name, request, limits.get(name)))
    ]


def _request_problem(name: str, request: str, limit: str | None) -> str:
    """The problem of a request beside a limit of the same resource; empty if it has none."""
    if limit is not None and quantity_value(request) > quantity_value(limit):
        return f"is above its limit {limit}; raise the limit, or lower the request"
    if name in OVERCOMMITTED or (
        limit is not None and quantity_value(request) == quantity_value(limit)
    ):
        return ""
    return (
        "needs a limit of the same quantity, as hugepages and devices do; give it in limits alone"
    )
