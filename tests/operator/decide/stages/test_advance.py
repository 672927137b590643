"""Decisions around the training: requirements of a job, its stages, inference, its end."""

from __future__ import annotations

import pytest
from support.decisions import Simulation

from cosmos_operator.decide.decision import AddOwner, Create, Delete, GiveUp
from cosmos_operator.kube.objects import format_time

STAGES = ["fetch-model", "prepare-dataset", "embed-text", "cache-latents"]


def finished(changes=None, result=None):
    """A job that has succeeded."""
    simulation = Simulation(changes)
    simulation.prepare()
    finish_rest(simulation, result)
    return simulation


def finish_rest(simulation, result=None):
    """Let all workloads succeed until the job has ended."""
    for _ in range(6):
        for (kind, _), one in list(simulation.objects.items()):
            if kind in ("Job", "PyTorchJob") and "status" not in one:
                simulation.succeed(one, result=result or {"videos": 3})
        simulation.settle()


def begun(simulation):
    return {
        one["metadata"]["labels"]["cosmos.dev/stage"]
        for (kind, _), one in simulation.objects.items()
        if kind == "Job"
    }


# --- before anything runs ---------------------------------------------------------------------


def test_stages_begin_when_those_before_them_have_finished():
    simulation = Simulation()
    simulation.settle()
    assert begun(simulation) == {"fetch-model", "prepare-dataset"}
    assert simulation.status["state"] == "Preparing"

    simulation.succeed(simulation.stage_job("fetch-model"))
    simulation.settle()
    assert begun(simulation) == {"fetch-model", "prepare-dataset"}

    simulation.succeed(simulation.stage_job("prepare-dataset"))
    simulation.settle()
    assert begun(simulation) >= {*STAGES, "check-inputs", "generate-before"}
    assert simulation.attempts == []


@pytest.mark.parametrize("last", ["fetch-model", "embed-text", "cache-latents", "check-inputs"])
def test_training_begins_when_all_that_it_needs_is_there(last):
    simulation = Simulation({"inference": []} if last == "fetch-model" else {})
    if (
        last == "fetch-model"
    ):  # other results are shared and may be there before this job's model is
        simulation.settle()
        shared = Simulation({"inference": []})
        shared.prepare()
        for stage in ("prepare-dataset", "embed-text", "cache-latents"):
            done = shared.stage_job(stage)
            simulation.objects["Job", done["metadata"]["name"]] = done
    for _ in range(3):
        simulation.settle()
        for stage in begun(simulation) - {last}:
            simulation.succeed(simulation.stage_job(stage))
    simulation.settle()
    assert simulation.attempts == []

    simulation.succeed(simulation.stage_job(last))
    simulation.settle()
    assert [attempt["number"] for attempt in simulation.attempts] == [1]


def test_wrong_input_fails_the_job_before_the_training_with_the_workers_words():
    simulation = Simulation()
    simulation.settle()
    for stage in ("fetch-model", "prepare-dataset"):
        simulation.succeed(simulation.stage_job(stage))
    simulation.settle()
    said = "inference item after: inputs.0: visual_input: no such file /gone.png; correct the path"
    simulation.fail(simulation.stage_job("check-inputs"), 2, "DataError", message=said)
    simulation.settle()

    assert simulation.condition("InputsReady")["status"] == "False"
    failed = simulation.condition("Failed")
    assert (failed["status"], failed["reason"]) == ("True", "DataError")
    assert said in failed["message"]
    assert "nothing was trained: correct the files" in failed["message"]
    assert "delete the job and create it again" in failed["message"]
    assert simulation.attempts == []


