"""Advice about a value of another type than its field's."""

from __future__ import annotations

import pytest

from cosmos_operator.api.wording import advice_on


@pytest.mark.parametrize("text", ["2", "-0.5", "1e3", "yes", "True"])
def test_number_in_quotes_is_to_lose_them(text: str) -> None:
    assert advice_on("int_type", text) == "; a value in quotes is a text, remove them"


@pytest.mark.parametrize("text", ["2026-02-31", "9" * 6000, "many", "12:30"])
def test_text_that_is_no_number_has_no_quotes_to_lose(text: str) -> None:
    assert advice_on("int_type", text) == ""
