"""Quantities as nodes state them."""

from __future__ import annotations

import pytest

from cosmos_operator.kube.quantities import whole_units


@pytest.mark.parametrize(
    ("quantity", "units"),
    [("4", 4), (4, 4), ("3920m", 3), ("1k", 1000), ("1Ki", 1024), ("2e3", 2000), ("", 0),
     ("many", 0), (None, 0), ("NaN", 0), ("Infinity", 0)],
)  # fmt: skip
def test_whole_units_of_any_quantity(quantity, units):
    assert whole_units(quantity) == units
