"""Fields of a newer CRD are left out and named; mistakes of people stay, so that they are refused."""

from __future__ import annotations

from typing import Any

import pytest
from support.jobs import make_document

from cosmos_operator.api import parse
from cosmos_operator.api.unknown_fields import without_unknown_fields
from cosmos_operator.plan.job_plan import plan_job


def stored(**changes: Any) -> dict[str, Any]:
    document = make_document(changes)
    document["metadata"] |= {"namespace": "default", "uid": "u", "generation": 1}
    return document


def test_known_job_is_left_as_it_is() -> None:
    document = stored()
    assert without_unknown_fields(document) == (document, ())


def test_fields_of_a_newer_version_are_left_out_wherever_they_stand() -> None:
    document = stored(**{"training.colour": "red", "novel": {"a": 1}, "inference.0.speed": 2})
    kept, ignored = without_unknown_fields(document)

    assert kept == stored()
    assert set(ignored) == {"spec.training.colour", "spec.novel", "spec.inference[0].speed"}
    assert document["spec"]["training"]["colour"] == "red", "the caller's document is not changed"


def test_plan_goes_on_without_them_and_names_them() -> None:
    plan = plan_job(stored(**{"training.colour": "red"}))

    assert plan.job is not None
    assert plan.ignored_fields == ("spec.training.colour",)
    assert plan.stages == plan_job(stored()).stages


def test_field_that_has_moved_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(parse.MOVED_FIELDS, "spec.dataset.shape", "spec.dataset.fit")
    plan = plan_job(stored(**{"dataset.shape": "Crop"}))

    assert plan.job is None
    assert "spec.dataset.fit" in plan.problems[0]


def test_wrong_value_beside_an_unknown_field_is_still_told() -> None:
    plan = plan_job(stored(**{"training.colour": "red", "compute.nodes": 0}))

    assert plan.job is None
    assert any("spec.compute.nodes" in problem for problem in plan.problems)