@pytest.mark.parametrize("is_right", [True, False])
def test_item_that_is_appended_while_the_job_is_prepared_is_checked(is_right):
    simulation = Simulation()
    for stage in ("fetch-model", "prepare-dataset", "check-inputs"):
        simulation.settle()
        simulation.succeed(simulation.stage_job(stage))
    simulation.settle()
    assert simulation.condition("InputsReady")["status"] == "True"
    first = simulation.stage_job("check-inputs")["metadata"]["name"]

    simulation.document["spec"]["inference"].append({"name": "more", "inputs": [
        {"prompt": "push", "conditioning": "/data/more.png"}]})  # fmt: skip
    simulation.document["metadata"]["generation"] += 1
    simulation.settle()
    assert simulation.condition("InputsReady")["status"] == "Unknown"
    for (kind, name), one in list(simulation.objects.items()):
        stage = one["metadata"].get("labels", {}).get("cosmos.dev/stage")
        if kind == "Job" and stage == "check-inputs" and name != first:
            again = one
        elif kind == "Job" and "status" not in one and not stage.startswith("generate"):
            simulation.succeed(one)
    simulation.settle()
    for stage in ("embed-text", "cache-latents"):
        simulation.succeed(simulation.stage_job(stage))
    simulation.settle()
    assert simulation.attempts == []

    if is_right:
        simulation.succeed(again)
    else:
        simulation.fail(again, 2, "DataError", message="inference item more: no such file")
    simulation.settle()

    assert simulation.condition("InputsReady")["status"] == str(is_right)
    assert len(simulation.attempts) == is_right


def test_other_changes_while_the_job_is_prepared_check_the_same_inputs_once():
    simulation = Simulation()
    for stage in ("fetch-model", "prepare-dataset", "check-inputs"):
        simulation.settle()
        simulation.succeed(simulation.stage_job(stage))
    simulation.settle()
    before = simulation.workload_names()

    simulation.document["spec"].setdefault("runPolicy", {})["maxAttempts"] = 9
    simulation.document["metadata"]["generation"] += 1
    simulation.settle()

    assert simulation.workload_names() == before
    assert simulation.condition("InputsReady")["status"] == "True"


@pytest.mark.parametrize("when", ["training", "trained"])
def test_check_of_inputs_plays_no_part_once_the_training_has_begun(when):
    simulation = Simulation()
    simulation.prepare()
    if when == "trained":
        simulation.succeed(simulation.running_attempt())
        simulation.settle()
        simulation.succeed(simulation.stage_job("publish"))
        simulation.settle()
    before = simulation.attempts
    assert before
    simulation.document["spec"]["inference"].append({**WRONG_ITEM, "inputs": [
        {"prompt": "push", "conditioning": "/gone.png"}], "name": "more"})  # fmt: skip
    simulation.document["metadata"]["generation"] += 1
    simulation.settle()
    gone = [
        key
        for key, one in simulation.objects.items()
        if one["metadata"].get("labels", {}).get("cosmos.dev/stage") == "check-inputs"
    ]
    assert len(gone) == 2
    for key in gone:  # its Job and its document may be gone as well
        del simulation.objects[key]
    simulation.settle()

    assert "check-inputs" not in begun(simulation)
    assert simulation.attempts == before
    assert simulation.condition("InputsReady")["status"] == "True"
    states = {one["name"]: one["state"] for one in simulation.status["inference"]}
    assert states["more"] in ("Pending", "Running")


def test_list_that_begins_during_the_training_is_not_checked():
    simulation = Simulation({"inference": []})
    simulation.prepare()
    simulation.document["spec"]["inference"] = [{"name": "more", "inputs": [
        {"prompt": "push", "conditioning": "/gone.png"}]}]  # fmt: skip
    simulation.document["metadata"]["generation"] += 1
    simulation.settle()

    assert "check-inputs" not in begun(simulation)
    assert simulation.running_attempt() is not None
    finish_rest(simulation)
    assert simulation.condition("Succeeded")["status"] == "True"


def test_missing_claim_is_named_with_those_that_are_there():
    simulation = Simulation({"storage": {"datasets": {"claimName": "lab"}}})
    simulation.add_claim("scratch")
    decision = simulation.settle()

    found = simulation.condition("StorageReady")
    assert (found["status"], found["reason"]) == ("False", "ClaimNotFound")
    assert "spec.storage.datasets.claimName: no claim 'lab'" in found["message"]
    assert "there: cosmos, scratch" in found["message"]
    assert begun(simulation) == set()
    assert decision.requeue_after_s is not None

    simulation.add_claim("lab")
    simulation.settle()
    assert begun(simulation) != set()


def test_claim_that_the_job_asks_for_is_created_without_an_owner():
    simulation = Simulation({"storage": {"checkpoints": {"claimName": "new", "create": {"size": "1Gi"}}}})  # fmt: skip
    simulation.step()

    claim = simulation.objects["PersistentVolumeClaim", "new"]
    assert "ownerReferences" not in claim["metadata"]


