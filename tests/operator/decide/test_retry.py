"""``spec.runPolicy.retry``: whatever has failed goes on where it was, once for each time that it is raised."""

from __future__ import annotations

import pytest
from support.attempts import outcomes, run, training
from support.decisions import Simulation

from cosmos_operator.api.labels import STAGE_LABEL


def failed_training(**policy):
    simulation = training({"runPolicy": {"maxAttempts": 1, **policy}})
    simulation.fail(simulation.running_attempt(), 1, step=20, checkpoint=20)
    simulation.settle()
    assert simulation.condition("Failed")["reason"] == "AttemptsExhausted"
    return simulation


def test_failed_training_goes_on_from_its_checkpoint_with_its_attempts_forgiven():
    simulation = failed_training()
    assert "spec.runPolicy.retry=1" in simulation.status["message"]

    simulation.edit({"runPolicy.retry": 1})
    simulation.settle()

    assert outcomes(simulation) == ["Crashed", "Running"]
    assert simulation.attempts[-1]["startStep"] == 20
    assert simulation.status["failedAttempts"] == 0
    assert simulation.status["retry"] == 1
    assert simulation.condition("Failed")["status"] == "False"
    assert "completionTime" not in simulation.status


def test_counter_is_honoured_once():
    simulation = failed_training()
    simulation.edit({"runPolicy.retry": 1})
    simulation.settle()
    run(simulation, 30)
    simulation.fail(simulation.running_attempt(), 1, step=30)
    simulation.settle()

    assert simulation.status["state"] == "Failed"
    assert "spec.runPolicy.retry=2" in simulation.status["message"]
    assert simulation.decide().actions == ()
    simulation.edit({"runPolicy.retry": 2})
    simulation.settle()
    assert outcomes(simulation) == ["Crashed", "Crashed", "Running"]


@pytest.mark.parametrize("change", [{"runPolicy.maxAttempts": 9}, {"compute.image": "worker:2"}])
def test_failure_is_final_whatever_else_is_edited(change):
    simulation = failed_training()
    simulation.edit(change)
    simulation.settle()

    assert simulation.status["state"] == "Failed"
    assert outcomes(simulation) == ["Crashed"]


def test_counter_of_a_new_job_has_nothing_to_try_again():
    simulation = failed_training(retry=3)

    assert simulation.status["retry"] == 3
    assert "spec.runPolicy.retry=4" in simulation.status["message"]
    assert outcomes(simulation) == ["Crashed"]


def test_error_of_the_user_is_tried_again_once_it_is_mended():
    simulation = training()
    simulation.fail(simulation.running_attempt(), 2, "DataError", message="window 3: no latents")
    simulation.settle()
    assert simulation.condition("Failed")["reason"] == "DataError"

    simulation.edit({"runPolicy": {"retry": 1}})
    simulation.settle()
    assert outcomes(simulation) == ["UserError", "Running"]


@pytest.mark.parametrize("stage", ["prepare-dataset", "fetch-model"])
def test_failed_stage_is_begun_anew(stage):
    simulation = Simulation()
    simulation.settle()
    simulation.fail(simulation.stage_job(stage), 2, "DataError", message="no clips")
    simulation.settle()
    before = simulation.stage_job(stage)["metadata"]["uid"]
    assert simulation.status["state"] == "Failed"

    simulation.edit({"runPolicy": {"retry": 1}})
    simulation.settle()

    assert simulation.stage_job(stage)["metadata"]["uid"] != before
    assert simulation.status["state"] == "Preparing"
    assert simulation.status["retry"] == 1


def test_operator_that_ends_before_it_deletes_the_failed_stage_goes_on():
    simulation = Simulation()
    simulation.settle()
    failed = simulation.stage_job("fetch-model")
    simulation.fail(failed, 2, "DataError")
    simulation.settle()
    simulation.edit({"runPolicy": {"retry": 1}})
    decision = simulation.decide()
    simulation.document["status"] = decision.status  # written, and nothing was done
    simulation.settle()

    assert simulation.stage_job("fetch-model")["metadata"]["uid"] != failed["metadata"]["uid"]
    assert simulation.status["state"] == "Preparing"


def test_failed_publishing_and_failed_videos_are_tried_again():
    simulation = training()
    simulation.succeed(simulation.running_attempt(), step=40, checkpoint=40)
    simulation.settle()
    simulation.fail(simulation.stage_job("publish"), 2, "ConfigError", message="name is taken")
    simulation.settle()
    assert simulation.status["state"] == "Failed"
    simulation.edit({"runPolicy": {"retry": 1}})
    simulation.settle()
    simulation.succeed(simulation.stage_job("publish"))
    simulation.settle()
    for kind in ("before", "after"):
        job = simulation.stage_job(f"generate-{kind}")
        if "status" not in job:
            simulation.fail(job, 2, "DataError", message="no such image")
    simulation.settle()
    assert simulation.condition("Failed")["reason"] == "InferenceFailed"

    simulation.edit({"runPolicy": {"retry": 2}})
    simulation.settle()
    for (kind, _), one in list(simulation.objects.items()):
        if kind == "Job" and one["metadata"]["labels"][STAGE_LABEL].startswith("generate"):
            simulation.succeed(one)
    simulation.prepare()
    assert simulation.status["state"] == "Succeeded"
    assert outcomes(simulation) == ["Succeeded"]


def test_invalid_job_is_tried_again_once_it_is_corrected():
    simulation = Simulation({"compute.processesPerNode": 3})
    simulation.settle()
    assert simulation.condition("Failed")["reason"] == "InvalidSpec"
    assert "spec.runPolicy.retry=1" in simulation.status["message"]

    simulation.edit({"compute.processesPerNode": 2, "runPolicy": {"retry": 1}})
    simulation.settle()
    assert simulation.status["state"] == "Preparing"
