"""Edits of a job whose training has begun: what the next attempt has, what is refused, what memory is given."""

from __future__ import annotations

import pytest
import yaml
from support.attempts import TWO_NODES, outcomes, run, training
from support.decisions import Simulation

from cosmos_operator.decide.decision import Delete

MEMORY = {"compute.resources": {"limits": {"memory": "8Gi"}}, "compute.processesPerNode": 1}
CONSTANT = {"training.overrides": ["optimizer.final_factor=1"]}
"""The learning rate stays as it is after the warm-up, so that a run may become longer."""


def template(simulation):
    spec = simulation.running_attempt()["spec"]
    return spec["pytorchReplicaSpecs"]["Master"]["template"]["spec"]


def document(simulation):
    """The document that the pods of the latest attempt read."""
    (name,) = [
        one["configMap"]["name"] for one in template(simulation)["volumes"] if "configMap" in one
    ]
    return yaml.safe_load(simulation.objects["ConfigMap", name]["data"]["stage.yaml"])


def suspend_and_resume(simulation):
    simulation.edit({"runPolicy": {"suspend": True}})
    simulation.settle()
    simulation.remove_deleted()
    simulation.settle()
    simulation.edit({"runPolicy": {"suspend": False}})
    simulation.settle()


def run_out(simulation, exit_code=137, reason="OutOfMemory", step=None):
    """The latest attempt runs out of memory."""
    simulation.fail(simulation.running_attempt(), exit_code, reason, step=step)
    simulation.step()
    simulation.pass_time(600)
    simulation.settle()