@pytest.mark.parametrize(
    ("mode", "compute", "reason"),
    [
        ("ReadWriteOnce", {"nodes": 2, "processesPerNode": 1}, "AccessModeInsufficient"),
        ("ReadWriteOncePod", {"processesPerNode": 2}, "AccessModeInsufficient"),
    ],
)
def test_access_mode_that_does_not_serve_the_pods_is_refused(mode, compute, reason):
    simulation = Simulation({"compute": compute})
    simulation.objects["PersistentVolumeClaim", "cosmos"]["spec"]["accessModes"] = [mode]
    simulation.settle()

    found = simulation.condition("StorageReady")
    assert (found["status"], found["reason"]) == ("False", reason)
    assert "ReadWriteMany" in found["message"]


@pytest.mark.parametrize(("binding", "goes_on"), [("WaitForFirstConsumer", True), ("Immediate", False)])  # fmt: skip
def test_unbound_claim_is_waited_for_unless_it_waits_for_a_pod(binding, goes_on):
    simulation = Simulation()
    claim = simulation.objects["PersistentVolumeClaim", "cosmos"]
    claim["status"] = {"phase": "Pending"}
    claim["spec"]["storageClassName"] = "local"
    simulation.extra["storage_classes"] = {"local": {"volumeBindingMode": binding}}
    simulation.settle()

    assert (begun(simulation) != set()) is goes_on
    assert simulation.condition("StorageReady")["status"] == ("True" if goes_on else "False")


def test_backend_that_the_cluster_lacks_is_named_with_what_brings_it():
    simulation = Simulation({"backend": {"type": "PyTorchJob"}}, served=frozenset())
    simulation.settle()

    found = simulation.condition("Accepted")
    assert (found["status"], found["reason"]) == ("False", "BackendUnavailable")
    assert "Kubeflow training-operator" in found["message"]
    assert "set it to one that this cluster has (Job)" in found["message"]
    assert begun(simulation) == set()


def test_auto_backend_is_a_job_where_nothing_else_is_installed():
    simulation = Simulation(served=frozenset())
    simulation.prepare()

    assert simulation.attempts[-1]["backend"] == "Job"


@pytest.mark.parametrize(
    ("served", "queues", "reason", "words"),
    [
        (frozenset({"PyTorchJob"}), (), "QueueingUnavailable", "needs Kueue"),
        (frozenset({"PyTorchJob", "LocalQueue"}), ("b",), "QueueNotFound", "there: b"),
    ],
)
def test_queue_that_is_not_there_is_named(served, queues, reason, words):
    simulation = Simulation({"scheduling": {"queueName": "a"}}, served=served)
    simulation.extra["queue_names"] = queues
    simulation.settle()

    found = simulation.condition("Admitted")
    assert (found["status"], found["reason"]) == ("False", reason)
    assert words in found["message"]
    assert begun(simulation) == set()


def test_unknown_experiment_fails_the_job_at_once():
    simulation = Simulation({"training": {"experiment": "video2world_nothing"}})
    simulation.settle()

    failed = simulation.condition("Failed")
    assert (failed["status"], failed["reason"]) == ("True", "InvalidSpec")
    assert "video2world_nothing" in failed["message"]
    assert "video2world_instruction_push_tiny" in failed["message"]


# --- stages -------------------------------------------------------------------------------------


def test_user_error_of_a_stage_fails_the_job_with_the_workers_words():
    simulation = Simulation()
    simulation.settle()
    simulation.fail(simulation.stage_job("prepare-dataset"), 2, "DataError", message="no clips in /data")  # fmt: skip
    simulation.settle()

    failed = simulation.condition("Failed")
    assert (failed["status"], failed["reason"]) == ("True", "DataError")
    assert failed["message"] == (
        "prepare-dataset: no clips in /data; "
        "once that is mended, spec.runPolicy.retry=1 lets the job go on where it was"
    )
    assert simulation.condition("DatasetReady")["status"] == "False"


def test_failure_stops_what_only_this_job_uses_and_leaves_what_others_use():
    simulation = Simulation()
    simulation.settle()
    shared = simulation.stage_job("fetch-model")
    simulation.start_pods(shared)
    shared["metadata"]["ownerReferences"].append({"uid": "another"})
    simulation.fail(simulation.stage_job("prepare-dataset"), 2, "DataError")
    simulation.step()

    decision = simulation.decide()
    assert not [a for a in decision.actions if isinstance(a, Delete)]
    name = shared["metadata"]["name"]
    given_up = [(a.kind, a.name, a.deletes) for a in decision.actions if isinstance(a, GiveUp)]
    assert given_up == [("Job", name, True), ("ConfigMap", name, False)]
    del shared["metadata"]["ownerReferences"][1:]
    given_up = [a.deletes for a in simulation.decide().actions if isinstance(a, GiveUp)]
    assert given_up == [True, True]


