"""Strategic merges, by cases that a real API server is asked about as well (``tests/api_server``)."""

from __future__ import annotations

import copy

import pytest
from support.merges import MERGES

from cosmos_operator.plan.strategic_merge import merge


@pytest.mark.parametrize(("original", "patch", "merged"), MERGES.values(), ids=MERGES)
def test_merge(original: dict, patch: dict, merged: dict) -> None:
    before = copy.deepcopy((original, patch))

    assert merge(original, patch, "PodSpec") == merged
    assert (original, patch) == before


def test_replacing_what_is_not_there_gives_the_value() -> None:
    assert merge({}, {"securityContext": {"$patch": "replace", "fsGroup": 5}}, "PodSpec") == {
        "securityContext": {"fsGroup": 5}
    }
