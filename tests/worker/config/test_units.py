from __future__ import annotations

import pytest

from cosmos_worker.config.values import (
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
        ("512", 512),
        ("512b", 512),
    ],
)
def test_size_is_read_with_its_unit(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "GiB", "-3GiB", "80 gigs", "0GiB", "1e3", "3iB5"])
def test_bad_size_is_explained(text: str) -> None:
    with pytest.raises(ValueError, match=r"size: got '.*'; write a number and a unit"):
        parse_size(text)


def test_size_is_shown_in_gib() -> None:
    assert gib(3 * 2**29) == "1.5 GiB"