def test_finished_job_of_another_is_shared_not_repeated():
    first = Simulation()
    first.settle()
    job = first.stage_job("fetch-model")
    first.succeed(job)
    job["metadata"]["ownerReferences"] = [{"uid": "another"}]
    decision = first.step()

    assert first.condition("ModelReady")["status"] == "True"
    shared = [a for a in decision.actions if isinstance(a, AddOwner) and a.kind == "Job"]
    assert [a.name for a in shared] == [job["metadata"]["name"]]
    assert shared[0].owner["controller"] is False


def test_job_that_failed_before_this_one_was_made_is_made_anew():
    simulation = Simulation()
    simulation.settle()
    job = simulation.stage_job("fetch-model")
    simulation.pass_time(-3600)
    simulation.fail(job, 2, "ConfigError")
    simulation.pass_time(3600)
    decision = simulation.step()

    assert [a.name for a in decision.actions if isinstance(a, Delete)] == [job["metadata"]["name"]]
    simulation.settle()
    assert "status" not in simulation.stage_job("fetch-model")


@pytest.mark.parametrize(
    ("source", "looks"),
    [
        ({"claim": {"path": "push"}}, True),
        ({"path": "/data/push"}, False),
        ({"url": {"url": "https://example.org/push.tar"}}, False),
    ],
)
def test_folder_of_an_earlier_job_is_looked_at_again(source, looks):
    simulation = Simulation({"dataset": {"source": source}})
    simulation.settle()
    job = simulation.stage_job("prepare-dataset")
    simulation.pass_time(-3600)
    simulation.succeed(job)
    simulation.pass_time(3600)
    decision = simulation.step()

    deleted = [a.name for a in decision.actions if isinstance(a, Delete)]
    assert deleted == ([job["metadata"]["name"]] if looks else [])
    simulation.settle()
    assert ("status" in simulation.stage_job("prepare-dataset")) is not looks
    simulation.succeed(simulation.stage_job("prepare-dataset"))
    simulation.settle()
    assert simulation.condition("DatasetReady")["status"] == "True"
    assert "status" in simulation.stage_job("prepare-dataset")


def test_job_that_vanishes_is_made_again_until_its_result_is_on_record():
    simulation = Simulation()
    simulation.settle()
    job = simulation.stage_job("fetch-model")
    simulation._forget(job["metadata"]["name"])
    simulation.settle()
    simulation.succeed(simulation.stage_job("fetch-model"))
    simulation.settle()
    simulation._forget(job["metadata"]["name"])
    simulation.settle()

    assert "fetch-model" not in begun(simulation)
    assert simulation.condition("ModelReady")["status"] == "True"


def test_document_of_a_running_job_is_restored():
    simulation = Simulation()
    simulation.settle()
    name = simulation.stage_job("fetch-model")["metadata"]["name"]
    del simulation.objects["ConfigMap", name]

    created = [a.manifest for a in simulation.step().actions if isinstance(a, Create)]
    assert [(m["kind"], m["metadata"]["name"]) for m in created] == [("ConfigMap", name)]


@pytest.mark.parametrize(
    ("waiting", "reason", "words"),
    [
        (("ImagePullBackOff", "not found"), "ImagePullFailed", "spec.compute.image"),
        (
            ("CreateContainerConfigError", 'secret "hub" not found'),
            "ContainerNotCreated",
            'secret "hub" not found',
        ),
    ],
)  # fmt: skip
def test_pod_that_does_not_start_is_explained(waiting, reason, words):
    simulation = Simulation()
    simulation.settle()
    (pod,) = simulation.start_pods(simulation.stage_job("fetch-model"), phase="Pending")
    pod["status"]["containerStatuses"] = [
        {
            "name": "worker",
            "image": "x",
            "state": {"waiting": {"reason": waiting[0], "message": waiting[1]}},
        }
    ]
    simulation.settle()

    found = simulation.condition("ModelReady")
    assert (found["status"], found["reason"]) == ("False", reason)
    assert words in found["message"]
    assert words in simulation.status["message"]