# --- from the next attempt on --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"compute.image": "worker:2"}, lambda pod: pod["containers"][0]["image"] == "worker:2"),
        (
            {"compute.resources": {"limits": {"memory": "9Gi"}}},
            lambda pod: pod["containers"][0]["resources"]["limits"]["memory"] == "9Gi",
        ),
        (
            {"compute.sharedMemory": "1Gi"},
            lambda pod: "1Gi" in [v.get("emptyDir", {}).get("sizeLimit") for v in pod["volumes"]],
        ),
        (
            {"scheduling": {"nodeSelector": {"disk": "fast"}, "priorityClassName": "high"}},
            lambda pod: (
                (pod["nodeSelector"], pod["priorityClassName"]) == ({"disk": "fast"}, "high")
            ),
        ),
        ({"compute.processesPerNode": 1}, lambda pod: pod["containers"][0]["command"][-1] == "1"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_edit_of_a_running_training_waits_for_its_next_attempt(change, found):
    simulation = training()
    before = simulation.running_attempt()["metadata"]["uid"]
    simulation.edit(change)
    simulation.settle()

    assert simulation.running_attempt()["metadata"]["uid"] == before
    applied = simulation.condition("SpecApplied")
    assert (applied["status"], applied["reason"]) == ("False", "NextAttempt")
    assert "attempt 1" in applied["message"]
    assert "an edit of spec waits" in simulation.status["message"]
    assert "NextAttempt" in [event.reason for one in simulation.log for event in one.events]

    suspend_and_resume(simulation)
    assert outcomes(simulation) == ["Suspended", "Running"]
    assert found(template(simulation))
    assert simulation.condition("SpecApplied")["status"] == "True"


def test_number_of_nodes_may_change_and_the_attempt_that_runs_keeps_its_own():
    simulation = training(TWO_NODES)
    run(simulation, 12)
    simulation.edit({"compute.nodes": 1})
    simulation.settle()

    assert outcomes(simulation) == ["Running"]
    assert "2 of 2 pods" in simulation.condition("Running")["message"]
    suspend_and_resume(simulation)
    assert "Worker" not in simulation.running_attempt()["spec"]["pytorchReplicaSpecs"]


def test_number_of_processes_that_does_not_divide_the_batch_is_told_and_what_runs_goes_on():
    simulation = training()
    simulation.edit({"compute.nodes": 3})
    simulation.settle()

    accepted = simulation.condition("Accepted")
    assert (accepted["status"], accepted["reason"]) == ("False", "NotAdmittedAnyMore")
    assert "do not divide the global batch" in accepted["message"]
    assert outcomes(simulation) == ["Running"]


def test_attempt_that_has_not_started_is_made_anew_with_the_edit():
    simulation = Simulation({"compute.image": "worker:missing"})
    simulation.prepare()
    simulation.start_pods(simulation.running_attempt(), "Pending")
    simulation.settle()
    simulation.edit({"compute.image": "worker:2"})
    simulation.settle()
    simulation.remove_deleted()
    simulation.settle()

    assert outcomes(simulation) == ["Edited", "Running"]
    assert template(simulation)["containers"][0]["image"] == "worker:2"
    assert simulation.status["failedAttempts"] == 0


def test_attempt_in_a_queue_goes_to_the_queue_that_is_named_instead():
    served = frozenset({"PyTorchJob", "LocalQueue", "Workload"})
    simulation = Simulation({"scheduling": {"queueName": "team-a"}}, served=served)
    simulation.extra["queue_names"] = ("team-a", "team-b")
    simulation.prepare()
    simulation.edit({"scheduling.queueName": "team-b"})
    simulation.settle()

    assert outcomes(simulation) == ["Edited", "Running"]
    queue = simulation.running_attempt()["metadata"]["labels"]["kueue.x-k8s.io/queue-name"]
    assert queue == "team-b"


def test_attempt_whose_deletion_was_refused_is_deleted_before_the_next_begins():
    served = frozenset({"PyTorchJob", "LocalQueue", "Workload"})
    simulation = Simulation({"scheduling": {"queueName": "team-a"}}, served=served)
    simulation.extra["queue_names"] = ("team-a", "team-b")
    simulation.prepare()
    simulation.edit({"scheduling.queueName": "team-b"})
    refused = simulation.decide()
    assert any(isinstance(action, Delete) for action in refused.actions)
    simulation.document["status"] = refused.status  # it is written before the actions

    decision = simulation.step()
    assert [action.kind for action in decision.actions if isinstance(action, Delete)] == [
        "PyTorchJob"
    ]
    assert outcomes(simulation) == ["Edited"]
    simulation.settle()
    assert outcomes(simulation) == ["Edited", "Running"]


def test_backend_may_change_and_takes_the_training_over():
    simulation = training(served=frozenset({"PyTorchJob"}))
    simulation.edit({"backend": {"type": "Job"}})
    suspend_and_resume(simulation)
    run(simulation, 20)

    assert [one["backend"] for one in simulation.attempts] == ["PyTorchJob", "Job"]
    assert simulation.workload_names("PyTorchJob") == []


def test_pace_of_checkpoints_reaches_the_next_attempt():
    simulation = training({"checkpoints": {"everySteps": 10}})
    assert document(simulation)["experiment"]["trainer"]["save_every_steps"] == 10
    simulation.edit({"checkpoints": {"everySteps": 5, "everyMinutes": 30}})
    suspend_and_resume(simulation)

    trainer = document(simulation)["experiment"]["trainer"]
    assert (trainer["save_every_steps"], trainer["save_every_minutes"]) == (5, 30)


def test_one_node_is_enough_for_a_claim_that_serves_one_only():
    simulation = Simulation({"compute.nodes": 2, "compute.processesPerNode": 1})
    simulation.add_claim("cosmos", accessModes=["ReadWriteOnce"])
    simulation.settle()
    assert "or spec.compute.nodes=1" in simulation.condition("StorageReady")["message"]

    simulation.edit({"compute.nodes": 1})
    simulation.prepare()
    assert simulation.condition("StorageReady")["status"] == "True"
    assert outcomes(simulation) == ["Running"]


# --- number of steps -----------------------------------------------------------------------------


def test_more_steps_are_done_by_another_attempt_before_anything_is_published():
    simulation = training(CONSTANT)
    simulation.edit({"training.steps": 60})
    simulation.settle()
    assert outcomes(simulation) == ["Running"]
    assert simulation.condition("SpecApplied")["reason"] == "NextAttempt"

    simulation.succeed(simulation.running_attempt(), step=40, checkpoint=40)
    simulation.settle()

    assert outcomes(simulation) == ["Succeeded", "Running"]
    assert document(simulation)["experiment"]["trainer"]["max_steps"] == 60
    assert "cosmos-publish" not in str(simulation.workload_names("Job"))
    simulation.succeed(simulation.running_attempt(), step=60, checkpoint=60)
    simulation.prepare()
    assert simulation.status["state"] == "Succeeded"
    assert simulation.status["progress"]["summary"] == "60/60"


def test_more_steps_are_refused_where_the_learning_rate_falls_towards_the_end():
    simulation = training()
    simulation.edit({"training.steps": 60})
    simulation.settle()

    applied = simulation.condition("SpecApplied")
    assert (applied["status"], applied["reason"]) == ("False", "Refused")
    assert "the learning rate falls" in applied["message"]
    assert "goes on to 40 steps" in applied["message"]
    simulation.succeed(simulation.running_attempt(), step=40, checkpoint=40)
    simulation.prepare()
    assert outcomes(simulation) == ["Succeeded"]
    assert simulation.status["outputs"][0]["step"] == 40


def test_more_steps_come_too_late_once_the_model_is_being_published():
    simulation = training(CONSTANT)
    simulation.succeed(simulation.running_attempt(), step=40, checkpoint=40)
    simulation.settle()
    assert simulation.status["state"] == "Publishing"
    simulation.edit({"training.steps": 60})
    simulation.settle()

    applied = simulation.condition("SpecApplied")
    assert applied["reason"] == "Refused"
    assert "spec.checkpoints.from.job: push" in applied["message"]
    assert outcomes(simulation) == ["Succeeded"]


def test_fewer_steps_than_those_of_the_experiment_are_refused():
    simulation = training({**CONSTANT, "training.steps": None})
    steps = simulation.status["run"]["steps"]
    simulation.edit({"training.steps": 5})
    simulation.settle()

    assert simulation.condition("SpecApplied")["reason"] == "Refused"
    assert f"fewer than the {steps}" in simulation.condition("SpecApplied")["message"]


def test_option_that_decides_the_weights_is_refused_by_name_and_the_training_goes_on():
    simulation = training()
    simulation.edit({"training.overrides": ["optimizer.learning_rate=0.5"]})
    simulation.settle()

    applied = simulation.condition("SpecApplied")
    assert applied["reason"] == "Refused"
    assert "optimizer.learning_rate" in applied["message"]
    suspend_and_resume(simulation)
    assert document(simulation)["experiment"]["optimizer"]["learning_rate"] != 0.5


# --- memory --------------------------------------------------------------------------------------


def test_training_without_memory_is_suspended_and_goes_on_once_its_limit_is_raised():
    simulation = training(MEMORY)
    run_out(simulation, step=20)
    assert outcomes(simulation) == ["OutOfMemory", "Running"]
    run_out(simulation)
    run_out(simulation)

    assert outcomes(simulation) == ["OutOfMemory"] * 3
    held = simulation.condition("Suspended")
    assert (held["status"], held["reason"]) == ("True", "OutOfMemory")
    assert "spec.compute.resources.limits.memory=8Gi" in held["message"]
    assert simulation.status["state"] == "Suspended"
    assert simulation.condition("Failed")["status"] == "False"
    assert simulation.decide().actions == ()

    simulation.edit({"compute.resources": {"limits": {"memory": "16Gi"}}})
    simulation.settle()
    assert outcomes(simulation)[-1] == "Running"
    assert template(simulation)["containers"][0]["resources"]["limits"]["memory"] == "16Gi"
    assert simulation.condition("Suspended")["status"] == "False"
    assert simulation.status["failedAttempts"] == 0


def test_lack_of_gpu_memory_names_the_options_that_take_less():
    overrides = ["trainer.micro_batch_size=2"]
    simulation = training({"training.overrides": overrides, "compute.processesPerNode": 2})
    for _ in range(3):
        run_out(simulation, 1)

    held = simulation.condition("Suspended")
    assert held["reason"] == "OutOfMemory"
    assert "trainer.micro_batch_size=1 (it had 2)" in held["message"]
    assert "parallel.sharding=full" in held["message"]

    less = ["trainer.micro_batch_size=1", "parallel.activation_checkpointing=block"]
    simulation.edit({"training.overrides": [*less, "parallel.sharding=full"]})
    simulation.settle()
    assert outcomes(simulation)[-1] == "Running"
    assert document(simulation)["experiment"]["trainer"]["micro_batch_size"] == 1
    assert simulation.condition("SpecApplied")["status"] == "True"


def test_held_training_tries_the_same_again_when_it_is_told_to():
    simulation = training(MEMORY)
    for _ in range(3):
        run_out(simulation)
    assert simulation.condition("Suspended")["reason"] == "OutOfMemory"
    assert "spec.runPolicy.retry is raised to 1" in simulation.status["message"]

    simulation.edit({"runPolicy": {"retry": 1}})
    simulation.settle()
    assert outcomes(simulation)[-1] == "Running"
    assert simulation.status["retry"] == 1
