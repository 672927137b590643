"""Stages in whose pods other containers live on, or fail, when the worker has ended: the result is the worker's."""

from __future__ import annotations

import pytest
from support.decisions import Simulation

from cosmos_operator.decide.decision import Delete
from cosmos_operator.kube.objects import format_time


def injected(stage="fetch-model"):
    """A job of which a stage runs beside another container; returns the Job and the pod too."""
    simulation = Simulation()
    simulation.settle()
    job = simulation.stage_job(stage)
    (pod,) = simulation.start_pods(job)
    simulation.inject(pod)
    simulation.settle()
    return simulation, job, pod


def result(simulation, stage="fetch-model"):
    return next((one for one in simulation.status["stages"] if one["name"] == stage), None)


def deletions(simulation, kind):
    return [
        a for d in simulation.log for a in d.actions if isinstance(a, Delete) and a.kind == kind
    ]


def test_success_counts_at_once_and_the_pod_is_ended_after_a_while():
    simulation, job, pod = injected()
    simulation.end_pod(pod, 0, "Succeeded", message="fetched")
    simulation.settle()
    assert simulation.condition("ModelReady")["status"] == "True"
    assert result(simulation)["state"] == "Succeeded"
    assert "deletionTimestamp" not in job["metadata"]

    simulation.pass_time(21)
    simulation.settle()
    assert "deletionTimestamp" in job["metadata"]
    found = result(simulation)
    assert (found["state"], found["reason"]) == ("Succeeded", "OtherContainersLived")
    assert "'istio-proxy' did not end with the worker" in found["message"]
    events = [event for decision in simulation.log for event in decision.events]
    assert [event.is_warning for event in events if event.reason == "OtherContainersLived"] == [
        True
    ]

    simulation.remove_deleted()
    simulation.settle()
    assert simulation.condition("ModelReady")["status"] == "True"


def test_container_that_ends_soon_after_the_worker_is_not_told():
    simulation, job, pod = injected()
    simulation.end_pod(pod, 0, "Succeeded")
    simulation.settle()
    simulation.end_sidecars(pod)
    simulation.finish(job)
    simulation.pass_time(60)
    simulation.settle()

    assert not deletions(simulation, "Job")
    assert result(simulation).get("reason", "") == ""


def test_clock_of_a_node_that_is_ahead_does_not_keep_the_pod():
    simulation, job, pod = injected()
    simulation.end_pod(pod, 0, "Succeeded")
    ended = pod["status"]["containerStatuses"][-1]["state"]["terminated"]
    simulation.pass_time(7200)
    ended["finishedAt"] = format_time(simulation.now)
    simulation.pass_time(-7200)
    simulation.settle()

    assert "deletionTimestamp" in job["metadata"]


def test_mistake_of_the_user_fails_the_job_at_once_and_stops_what_is_left():
    simulation, job, pod = injected("prepare-dataset")
    simulation.logs[pod["metadata"]["name"]] = "reads /data\nno clips in /data\n"
    simulation.end_pod(pod, 2, "DataError", message="no clips in /data")
    simulation.settle()

    failed = simulation.condition("Failed")
    assert (failed["status"], failed["reason"]) == ("True", "DataError")
    assert failed["message"].startswith("prepare-dataset: no clips in /data; once that is mended, ")
    assert result(simulation, "prepare-dataset")["lastLines"] == [
        "reads /data",
        "no clips in /data",
    ]
    assert "deletionTimestamp" in job["metadata"]


def test_failure_that_is_tried_again_ends_the_pod_so_that_the_job_can():
    simulation, _, pod = injected()
    simulation.end_pod(pod, 74, "OSError", message="disk full")
    simulation.settle()
    assert simulation.condition("Failed")["status"] == "False"
    assert "is tried again: disk full" in simulation.condition("ModelReady")["message"]
    assert not deletions(simulation, "Pod")

    simulation.pass_time(21)
    simulation.settle()
    assert {a.name for a in deletions(simulation, "Pod")} == {pod["metadata"]["name"]}
    assert len({a.uid for a in deletions(simulation, "Pod")}) == 1
    assert not deletions(simulation, "Job")
    found = result(simulation)
    assert (found["state"], found["reason"]) == ("Retrying", "OSError")
    assert "disk full; pod" in found["message"]


def test_words_of_a_worker_whose_pod_was_ended_explain_the_job_that_fails_in_the_end():
    simulation, job, pod = injected()
    simulation.end_pod(pod, 74, "OSError", message="disk full")
    simulation.pass_time(21)
    simulation.settle()
    simulation.remove_deleted()
    simulation.finish(job, "Failed", "Job has reached the specified backoff limit")
    simulation.settle()

    failed = simulation.condition("Failed")
    assert failed["reason"] == "OSError"
    assert "disk full" in failed["message"]


@pytest.mark.parametrize("exit_code", [1, 137])
def test_container_that_fails_beside_a_worker_that_has_succeeded_changes_nothing(exit_code):
    simulation, job, pod = injected()
    simulation.end_pod(pod, 0, "Succeeded", message="fetched")
    simulation.end_sidecars(pod, exit_code)
    simulation.settle()
    assert simulation.condition("ModelReady")["status"] == "True"

    simulation.pass_time(21)
    simulation.settle()
    assert [a.name for a in deletions(simulation, "Job")] == [job["metadata"]["name"]]


def test_another_job_that_shares_the_stage_takes_the_result_of_a_job_that_is_being_deleted():
    simulation, job, pod = injected()
    simulation.end_pod(pod, 0, "Succeeded", message="fetched")
    job["metadata"]["ownerReferences"] = [{"uid": "another"}]
    job["metadata"]["deletionTimestamp"] = format_time(simulation.now)
    simulation.settle()

    assert simulation.condition("ModelReady")["status"] == "True"
    assert job["metadata"]["ownerReferences"] == [{"uid": "another"}]


def test_rules_of_the_job_look_at_the_worker_only():
    simulation = Simulation()
    simulation.settle()
    rules = simulation.stage_job("fetch-model")["spec"]["podFailurePolicy"]["rules"]

    (codes,) = [rule["onExitCodes"] for rule in rules if "onExitCodes" in rule]
    assert codes == {"containerName": "worker", "operator": "In", "values": [1, 2]}