def test_more_gpus_than_any_node_has_are_named():
    eight = {"compute": {"gpusPerNode": 8}, "training.overrides": ["trainer.micro_batch_size=1"]}
    simulation = Simulation(eight)
    simulation.extra["nodes"] = (
        {"metadata": {"name": "node1"}, "status": {"allocatable": {"nvidia.com/gpu": "4"}}},
    )
    simulation.prepare()
    (pod,) = simulation.start_pods(simulation.running_attempt(), phase="Pending")
    pod["status"]["conditions"] = [
        {"type": "PodScheduled", "status": "False", "message": "0/1 nodes are available"}
    ]
    simulation.settle()

    found = simulation.condition("Running")
    assert found["reason"] == "Unschedulable"
    assert "asks for 8 nvidia.com/gpu on each of 1 node; nodes: node1 has 4" in found["message"]


def test_nodes_are_counted_that_the_template_of_the_stage_admits():
    template = {"spec": {"nodeSelector": {"gpu": "a10"}}}
    simulation = Simulation(
        {
            "compute": {"gpusPerNode": 1},
            "scheduling": {"nodeSelector": {"gpu": "h100"}},
            "stages": {"cacheLatents": {"podTemplate": template}},
        }
    )
    simulation.extra["nodes"] = (
        {
            "metadata": {"name": "node1", "labels": {"gpu": "h100"}},
            "status": {"allocatable": {"nvidia.com/gpu": "4"}},
        },
    )
    simulation.settle()
    for name in ("fetch-model", "prepare-dataset"):
        simulation.succeed(simulation.stage_job(name))
    simulation.settle()
    (pod,) = simulation.start_pods(simulation.stage_job("cache-latents"), phase="Pending")
    pod["status"]["conditions"] = [
        {"type": "PodScheduled", "status": "False", "message": "0/1 nodes are available"}
    ]
    simulation.settle()

    words = "nodes with the labels of nodeSelector (gpu=a10): no node fits"
    assert words in simulation.condition("LatentsReady")["message"]


def test_refusal_of_the_api_server_is_passed_on():
    simulation = Simulation()
    simulation.settle()
    name = simulation.stage_job("fetch-model")["metadata"]["name"]
    simulation._forget(name)
    simulation.extra["refusals"] = {("Job", name): "exceeded quota: lab"}
    status = simulation.decide().status

    found = next(c for c in status["conditions"] if c["type"] == "ModelReady")
    assert (found["status"], found["reason"]) == ("False", "Refused")
    assert "exceeded quota: lab" in found["message"]


def test_suspended_job_begins_nothing_and_stops_what_runs():
    simulation = Simulation()
    simulation.settle()
    job = simulation.stage_job("fetch-model")
    simulation.start_pods(job)
    simulation.document["spec"]["runPolicy"] = {"suspend": True}
    simulation.settle()

    assert "deletionTimestamp" in job["metadata"]
    assert simulation.status["state"] == "Suspended"
    assert simulation.condition("Suspended")["status"] == "True"
    simulation.remove_deleted()
    simulation.settle()
    assert begun(simulation) == set()
    simulation.document["spec"]["runPolicy"] = {"suspend": False}
    simulation.settle()
    assert begun(simulation) == {"fetch-model", "prepare-dataset"}


# --- the end ------------------------------------------------------------------------------------


def test_job_succeeds_with_its_results_in_the_status():
    simulation = finished()

    assert simulation.status["state"] == "Succeeded"
    assert simulation.condition("Succeeded")["status"] == "True"
    assert simulation.condition("Failed")["status"] == "False"
    assert simulation.status["progress"]["summary"] == "40/40"
    assert {one["name"] for one in simulation.status["outputs"]} == {"model", "report"}
    results = simulation.status["inference"]
    assert [(one["name"], one["state"], one.get("numVideos")) for one in results] == [
        ("before", "Succeeded", None),
        ("after", "Succeeded", 3),
    ]
    assert all(one["address"].startswith("checkpoints://") for one in results)
    assert simulation.decide().actions == ()


def test_status_tells_the_step_of_the_published_model():
    """With checkpoint Best only the worker knows it."""
    best = {"outputs.checkpoint": "Best", "training.overrides": ["trainer.keep_best=true"]}

    for changes, result, step in (({}, {}, 40), (best, {"step": 20}, 20), (best, {}, None)):
        outputs = finished(changes, result=result).status["outputs"]
        assert next(one for one in outputs if one["name"] == "model").get("step") == step


