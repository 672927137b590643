"""Decisions on an InferenceJob: its model, its stages, its end."""

from __future__ import annotations

import copy

import pytest
from support.decisions import InferenceSimulation, Simulation
from support.jobs import make_document

from cosmos_operator.decide.decision import Delete

OWN = {
    "model": {"published": "pushing-tiny"},
    "experiment": "video2world_instruction_push_tiny",
}


def model_job(*conditions, state="Training", **changes):
    document = make_document(changes)
    document["metadata"] |= {"namespace": "lab", "uid": "trained", "generation": 1}
    stamp = {"reason": "R", "message": "it is so", "lastTransitionTime": "2026-01-31T12:00:00Z"}
    found = [{"type": one, "status": "True", **stamp} for one in conditions]
    document["status"] = {"state": state, "conditions": found}
    return document


def stages(simulation):
    return [
        one["metadata"]["labels"]["cosmos.dev/stage"]
        for (kind, _), one in simulation.objects.items()
        if kind == "Job"
    ]


def finish(simulation, **result):
    for _ in range(6):
        simulation.settle()
        for (kind, _), one in list(simulation.objects.items()):
            if kind == "Job" and "status" not in one:
                simulation.succeed(one, result=result or {"videos": 2})
    simulation.settle()


def test_it_waits_for_the_training_and_then_generates():
    simulation = InferenceSimulation(model_job=model_job())
    simulation.settle()

    found = simulation.condition("ModelReady")
    assert (found["status"], found["reason"]) == ("False", "WaitsForJob")
    assert "'push' has published its model; it is Training" in found["message"]
    assert simulation.status["state"] == "Pending"
    assert stages(simulation) == []

    simulation.model_job = model_job("Published", "Succeeded", state="Succeeded")
    finish(simulation)
    assert stages(simulation) == ["fetch-model", "check-inputs", "generate-after", "report"]
    assert simulation.condition("Succeeded")["status"] == "True"
    assert simulation.condition("Ready")["status"] == "True"
    assert simulation.status["message"] == "2 videos"
    assert [one["name"] for one in simulation.status["outputs"]] == ["report"]
    assert not {"attempts", "failedAttempts", "progress"} & set(simulation.status)


def test_objects_belong_to_the_inference_job():
    simulation = InferenceSimulation(model_job=model_job("Published"))
    finish(simulation)

    generate = simulation.stage_job("generate-after")["metadata"]
    assert generate["ownerReferences"][0]["kind"] == "InferenceJob"
    assert generate["labels"]["cosmos.dev/inference-job"] == "more"
    assert generate["name"].endswith("-ij")


def test_job_that_failed_may_be_tried_again_so_it_is_waited_for():
    simulation = InferenceSimulation(model_job=model_job("Failed", state="Failed"))
    simulation.settle()

    found = simulation.condition("ModelReady")
    assert found["reason"] == "JobFailed"
    assert "has failed and published no model: it is so" in found["message"]
    assert simulation.condition("Failed")["status"] == "False"

    simulation.model_job = model_job("Published", state="Generating")
    finish(simulation)
    assert simulation.status["state"] == "Succeeded"


def test_published_model_of_a_job_that_failed_afterwards_is_used():
    simulation = InferenceSimulation(model_job=model_job("Published", "Failed", state="Failed"))
    finish(simulation)

    assert simulation.status["state"] == "Succeeded"


def test_unknown_job_is_waited_for_five_minutes_and_then_refused():
    simulation = InferenceSimulation()
    simulation.settle()
    found = simulation.condition("ModelReady")
    assert found["reason"] == "JobNotFound"
    assert "no PostTrainingJob 'push' in this namespace (there: other)" in found["message"]
    assert "create it within 5m00s, otherwise this job fails" in found["message"]
    assert simulation.status["state"] == "Pending"

    simulation.pass_time(301)
    simulation.settle()
    failed = simulation.condition("Failed")
    assert (failed["status"], failed["reason"]) == ("True", "JobNotFound")
    assert "; create that job; once that is mended, spec.runPolicy.retry=1" in failed["message"]


def test_job_that_is_deleted_while_it_is_waited_for_may_come_back_within_five_minutes():
    simulation = InferenceSimulation(model_job=model_job())
    simulation.settle()
    simulation.pass_time(7200)
    simulation.settle()

    simulation.model_job = None
    simulation.settle()
    assert simulation.status["state"] == "Pending"
    simulation.pass_time(200)
    simulation.model_job = model_job()
    simulation.settle()
    assert simulation.condition("ModelReady")["reason"] == "WaitsForJob"

    simulation.model_job = None
    simulation.settle()
    simulation.pass_time(301)
    simulation.settle()
    assert simulation.condition("Failed")["reason"] == "JobNotFound"


