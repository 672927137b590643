from __future__ import annotations

import types
import typing
from collections.abc import Iterator
from typing import Any

import annotated_types
import pytest
from pydantic import BaseModel

from cosmos_worker.config.stages import STAGE_CONFIGS
from cosmos_worker.config.values import (
    divisors,
    gib,
    parse_size,
)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("80GiB", 80 * 2**30),
        ("80Gi", 80 * 2**30),
        ("80GB", 80 * 10**9),
        ("1.5 tb", 1_500_000_000_000),
        ("64MiB", 64 * 2**20),
        ("512b", 512),
    ],
)
def test_size_is_read_with_its_unit(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "GiB", "-3GiB", "80 gigs", "0GiB", "1e3", "3iB5", "512", "80i", "80ib"]
)
def test_bad_size_is_explained(text: str) -> None:
    with pytest.raises(ValueError, match=r"size: got '.*'; write a number and a unit"):
        parse_size(text)


def test_size_is_shown_in_gib() -> None:
    assert gib(3 * 2**29) == "1.5 GiB"


@pytest.mark.parametrize("number", [1, 2, 12, 36, 97, 720_720])
def test_divisors_are_all_that_divide(number: int) -> None:
    assert divisors(number) == [n for n in range(1, number + 1) if number % n == 0]


def test_divisors_of_a_large_prime_take_no_time() -> None:
    assert divisors(999_999_937) == [1, 999_999_937]


def _numbers(
    annotation: Any, where: str, metadata: tuple[Any, ...] = ()
) -> Iterator[tuple[str, Any]]:
    """(place, metadata) of each number of a document type."""
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        yield from _numbers(inner[0], where, (*metadata, *inner[1:]))
    elif origin in (typing.Union, types.UnionType, tuple):
        for one in inner:
            yield from _numbers(one, where, metadata)
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
        for name, field in annotation.model_fields.items():
            yield from _numbers(field.annotation, f"{where}.{name}", tuple(field.metadata))
    elif annotation in (int, float):
        yield where, metadata


def _is_bounded(metadata: tuple[Any, ...]) -> bool:
    bounds = [one for entry in metadata for one in getattr(entry, "metadata", [entry])]
    lower = any(isinstance(one, annotated_types.Gt | annotated_types.Ge) for one in bounds)
    return lower and any(isinstance(one, annotated_types.Lt | annotated_types.Le) for one in bounds)


@pytest.mark.parametrize("stage", STAGE_CONFIGS)
def test_every_number_of_a_document_is_bounded(stage: str) -> None:
    found = list(_numbers(STAGE_CONFIGS[stage], stage))

    assert [where for where, metadata in found if not _is_bounded(metadata)] == []