def test_status_tells_how_many_inputs_guardrails_held_back():
    simulation = finished(result={"videos": 3, "blocked": 2})

    before, after = simulation.status["inference"]
    assert (before.get("numBlocked"), after["numVideos"], after["numBlocked"]) == (None, 3, 2)
    assert simulation.status["message"].endswith(", 3 videos, 2 blocked")


def test_status_tells_how_many_videos_had_faces():
    assert [one.get("numWithFaces") for one in finished().status["inference"]] == [None, None]
    simulation = finished(result={"videos": 3, "with_faces": 0})
    assert [one.get("numWithFaces") for one in simulation.status["inference"]] == [None, 0]


@pytest.mark.parametrize("state", ["Succeeded", "Failed"])
def test_job_that_has_ended_stays_so_when_an_item_is_appended(state):
    simulation = finished()
    if state == "Failed":
        simulation = Simulation()
        simulation.settle()
        simulation.fail(simulation.stage_job("fetch-model"), 2, "DataError")
        simulation.settle()
    before = simulation.status
    jobs = begun(simulation)
    item = {"name": "more", "inputs": [{"prompt": "push it", "conditioning": "/data/x.png"}]}
    simulation.document["spec"]["inference"].append(item)
    simulation.document["metadata"]["generation"] = 2
    simulation.settle()

    assert begun(simulation) == jobs
    assert simulation.condition(state)["status"] == "True"
    assert simulation.status == {**before, "observedGeneration": 2}


def test_finished_jobs_workloads_may_go_without_being_repeated():
    simulation = finished()
    for name in simulation.workload_names():
        simulation._forget(name)
    simulation.document["metadata"]["generation"] = 2
    simulation.settle()

    assert simulation.workload_names() == []
    assert simulation.status["state"] == "Succeeded"


WRONG_ITEM = {
    "name": "wrong",
    "inputs": [{"prompt": "push it", "conditioning": "vido://first.png"}],
}


def append(simulation, item):
    simulation.document["spec"]["inference"].append(item)
    simulation.document["metadata"]["generation"] += 1
    simulation.settle()


def test_wrong_item_that_is_appended_fails_alone():
    simulation = Simulation()
    simulation.prepare()
    append(simulation, WRONG_ITEM)
    right = [{"prompt": "push it", "conditioning": "/data/x.png"}]
    append(simulation, {"name": "good", "inputs": right})

    assert simulation.status["state"] == "Training"
    assert simulation.condition("Accepted")["status"] == "True"
    states = {one["name"]: one["state"] for one in simulation.status["inference"]}
    assert (states["wrong"], states["good"]) == ("Failed", "Pending")
    wrong = next(one for one in simulation.status["inference"] if one["name"] == "wrong")
    assert "spec.inference[2].inputs[0].conditioning" in wrong["message"]
    assert "another name" in wrong["message"]

    simulation.succeed(simulation.running_attempt())
    finish_rest(simulation)
    assert simulation.condition("Published")["status"] == "True"
    failed = simulation.condition("Failed")
    assert (failed["status"], failed["reason"]) == ("True", "InferenceFailed")
    states = {one["name"]: one["state"] for one in simulation.status["inference"]}
    assert {name for name, state in states.items() if state == "Succeeded"} == {"before", "after", "good"}  # fmt: skip


def test_wrong_item_of_a_training_without_others_does_not_end_it():
    simulation = Simulation({"inference": []})
    simulation.prepare()
    append(simulation, WRONG_ITEM)

    assert simulation.status["state"] == "Training"
    assert simulation.condition("Failed")["status"] == "False"


def test_item_that_was_carried_out_stays_so_whatever_a_later_version_thinks_of_it():
    simulation = Simulation()
    simulation.prepare()
    simulation.succeed(simulation.stage_job("generate-before"))
    simulation.settle()
    before = simulation.status["inference"][0]
    assert before["state"] == "Succeeded"
    simulation.document["spec"]["inference"][0]["parameters"] = {"numPixelFrames": 18}
    simulation.settle()

    assert before in simulation.status["inference"]


