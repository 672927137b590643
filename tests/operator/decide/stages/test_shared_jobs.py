"""Jobs of stages that several PostTrainingJobs use: given up, adopted, and never blamed for another's settings."""

from __future__ import annotations

from support.decisions import Simulation

from cosmos_operator.decide.decision import AddOwner, Create, Delete, GiveUp
from cosmos_operator.kube.objects import format_time

ANOTHER = {"uid": "another"}


def shared(changes=None):
    """A job that downloads its model together with another one; returns the shared Job too."""
    simulation = Simulation(changes)
    simulation.settle()
    job = simulation.stage_job("fetch-model")
    simulation.start_pods(job)
    for kind in ("Job", "ConfigMap"):
        one = simulation.objects[kind, job["metadata"]["name"]]
        one["metadata"]["ownerReferences"].append(ANOTHER)
    return simulation, job


def suspend(simulation, value=True):
    simulation.document["spec"]["runPolicy"] = {"suspend": value}
    simulation.settle()


def failed_of_another(simulation, image="other"):
    """The shared Job has failed in the pods of another job, which asked for another image."""
    job = simulation.stage_job("fetch-model")
    job["metadata"]["ownerReferences"] = [ANOTHER]
    job["metadata"]["annotations"]["cosmos.dev/template"] = image
    simulation.pass_time(1)
    simulation.fail(job, 137, "OOMKilled")
    return job


def test_suspended_job_leaves_the_stage_to_the_other_and_takes_it_up_again():
    simulation, job = shared()
    suspend(simulation)
    assert job["metadata"]["ownerReferences"] == [ANOTHER]
    assert "deletionTimestamp" not in job["metadata"]
    assert simulation.status["state"] == "Suspended"

    suspend(simulation, False)
    assert {one["uid"] for one in job["metadata"]["ownerReferences"]} == {"another", "job-uid"}


def test_last_user_that_is_suspended_stops_the_stage():
    simulation, job = shared()
    for kind in ("Job", "ConfigMap"):
        one = simulation.objects[kind, job["metadata"]["name"]]
        one["metadata"]["ownerReferences"].remove(ANOTHER)
    suspend(simulation)

    assert "deletionTimestamp" in job["metadata"]
    assert ("ConfigMap", job["metadata"]["name"]) not in simulation.objects


def test_suspended_job_adopts_nothing():
    simulation, job = shared()
    job["metadata"]["ownerReferences"] = [ANOTHER]
    simulation.document["spec"]["runPolicy"] = {"suspend": True}
    actions = simulation.step().actions

    assert not [action for action in actions if isinstance(action, AddOwner)]


def test_two_jobs_that_give_up_at_once_stop_the_stage_in_the_end():
    """The API server refuses the second change of the same version; that job then finds that it is the last."""
    simulation, job = shared()
    simulation.document["spec"]["runPolicy"] = {"suspend": True}
    first = [a for a in simulation.decide().actions if isinstance(a, GiveUp)]
    assert [(a.kind, a.deletes) for a in first if a.name == job["metadata"]["name"]] == [
        ("Job", True), ("ConfigMap", False),
    ]  # fmt: skip

    job["metadata"]["ownerReferences"].remove(ANOTHER)  # the other was faster, ours was refused
    simulation.settle()
    assert "deletionTimestamp" in job["metadata"]


def test_failure_of_another_jobs_settings_is_tried_again_with_our_own():
    simulation = Simulation()
    simulation.settle()
    job = failed_of_another(simulation)
    decision = simulation.step()
    assert not [a for a in decision.actions if isinstance(a, AddOwner) and a.kind == "Job"]
    assert [a.uid for a in decision.actions if isinstance(a, Delete)] == [job["metadata"]["uid"]]
    assert "settings of another job" in simulation.condition("ModelReady")["message"]

    simulation.remove_deleted()
    decision = simulation.settle()
    made = simulation.stage_job("fetch-model")
    assert made["metadata"]["uid"] != job["metadata"]["uid"]
    assert [one["uid"] for one in made["metadata"]["ownerReferences"]] == ["job-uid"]


def test_failure_with_our_own_settings_is_our_failure():
    simulation, job = shared()
    simulation.pass_time(1)
    simulation.fail(job, 2, "ConfigError", message="no such repository")
    simulation.settle()

    assert simulation.condition("Failed")["reason"] == "ConfigError"


def test_failed_job_that_is_let_go_on_repeats_the_stage_that_failed():
    simulation = Simulation()
    simulation.settle()
    simulation.pass_time(60)
    simulation.fail(simulation.stage_job("prepare-dataset"), 74, "OSError", message="disk full")
    simulation.settle()
    assert simulation.status["state"] == "Failed"
    name = simulation.stage_job("prepare-dataset")["metadata"]["name"]

    simulation.pass_time(60)
    simulation.edit({"runPolicy.retry": 1})
    actions = simulation.step().actions
    assert name in [action.name for action in actions if isinstance(action, Delete)]
    actions = simulation.step().actions
    assert name in [a.manifest["metadata"]["name"] for a in actions if isinstance(a, Create)]

    simulation.pass_time(60)
    simulation.fail(simulation.stage_job("prepare-dataset"), 74, "OSError", message="disk full")
    simulation.settle()
    assert simulation.status["state"] == "Failed"


def test_failed_job_gives_up_what_still_runs_for_others():
    simulation, job = shared()
    simulation.fail(simulation.stage_job("prepare-dataset"), 2, "DataError")
    simulation.settle()

    assert job["metadata"]["ownerReferences"] == [ANOTHER]
    assert "deletionTimestamp" not in job["metadata"]


def test_time_of_a_node_does_not_make_a_failure_that_of_an_earlier_job():
    simulation = Simulation()
    simulation.settle()
    (pod,) = simulation.start_pods(simulation.stage_job("fetch-model"))
    simulation.inject(pod)
    simulation.end_pod(pod, 2, "ConfigError", message="no such repository")
    ended = pod["status"]["containerStatuses"][-1]["state"]["terminated"]
    now = simulation.now
    simulation.pass_time(-86_400)
    ended["finishedAt"] = format_time(simulation.now)
    simulation.now = now
    simulation.settle()

    assert simulation.condition("Failed")["reason"] == "ConfigError"


def test_job_that_waits_in_the_queue_of_another_is_left_to_it():
    served = frozenset({"PyTorchJob", "LocalQueue", "Workload"})
    changes = {
        "scheduling": {"queueName": "team-a"},
        "compute": {"preparation": {"gpus": 1}, "gpusPerNode": 1},
    }
    simulation = Simulation(changes, served=served)
    simulation.extra["queue_names"] = ("team-a", "team-b")
    for _ in range(4):
        simulation.settle()
        for job in [one for (kind, _), one in simulation.objects.items() if kind == "Job"]:
            if not job["spec"]["suspend"] and "status" not in job:
                simulation.succeed(job)
    job = simulation.stage_job("embed-text")
    assert job["spec"]["suspend"]
    job["metadata"]["ownerReferences"].append(ANOTHER)

    simulation.edit({"scheduling.queueName": "team-b"})
    simulation.settle()
    kept = simulation.stage_job("embed-text")["metadata"]
    assert kept["labels"]["kueue.x-k8s.io/queue-name"] == "team-a"
