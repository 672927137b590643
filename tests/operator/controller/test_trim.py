from __future__ import annotations

from typing import Any

from cosmos_operator.controller.informer import INFORMED, METADATA_ONLY
from cosmos_operator.controller.trim import SHAPES, has_ended, trim, was_edited

META: dict[str, Any] = {"name": "x", "namespace": "n", "uid": "u"}


def test_pod_keeps_what_decisions_read():
    pod = {
        "metadata": META
        | {
            "managedFields": [1],
            "annotations": {"cosmos.dev/a": "1", "other/b": "2"},
            "generateName": "x-",
        },
        "spec": {
            "nodeName": "a",
            "volumes": [1],
            "containers": [{"name": "worker", "env": [1], "resources": {"limits": {"cpu": 1}}}],
        },
        "status": {
            "phase": "Running",
            "podIP": "10.0.0.1",
            "conditions": [
                {"type": "PodScheduled", "status": "True", "lastProbeTime": None},
                {"type": "PodScheduled", "status": "False", "message": "no node"},
                {"type": "Ready", "status": "True"},
                {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"},
            ],
            "containerStatuses": [
                {"name": "worker", "ready": True, "state": {"running": {"startedAt": "t"}}}
            ],
        },
    }

    assert trim("Pod", pod) == {
        "metadata": META | {"annotations": {"cosmos.dev/a": "1"}},
        "spec": {
            "nodeName": "a",
            "containers": [{"name": "worker", "resources": {"limits": {"cpu": 1}}}],
        },
        "status": {
            "phase": "Running",
            "conditions": [
                {"type": "PodScheduled", "status": "True"},
                {"type": "PodScheduled", "status": "False", "message": "no node"},
                {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"},
            ],
            "containerStatuses": [{"name": "worker", "state": {"running": {"startedAt": "t"}}}],
        },
    }


def test_workload_keeps_its_conditions_and_no_counters():
    condition = {"type": "Failed", "status": "True", "reason": "x", "lastProbeTime": "t"}
    job = {
        "metadata": META,
        "spec": {"suspend": True, "selector": {}, "template": {"spec": {"volumes": []}}},
        "status": {"active": 1, "conditions": [condition], "startTime": "t"},
    }

    found = trim("Job", job)

    assert found["spec"] == {"suspend": True, "template": {"spec": {}}}
    del condition["lastProbeTime"]
    assert found["status"] == {"startTime": "t", "conditions": [condition]}


def test_running_job_stays_whole_but_for_what_the_api_server_notes():
    annotations = {"kubectl.kubernetes.io/last-applied-configuration": "{}", "team": "a"}
    job = {
        "metadata": META
        | {"managedFields": [1], "resourceVersion": "1", "annotations": annotations},
        "spec": {"a": {"b": 1}},
        "status": {"state": "Training"},
    }

    found = trim("PostTrainingJob", job)

    assert found == {**job, "metadata": META | {"annotations": {"team": "a"}}}


def test_end_is_final_and_an_edit_afterwards_is_seen():
    def job(generation: int, kind: str = "Succeeded", status: str = "True") -> dict[str, Any]:
        condition = {"type": kind, "status": status}
        return {
            "metadata": META | {"generation": generation},
            "status": {"observedGeneration": 1, "conditions": [condition]},
        }

    assert has_ended(job(1))
    assert has_ended(job(1, "Failed"))
    assert has_ended(job(2))
    assert was_edited(job(2))
    assert not was_edited(job(1))
    assert not has_ended(job(1, "Succeeded", "Unknown"))
    assert not has_ended({"metadata": META})


def test_nothing_is_kept_of_what_is_not_asked_for():
    assert set(METADATA_ONLY) <= set(INFORMED)
    assert {kind: SHAPES[kind] for kind in METADATA_ONLY} == {kind: {} for kind in METADATA_ONLY}