def test_job_that_a_later_version_does_not_admit_goes_on():
    simulation = Simulation()
    simulation.prepare()
    simulation.document["spec"]["training"]["experiment"] = "renamed"
    simulation.settle()

    found = simulation.condition("Accepted")
    assert (found["status"], found["reason"]) == ("False", "NotAdmittedAnyMore")
    assert "renamed" in simulation.status["message"]
    assert simulation.status["state"] == "Training"
    assert "deletionTimestamp" not in simulation.running_attempt()["metadata"]
    assert simulation.decide().requeue_after_s

    simulation.document["spec"]["training"]["experiment"] = "video2world_instruction_push_tiny"
    simulation.settle()
    assert simulation.condition("Accepted")["status"] == "True"


def test_wrong_item_of_a_new_job_is_refused_with_the_job():
    simulation = Simulation({"inference": [WRONG_ITEM]})
    simulation.settle()

    assert simulation.condition("Accepted")["reason"] == "InvalidSpec"


def test_failed_inference_fails_the_job_after_the_others_have_run():
    simulation = Simulation()
    simulation.prepare()
    simulation.succeed(simulation.running_attempt())
    simulation.settle()
    simulation.succeed(simulation.stage_job("publish"))
    simulation.settle()
    simulation.fail(simulation.stage_job("generate-after"), 2, "DataError", message="no such image")
    simulation.settle()

    assert simulation.condition("Published")["status"] == "True"
    failed = simulation.condition("Failed")
    assert (failed["status"], failed["reason"]) == ("True", "InferenceFailed")
    assert "after: generate-after: no such image" in failed["message"]


def test_finished_job_is_deleted_after_its_time():
    simulation = finished({"runPolicy": {"ttlSecondsAfterFinished": 100}})
    assert simulation.decide().requeue_after_s == pytest.approx(100, abs=1)
    simulation.pass_time(101)

    (action,) = simulation.decide().actions
    assert isinstance(action, Delete)
    assert (action.kind, action.name) == ("PostTrainingJob", "push")


def test_job_that_is_being_deleted_is_left_alone():
    simulation = Simulation()
    simulation.document["metadata"]["deletionTimestamp"] = format_time(simulation.now)

    decision = simulation.decide()
    assert (decision.actions, decision.status) == ((), None)


def test_events_tell_what_changed_once():
    simulation = finished()
    events = [event for decision in simulation.log for event in decision.events]

    reasons = [event.reason for event in events]
    assert reasons.count("AttemptStarted") == 1
    assert reasons.count("AttemptSucceeded") == 1
    assert reasons.count("Finished") == 1
    assert not [event for event in events if event.is_warning]


def test_report_that_fails_fails_the_job_which_keeps_everything_else_and_can_be_told_to_try_again():
    simulation = Simulation()
    simulation.prepare()
    for _ in range(6):
        for (kind, _), one in list(simulation.objects.items()):
            if kind not in ("Job", "PyTorchJob") or "status" in one:
                continue
            if one["metadata"]["labels"]["cosmos.dev/stage"] == "report":
                simulation.fail(one, 74, "OSError", message="disk full")
            else:
                simulation.succeed(one, result={"videos": 3})
        simulation.settle()

    failed = simulation.condition("Failed")
    assert (failed["status"], failed["reason"]) == ("True", "ReportFailed")
    assert "all videos are there, but not the report" in failed["message"]
    assert "disk full" in failed["message"]

    simulation.edit({"runPolicy.retry": 1})
    simulation.settle()
    simulation.remove_deleted()
    simulation.settle()
    finish_rest(simulation)
    assert simulation.condition("Succeeded")["status"] == "True"


def test_document_that_a_quota_refuses_is_told_rather_than_the_pod_that_lacks_it():
    simulation = Simulation()
    simulation.settle()
    name = simulation.stage_job("fetch-model")["metadata"]["name"]
    del simulation.objects["ConfigMap", name]
    refusal = "exceeded quota: q, requested: count/configmaps=1"
    simulation.extra["refusals"] = {("ConfigMap", name): refusal}
    simulation.extra["warnings"] = {("Job", name): "MountVolume.SetUp failed"}
    decision = simulation.step()

    found = simulation.condition("ModelReady")
    assert (found["status"], found["reason"]) == ("False", "Refused")
    assert refusal in found["message"]
    assert ("ConfigMap", name) in [
        (a.manifest["kind"], a.manifest["metadata"]["name"])
        for a in decision.actions
        if isinstance(a, Create)
    ], "it is tried again"
