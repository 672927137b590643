"""Values that options are made of: bounded numbers and texts, names of folders, sizes in bytes, sizes for float8.

Every number and every text of a document has a bound, so that no job can ask for a count that takes forever; those of
the resource (``operator/cosmos_operator/api/base.py``) are the same. No torch here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from cosmos_worker.config.captions import normalise_caption
from cosmos_worker.config.choices import FOLDER_PATTERN, PATH_PATTERN

MAX_COUNT = 1_000_000_000
"""Largest number of steps, samples, frames, or of anything else that is counted."""
MAX_FLOAT = 1e12
"""Largest factor, rate or noise level."""
MAX_TEXT = 1 << 16
"""Characters of the longest text, such as a caption."""
MAX_OVERRIDE = 512
"""Characters of an override in a job."""
MAX_OVERRIDES = 64
MAX_PATH = 4096
"""Characters of the longest path or address of a stage document."""
MAX_ADDRESS = 1024
"""The same of a job, from which longer ones are made."""
MAX_NAME = 128
"""Characters of a name of a folder."""
MAX_SHOWN = 200
"""Characters of a value that a message quotes."""


def _normalised(value: object) -> object:
    """A text in its one form, before its length is looked at: that of a text that is none has no meaning."""
    return normalise_caption(value) if isinstance(value, str) else value


class Model(BaseModel):
    """Base of all documents: unknown keys are errors, values cannot be changed, texts and numbers have bounds."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        str_max_length=MAX_TEXT,
        allow_inf_nan=False,
    )


PositiveInt = Annotated[int, Field(gt=0, le=MAX_COUNT)]
NonNegativeInt = Annotated[int, Field(ge=0, le=MAX_COUNT)]
Seed = Annotated[int, Field(ge=-(1 << 63), lt=1 << 63)]
"""Seed of random numbers: what PyTorch takes."""
PositiveFloat = Annotated[float, Field(gt=0, le=MAX_FLOAT)]
NonNegativeFloat = Annotated[float, Field(ge=0, le=MAX_FLOAT)]
Float = Annotated[float, Field(ge=-MAX_FLOAT, le=MAX_FLOAT)]
Fraction = Annotated[float, Field(ge=0, le=1)]
PathText = Annotated[str, Field(max_length=MAX_PATH, pattern=PATH_PATTERN)]
"""A path, a volume address, or a URL."""
FolderName = Annotated[str, Field(min_length=1, max_length=MAX_NAME, pattern=FOLDER_PATTERN)]
"""Name that becomes one folder or file of its own."""
Caption = Annotated[str, BeforeValidator(_normalised)]
"""A caption or prompt in its one form; may be empty."""


def shortened(text: str, max_length: int = MAX_SHOWN) -> str:
    """A text as messages quote it: the beginning of a long one."""
    return text if len(text) <= max_length else f"{text[:max_length]}..."


def shown_value(value: object) -> str:
    """A plain value as messages quote it; integers of thousands of digits have no text in Python."""
    if isinstance(value, int) and abs(value) >= 1 << 64:
        return f"an integer of {value.bit_length()} bits"
    return repr(value)


def divisors(number: int) -> list[int]:
    """The divisors of a positive number, the smallest first, in time that grows with its square root."""
    low = [n for n in range(1, math.isqrt(number) + 1) if number % n == 0]
    return low + [number // n for n in reversed(low) if n * n != number]


GIB = 2**30
PREFIXES = "kmgtp"
SIZE = re.compile(
    r"^(?P<number>\d+(\.\d+)?)\s*((?P<prefix>[kmgtp])(?P<binary>i)?b?|b)$", re.IGNORECASE
)


def parse_size(text: str) -> int:
    """Bytes of ``80GiB``, ``80Gi``, ``80GB`` or ``1.5TB``; GiB is 2^30, GB is 10^9.

    Raises:
        ValueError: not a positive size with its unit.
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
