from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cosmos_operator.controller.router import Router, WatchEvent, read_event
from cosmos_operator.kube.kinds import JobKey

MANAGED = {"app.kubernetes.io/managed-by": "cosmos"}


def body(name: str = "x", labels: dict[str, str] | None = None, **parts: Any) -> dict[str, Any]:
    metadata = {"namespace": "n", "name": name, "uid": "u", "resourceVersion": "7"}
    metadata |= {"labels": labels, **parts.pop("metadata", {})}
    return {"metadata": metadata, **parts}


def owner(kind: str, name: str, api_version: str = "cosmos.dev/v1alpha1") -> dict[str, str]:
    return {"apiVersion": api_version, "kind": kind, "name": name, "uid": "o"}


def key(name: str) -> JobKey:
    return JobKey("PostTrainingJob", "n", name)


PTJ = WatchEvent("PostTrainingJob", "n", "one", "u", "1")
POD = WatchEvent("Pod", "n", "p", "u", "1")


def test_event_of_an_object_of_a_job():
    event = read_event("Pod", "ADDED", body(labels={**MANAGED, "cosmos.dev/job": "one"}))

    assert event == replace(POD, name="x", resource_version="7", job="one")


def test_event_names_the_jobs_that_own_the_object_and_nobody_else():
    owners = [
        owner("PostTrainingJob", "one"),
        owner("PostTrainingJob", "two"),
        owner("PostTrainingJob", "stranger", "other.dev/v1"),
        owner("Job", "j", "batch/v1"),
    ]

    event = read_event("Job", None, body(labels=MANAGED, metadata={"ownerReferences": owners}))

    assert event is not None
    assert event.owners == ("one", "two")


def test_objects_of_others_are_left_out_but_no_job_is():
    assert read_event("Pod", "ADDED", body()) is None
    assert read_event("Pod", "DELETED", body(labels={"app.kubernetes.io/managed-by": "x"})) is None
    assert read_event("PostTrainingJob", "ADDED", body()) is not None


@pytest.mark.parametrize(
    ("conditions", "is_finished"),
    [
        ([], False),
        ([{"type": "Running", "status": "True"}], False),
        ([{"type": "Succeeded", "status": "Unknown"}], False),
        ([{"type": "Succeeded", "status": "True"}], True),
        ([{"type": "Succeeded", "status": "False"}, {"type": "Failed", "status": "True"}], True),
    ],
)
def test_job_is_finished_when_a_condition_says_so(conditions, is_finished):
    event = read_event("PostTrainingJob", None, body(status={"conditions": conditions}))

    assert event is not None
    assert event.is_finished is is_finished


def test_deleted_event():
    event = read_event("PostTrainingJob", "DELETED", body())

    assert event is not None
    assert event.is_deleted


def test_label_wins_over_owners_and_owners_over_all_that_run():
    router = Router()
    router.route(PTJ)
    router.route(replace(PTJ, name="two"))
    router.route(replace(PTJ, namespace="m", name="elsewhere"))

    assert router.route(replace(POD, job="five", owners=("six",))) == [key("five")]
    assert router.route(replace(POD, owners=("six", "seven"))) == [key("six"), key("seven")]
    assert router.route(POD) == [key("one"), key("two")]


def test_jobs_that_have_ended_do_not_hear_of_shared_pods():
    router = Router()
    for name in ("one", "two", "three"):
        router.route(replace(PTJ, name=name))
    router.route(replace(PTJ, name="one", is_finished=True))
    router.route(replace(PTJ, name="two", is_deleted=True))

    assert router.route(POD) == [key("three")]


def test_job_itself_always_hears_of_its_events():
    router = Router()

    for event in (PTJ, replace(PTJ, is_finished=True), replace(PTJ, is_deleted=True)):
        assert router.route(event) == [key("one")]