def test_model_of_a_job_that_is_deleted_meanwhile_is_still_used():
    simulation = InferenceSimulation(model_job=model_job("Published"))
    simulation.settle()
    assert ("ConfigMap", "more-model-ij") in simulation.objects

    simulation.model_job = None
    simulation.pass_time(9999)
    finish(simulation)
    assert simulation.status["state"] == "Succeeded"


def test_record_of_a_deleted_job_of_the_same_name_is_not_used():
    first = InferenceSimulation(model_job=model_job("Published"))
    first.settle()
    simulation = InferenceSimulation(model_job=model_job())
    record = copy.deepcopy(first.objects["ConfigMap", "more-model-ij"])
    record["metadata"]["ownerReferences"] = [{"uid": "deleted"}]
    simulation.objects["ConfigMap", "more-model-ij"] = record
    simulation.settle()

    assert simulation.condition("ModelReady")["reason"] == "WaitsForJob"


@pytest.mark.parametrize("when", ["waiting", "generating"])
def test_suspended_job_begins_nothing_and_stops_what_runs(when):
    simulation = InferenceSimulation(OWN)
    if when == "generating":
        simulation.settle()
        simulation.start_pods(simulation.stage_job("fetch-model"))
    simulation.document["spec"]["runPolicy"] = {"suspend": True}
    simulation.settle()
    simulation.remove_deleted()
    simulation.settle()

    assert stages(simulation) == []
    assert simulation.status["state"] == "Suspended"
    assert simulation.condition("Suspended")["status"] == "True"

    simulation.document["spec"]["runPolicy"] = {"suspend": False}
    finish(simulation)
    assert simulation.status["state"] == "Succeeded"


def test_finished_job_goes_when_its_time_has_come():
    simulation = InferenceSimulation({**OWN, "runPolicy": {"ttlSecondsAfterFinished": 60}})
    finish(simulation)
    assert simulation.decide().requeue_after_s == 60

    simulation.pass_time(61)
    (action,) = simulation.decide().actions
    assert isinstance(action, Delete)
    assert (action.kind, action.name) == ("InferenceJob", "more")


def test_deadline_counts_from_the_time_when_the_model_is_ready():
    changes = {"runPolicy": {"activeDeadlineSeconds": 100}}
    simulation = InferenceSimulation(changes, model_job())
    simulation.settle()
    simulation.pass_time(9999)
    simulation.settle()
    assert simulation.status["state"] == "Pending"

    simulation.model_job = model_job("Published")
    simulation.settle()
    simulation.succeed(simulation.stage_job("fetch-model"))
    simulation.settle()
    simulation.pass_time(101)
    simulation.settle()
    assert simulation.condition("Failed")["reason"] == "DeadlineExceeded"


def test_wrong_input_fails_the_job_before_anything_is_generated():
    simulation = InferenceSimulation(OWN)
    simulation.settle()
    simulation.succeed(simulation.stage_job("fetch-model"))
    simulation.settle()
    simulation.fail(simulation.stage_job("check-inputs"), 2, "DataError", message="no such file")
    simulation.settle()

    assert "generate-after" not in stages(simulation)
    failed = simulation.condition("Failed")
    assert (failed["status"], failed["reason"]) == ("True", "DataError")
    assert "delete the job and create it again; once that is mended" in failed["message"]
    assert "trained" not in failed["message"]


def test_item_that_fails_fails_the_job_in_the_end():
    simulation = InferenceSimulation(OWN)
    for stage in ("fetch-model", "check-inputs"):
        simulation.settle()
        simulation.succeed(simulation.stage_job(stage))
    simulation.settle()
    simulation.fail(
        simulation.stage_job("generate-after"), 2, "CheckpointError", message="no model"
    )
    simulation.settle()

    failed = simulation.condition("Failed")
    assert failed["reason"] == "InferenceFailed"
    assert failed["message"].startswith("after: ")


def test_wrong_job_is_refused():
    simulation = InferenceSimulation({"model": {"published": "x"}})
    simulation.settle()

    assert simulation.condition("Accepted")["reason"] == "InvalidSpec"
    assert "experiment: missing" in simulation.status["message"]


