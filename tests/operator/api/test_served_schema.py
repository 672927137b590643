"""A status for a CustomResourceDefinition of another version."""

from __future__ import annotations

import copy
from typing import Any

from cosmos_operator.api.crd import build_crd
from cosmos_operator.api.served_schema import fit, lacking


def own_schema() -> Any:
    return build_crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]


CONDITIONS = [
    {
        "type": name,
        "status": "True",
        "reason": "Ready",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }
    for name in ("Accepted", "LatentsReady")
]
STATUS = {
    "state": "Training",
    "conditions": CONDITIONS,
    "progress": {"step": 3, "summary": "3/9"},
    "attempts": [{"number": 1, "backend": "Job", "workload": "w", "outcome": "Running"}],
}


def older_schema() -> Any:
    """One word and two fields less, as closed sets that earlier versions had."""
    schema = copy.deepcopy(own_schema())
    properties = schema["properties"]
    properties["conditions"]["items"]["properties"]["type"]["enum"] = ["Accepted", "Running"]
    properties["attempts"]["items"]["properties"]["outcome"]["enum"] = ["Succeeded"]
    properties["state"]["enum"] = ["Pending", "Training"]
    del properties["progress"]["properties"]["summary"]
    return schema


def test_nothing_is_lacking_in_the_schema_of_this_version() -> None:
    assert not list(lacking(own_schema(), own_schema(), "status"))
    assert fit(STATUS, own_schema()) == STATUS


def test_older_schema_gets_what_it_knows() -> None:
    written = fit(STATUS, older_schema())

    assert written["conditions"] == CONDITIONS[:1], "an item without its required word is no item"
    assert written["progress"] == {"step": 3}
    assert written["attempts"] == [{"number": 1, "backend": "Job", "workload": "w"}]
    assert written["state"] == "Training"


def test_what_is_lacking_is_named() -> None:
    found = set(lacking(older_schema(), own_schema(), "status"))

    assert "status.progress.summary" in found
    assert "status.conditions.type (any word)" in found
    assert len(found) == 4


def test_newer_schema_lacks_nothing() -> None:
    newer = copy.deepcopy(own_schema())
    newer["properties"]["colour"] = {"type": "string"}

    assert not list(lacking(newer, own_schema(), "status"))
    assert fit(STATUS, newer) == STATUS


def test_objects_whose_fields_nobody_checks_are_left_whole() -> None:
    assert fit({"a": {"b": 1}}, {"type": "object"}) == {"a": {"b": 1}}
    assert fit({"a": "x", "b": "y"}, {"additionalProperties": {"enum": ["x"]}}) == {"a": "x"}
