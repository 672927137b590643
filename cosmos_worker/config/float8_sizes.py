"""What products in float8 demand of sizes. Known below all options, so it takes plain numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

FLOAT8_MULTIPLE = 16
"""What the sides of a weight, and with Transformer Engine the rows of its input, must be multiples of."""


def unfit_sizes(sizes: Mapping[str, int]) -> Iterator[str]:
    """One sentence for each size, by its option, that is no multiple of :data:`FLOAT8_MULTIPLE`."""
    for name, size in sizes.items():
        if size % FLOAT8_MULTIPLE:
            yield f"{name}: {size} is not a multiple of {FLOAT8_MULTIPLE}"