def test_shared_stage_of_both_kinds_has_both_as_owners():
    training = Simulation()
    training.settle()
    simulation = InferenceSimulation(model_job=model_job("Published"))
    fetched = training.stage_job("fetch-model")
    training.succeed(fetched)
    simulation.objects["Job", fetched["metadata"]["name"]] = copy.deepcopy(fetched)
    simulation.document["metadata"] |= {"uid": "another"}
    simulation.settle()

    owners = simulation.stage_job("fetch-model")["metadata"]["ownerReferences"]
    assert [one["kind"] for one in owners] == ["PostTrainingJob", "InferenceJob"]


@pytest.mark.parametrize("kind", ["PostTrainingJob", "InferenceJob"])
def test_report_that_fails_ends_the_job(kind):
    simulation = InferenceSimulation(OWN) if kind == "InferenceJob" else Simulation()
    for _ in range(12):
        simulation.settle()
        for (kind_of_object, _), one in list(simulation.objects.items()):
            if kind_of_object not in ("Job", "PyTorchJob") or "status" in one:
                continue
            if one["metadata"]["labels"]["cosmos.dev/stage"] == "report":
                simulation.fail(one, 2, "DataError", message="no such dataset")
            else:
                simulation.succeed(one, result={"videos": 1})
    simulation.settle()

    failed = simulation.condition("Failed")
    assert (failed["status"], failed["reason"]) == ("True", "ReportFailed")
    assert failed["message"].startswith(
        "all videos are there, but not the report: no such dataset; "
    )


def test_failed_item_is_tried_again_with_what_it_is_given():
    simulation = InferenceSimulation(OWN | {"compute": {"gpus": 0}})
    for stage in ("fetch-model", "check-inputs"):
        simulation.settle()
        simulation.succeed(simulation.stage_job(stage))
    simulation.settle()
    simulation.fail(simulation.stage_job("generate-after"), 137, "OOMKilled")
    simulation.settle()
    failed = simulation.condition("Failed")
    assert (failed["status"], failed["reason"]) == ("True", "InferenceFailed")
    assert "spec.runPolicy.retry=1" in failed["message"]

    simulation.edit(
        {"compute.resources": {"limits": {"memory": "64Gi"}}, "runPolicy": {"retry": 1}}
    )
    simulation.settle()
    simulation.remove_deleted()
    simulation.settle()
    pod = simulation.stage_job("generate-after")["spec"]["template"]["spec"]
    assert pod["containers"][0]["resources"]["limits"] == {"memory": "64Gi"}
    assert simulation.condition("Failed")["status"] == "False"

    finish(simulation)
    assert simulation.status["state"] == "Succeeded"
    assert simulation.status["retry"] == 1


def test_time_in_which_it_waits_for_its_model_is_not_active():
    simulation = InferenceSimulation(
        {"runPolicy": {"activeDeadlineSeconds": 60}}, model_job=model_job()
    )
    simulation.settle()
    simulation.pass_time(3600)
    simulation.settle()

    assert simulation.condition("Failed")["status"] == "False"
    assert simulation.status["activeSeconds"] == 0


def test_field_of_a_newer_version_is_ignored_and_told():
    simulation = InferenceSimulation(OWN)
    simulation.document["spec"]["colour"] = "red"
    simulation.settle()

    accepted = simulation.condition("Accepted")
    assert (accepted["status"], accepted["reason"]) == ("True", "FieldsIgnored")
    assert "spec.colour" in accepted["message"]


def test_retry_before_there_is_a_model_again_waits_for_it():
    simulation = InferenceSimulation(model_job=model_job("Published"))
    for _ in range(6):
        simulation.settle()
        for (kind, _), one in list(simulation.objects.items()):
            if kind == "Job" and "status" not in one:
                if one["metadata"]["labels"]["cosmos.dev/stage"].startswith("generate"):
                    simulation.fail(one, 2, "ConfigError")
                else:
                    simulation.succeed(one, result={"videos": 2})
    assert simulation.status["state"] == "Failed"

    for key in [key for key in simulation.objects if key[0] in ("Job", "ConfigMap")]:
        simulation.objects.pop(key)  # as after the time for which finished jobs keep their objects
    simulation.pods.clear()
    simulation.model_job = model_job()
    simulation.edit({"runPolicy.retry": 1})
    simulation.settle()
    simulation.settle()

    assert simulation.condition("ModelReady")["reason"] == "WaitsForJob"
    assert simulation.status["state"] == "Pending"
