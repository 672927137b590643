"""Values that options are made of: bounded numbers, sizes in bytes as people write them, sizes for float8.

No torch here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from cosmos_worker.config.captions import normalise_caption


class Model(BaseModel):
    """Base of all documents: unknown keys are errors, values cannot be changed."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


PositiveInt = Annotated[int, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Caption = Annotated[str, AfterValidator(normalise_caption)]
"""A caption or prompt in its one form; may be empty."""


GIB = 2**30
PREFIXES = "kmgtp"
SIZE = re.compile(
    r"^(?P<number>\d+(\.\d+)?)\s*(?P<prefix>[kmgtp])?(?P<binary>i)?b?$", re.IGNORECASE
)


def parse_size(text: str) -> int:
    """Bytes of ``80GiB``, ``80Gi``, ``80GB`` or ``1.5TB``; GiB is 2^30, GB is 10^9.

    Raises:
        ValueError: not a positive size.
    """
    match = SIZE.match(text.strip())
    size = 0
    if match:
        power = PREFIXES.index(match["prefix"].lower()) + 1 if match["prefix"] else 0
        size = int(float(match["number"]) * (1024 if match["binary"] else 1000) ** power)
    if size <= 0:
        raise ValueError(f"size: got {text!r}; write a number and a unit, such as 80GiB or 80GB")
    return size


def gib(size: int) -> str:
    """Bytes in GiB, one digit."""
    return f"{size / GIB:.1f} GiB"


FLOAT8_MULTIPLE = 16
"""Divisor of the sides of a weight and, with Transformer Engine, of the rows of its input."""


def unfit_sizes(sizes: Mapping[str, int]) -> Iterator[str]:
    """One sentence for each size, by its option, that is no multiple of :data:`FLOAT8_MULTIPLE`."""
    for name, size in sizes.items():
        if size % FLOAT8_MULTIPLE:
            yield f"{name}: {size} is not a multiple of {FLOAT8_MULTIPLE}"
