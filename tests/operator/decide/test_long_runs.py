"""Events of weeks of training on many nodes: nodes that refuse pods or die, cut logs, queues, late edits."""

from __future__ import annotations

import pytest
from support.attempts import TWO_NODES, outcomes, report, run, training
from support.decisions import Simulation

from cosmos_operator.api.labels import STAGE_LABEL
from cosmos_operator.kube.objects import format_time

QUEUED = {"scheduling": {"queueName": "team-a"}, "runPolicy": {"startDeadlineSeconds": 100}}


def next_attempt(simulation):
    simulation.step()
    simulation.pass_time(600)
    simulation.settle()


@pytest.mark.parametrize("reason", ["UnexpectedAdmissionError", "OutOfcpu", "NodeAffinity"])
def test_pod_that_its_node_refuses_costs_nothing(reason):
    simulation = Simulation()
    simulation.prepare()
    for number in range(1, 4):
        (pod,) = simulation.start_pods(simulation.running_attempt())
        pod["status"] = {"phase": "Failed", "reason": reason, "message": "Pod was rejected"}
        simulation.finish(simulation.running_attempt(), "Failed")
        next_attempt(simulation)
        assert outcomes(simulation) == ["NodeLost"] * number + ["Running"]

    assert simulation.attempts[0]["message"] == "Pod was rejected"
    assert simulation.status["failedAttempts"] == 0


def test_init_container_that_waits_in_vain_is_a_crash():
    simulation = Simulation(TWO_NODES)
    simulation.prepare()
    _, worker = simulation.start_pods(simulation.running_attempt(), phase="Pending")
    ended = {
        "exitCode": 1,
        "reason": "Error",
        "message": "",
        "finishedAt": format_time(simulation.now),
    }
    waiting = {"waiting": {"reason": "PodInitializing"}}
    worker["status"] |= {
        "phase": "Failed",
        "initContainerStatuses": [{"name": "init-pytorch", "state": {"terminated": ended}}],
        "containerStatuses": [{"name": "pytorch", "state": waiting}],
    }
    simulation.finish(simulation.running_attempt(), "Failed")
    simulation.settle()
    simulation.pass_time(61)
    simulation.settle()

    assert (outcomes(simulation)[0], simulation.attempts[0]["counted"]) == ("Crashed", True)


@pytest.mark.parametrize(
    ("exit_code", "reason", "message", "outcome"),
    [
        (137, "ContainerStatusUnknown", "The container could not be located", "NodeLost"),
        (255, "Unknown", "", "NodeLost"),
        (128, "StartError", "nvidia-container-cli: initialization error", "GpuFault"),
        (128, "StartError", "exec: cosmos-worker: not found", "Crashed"),
        (255, "Error", "", "Crashed"),
    ],
)
def test_container_that_left_no_word(exit_code, reason, message, outcome):
    simulation = training()
    (pod,) = simulation.pods_of("push-1")
    simulation.end_pod(pod, exit_code)
    ended = pod["status"]["containerStatuses"][0]["state"]["terminated"]
    ended |= {"reason": reason, "message": message}
    simulation.finish(simulation.running_attempt(), "Failed")
    simulation.settle()

    assert outcomes(simulation)[0] == outcome


@pytest.mark.parametrize(("ready", "outcome"), [("Unknown", "NodeLost"), ("True", "PeerLost")])
def test_peers_of_a_node_that_died_notice_before_kubernetes_acts(ready, outcome):
    simulation = training(TWO_NODES)
    master, worker = simulation.pods_of("push-1")
    node = {"metadata": {"name": worker["spec"]["nodeName"]}}
    node["status"] = {"conditions": [{"type": "Ready", "status": ready}]}
    simulation.extra["nodes"] = (node,)
    simulation.end_pod(master, 80, "PeerLost", step=12)
    simulation.finish(simulation.running_attempt(), "Failed")
    simulation.settle()
    simulation.pass_time(61)
    simulation.settle()

    (attempt,) = simulation.attempts
    assert attempt["outcome"] == outcome
    assert attempt["counted"] is (outcome == "PeerLost")


def test_job_that_failed_without_progress_stays_failed_after_an_edit_until_it_is_told_to_retry():
    simulation = Simulation({"runPolicy": {"maxAttempts": 10}})
    simulation.prepare()
    for _ in range(2):
        simulation.fail(simulation.running_attempt(), 1)
        next_attempt(simulation)
    assert simulation.condition("Failed")["reason"] == "NoProgress"

    simulation.edit({"runPolicy.maxAttempts": 20})
    simulation.settle()
    assert outcomes(simulation) == ["Crashed", "Crashed"]
    assert simulation.condition("Failed")["reason"] == "NoProgress"

    simulation.edit({"runPolicy.retry": 1})
    simulation.settle()
    assert outcomes(simulation) == ["Crashed", "Crashed", "Running"]


def test_pods_of_a_deleted_workload_are_waited_for_while_they_save():
    simulation = training()
    (pod,) = simulation.pods_of("push-1")
    del simulation.objects["PyTorchJob", "push-1"]
    pod["metadata"]["deletionTimestamp"] = format_time(simulation.now)
    simulation.settle()
    assert outcomes(simulation) == ["Deleted"]

    simulation.end_pod(pod, 75, "Stopped", step=14)
    simulation.settle()
    assert outcomes(simulation) == ["Deleted", "Running"]


# --- deadlines -------------------------------------------------------------------------------


def queued():
    simulation = Simulation(QUEUED, served=frozenset({"PyTorchJob", "LocalQueue", "Workload"}))
    simulation.extra["queue_names"] = ("team-a",)
    simulation.prepare()
    return simulation


def admit(simulation, is_admitted=True):
    """Admit a workload as Kueue does: it changes the workload and writes a Workload object."""
    workload = simulation.running_attempt()
    workload["spec"]["runPolicy"]["suspend"] = not is_admitted
    owner = {"uid": workload["metadata"]["uid"]}
    admitted = {"type": "Admitted", "status": str(is_admitted), "message": ""}
    admitted["lastTransitionTime"] = format_time(simulation.now)
    own = {"metadata": {"ownerReferences": [owner]}, "status": {"conditions": [admitted]}}
    simulation.extra["queue_workloads"] = (own,)


def test_time_in_a_queue_is_not_time_to_start():
    simulation = queued()
    simulation.pass_time(7200)
    admit(simulation)
    simulation.settle()
    assert outcomes(simulation) == ["Running"]

    simulation.pass_time(101)
    simulation.settle()
    assert simulation.condition("Failed")["reason"] == "StartDeadlineExceeded"


def test_training_that_a_queue_stopped_has_started_before():
    simulation = queued()
    admit(simulation)
    run(simulation, 10)
    admit(simulation, is_admitted=False)
    simulation.remove_deleted()
    simulation.pods.clear()
    simulation.settle()
    simulation.pass_time(36_000)
    admit(simulation)
    simulation.settle()
    simulation.pass_time(1000)
    simulation.settle()

    assert outcomes(simulation) == ["Running"]


def test_attempt_after_others_that_have_trained_may_wait_for_its_nodes():
    simulation = training({"runPolicy": {"startDeadlineSeconds": 100}})
    simulation.fail(simulation.running_attempt(), 81, "GpuFault", step=12)
    next_attempt(simulation)
    simulation.start_pods(simulation.running_attempt(), phase="Pending")
    simulation.pass_time(1000)
    simulation.settle()

    assert outcomes(simulation) == ["GpuFault", "Running"]


def test_start_deadline_is_for_all_attempts_that_never_start():
    simulation = Simulation({"runPolicy": {"startDeadlineSeconds": 1500}})
    simulation.prepare()
    for _ in range(3):
        assert outcomes(simulation)[-1] == "Running"
        (pod,) = simulation.start_pods(simulation.running_attempt())
        pod["status"] = {"phase": "Failed", "reason": "UnexpectedAdmissionError"}
        simulation.finish(simulation.running_attempt(), "Failed")
        next_attempt(simulation)

    assert simulation.condition("Failed")["reason"] == "StartDeadlineExceeded"
    assert "NodeLost" in simulation.status["message"]


def test_time_of_a_suspension_is_not_time_to_start():
    simulation = Simulation({"runPolicy": {"startDeadlineSeconds": 100}})
    simulation.prepare()
    simulation.start_pods(simulation.running_attempt(), phase="Pending")
    simulation.document["spec"]["runPolicy"]["suspend"] = True
    simulation.settle()
    simulation.remove_deleted()
    simulation.pass_time(86_400)
    simulation.settle()
    assert outcomes(simulation) == ["Suspended"]

    simulation.document["spec"]["runPolicy"]["suspend"] = False
    simulation.settle()
    assert outcomes(simulation) == ["Suspended", "Running"]


def test_log_that_was_cut_does_not_hide_what_was_reported_before():
    simulation = training({"runPolicy": {"stallTimeoutSeconds": 60}})
    simulation.pass_time(1000)
    report(simulation, 30)
    simulation.settle()
    simulation.logs["push-1-master-0"] = ""
    simulation.pass_time(50)
    simulation.settle()
    assert outcomes(simulation) == ["Running"]

    simulation.pass_time(11)
    simulation.settle()
    assert outcomes(simulation) == ["Stalled"]


def test_deadline_is_over_once_the_model_is_published():
    simulation = training({"runPolicy": {"activeDeadlineSeconds": 3000}})
    simulation.succeed(simulation.running_attempt(), step=40)
    simulation.prepare()
    assert simulation.status["state"] == "Succeeded"

    simulation.pass_time(86_400)
    simulation.document["metadata"]["generation"] = 2
    simulation.settle()
    assert simulation.status["state"] == "Succeeded"


# --- what an attempt uses ----------------------------------------------------------------------


def owned_by(uid):
    owner = {"kind": "PostTrainingJob", "name": "push", "uid": uid}
    return {"name": "push", "uid": "old", "ownerReferences": [owner]}


def test_service_of_a_deleted_job_of_the_same_name_is_waited_for():
    simulation = Simulation()
    simulation.objects["Service", "push"] = {"kind": "Service", "metadata": owned_by("earlier")}
    simulation.prepare()
    assert simulation.condition("Running")["reason"] == "NameConflict"
    assert simulation.workload_names("PyTorchJob") == []

    del simulation.objects["Service", "push"]
    simulation.settle()
    assert simulation.workload_names("PyTorchJob") == ["push-1"]
    assert ("Service", "push") in simulation.objects


def test_service_of_other_people_is_left_alone():
    simulation = Simulation()
    simulation.objects["Service", "push"] = {"kind": "Service", "metadata": {"name": "push"}}
    simulation.prepare()

    assert simulation.workload_names("PyTorchJob") == ["push-1"]


def test_what_pods_mount_is_made_again_while_an_attempt_runs():
    simulation = training()
    (config_map,) = [name for kind, name in simulation.objects if name.startswith("push-train-")]
    lost = ("ConfigMap", config_map), ("Service", "push")
    for key in lost:
        del simulation.objects[key]
    simulation.settle()

    assert all(key in simulation.objects for key in lost)


# --- Jobs of stages that do not start, or never end --------------------------------------------

NOT_PULLED = {
    "state": {"waiting": {"reason": "ImagePullBackOff", "message": "not found"}},
    "image": "x",
}


def unpullable(simulation, job):
    (pod,) = simulation.start_pods(job, phase="Pending")
    name = pod["spec"]["containers"][0]["name"]
    pod["status"]["containerStatuses"] = [{"name": name, **NOT_PULLED}]
    simulation.settle()
    return job["metadata"]["uid"]


def image_of(job):
    return job["spec"]["template"]["spec"]["containers"][0]["image"]


def corrected(simulation):
    """The same job with another image, made a while after the first, which is being collected."""
    simulation.pass_time(60)
    simulation.document["metadata"] |= {
        "uid": "another",
        "creationTimestamp": format_time(simulation.now),
    }
    simulation.document["spec"]["compute"]["image"] = "there"
    del simulation.document["status"]
    simulation.settle()


def images_of_stage(simulation, stage):
    """Image → names of the owners' uids, of the Jobs of a stage that are not being deleted."""
    return {
        image_of(one): [owner["uid"] for owner in one["metadata"]["ownerReferences"]]
        for (kind, _), one in simulation.objects.items()
        if kind == "Job"
        and one["metadata"]["labels"][STAGE_LABEL] == stage
        and "deletionTimestamp" not in one["metadata"]
    }


def test_image_that_cannot_be_pulled_keeps_no_job_with_another_image_from_its_stage():
    simulation = Simulation({"compute": {"image": "wrong", "nodes": 1}})
    simulation.settle()
    unpullable(simulation, simulation.stage_job("fetch-model"))
    assert simulation.condition("ModelReady")["reason"] == "ImagePullFailed"

    corrected(simulation)  # another job, beside or after the first
    assert images_of_stage(simulation, "fetch-model") == {
        "wrong": ["job-uid"],
        "there": ["another"],
    }
    assert simulation.condition("ModelReady")["status"] == "Unknown"
    assert simulation.status["message"] == "runs fetch-model"


def test_job_with_another_image_runs_its_own_pod_of_a_stage_that_runs_for_others():
    simulation = Simulation({"compute": {"image": "other", "nodes": 1}})
    simulation.settle()
    simulation.start_pods(simulation.stage_job("fetch-model"))
    corrected(simulation)

    assert sorted(images_of_stage(simulation, "fetch-model")) == ["other", "there"]


def test_edit_of_an_image_that_cannot_be_pulled_leaves_the_job_to_the_others():
    simulation = Simulation({"compute": {"image": "wrong", "nodes": 1}})
    simulation.settle()
    job = simulation.stage_job("fetch-model")
    job["metadata"]["ownerReferences"].append({"uid": "another"})
    unpullable(simulation, job)
    simulation.edit({"compute.image": "there"})
    simulation.settle()

    assert images_of_stage(simulation, "fetch-model") == {
        "wrong": ["another"],
        "there": ["job-uid"],
    }
    simulation.succeed(simulation.objects["Job", name_of_image(simulation, "there")])
    simulation.settle()
    assert simulation.condition("ModelReady")["status"] == "True"


def test_edit_does_not_interrupt_a_stage_that_runs():
    simulation = Simulation({"compute": {"image": "first", "nodes": 1}})
    simulation.settle()
    simulation.start_pods(simulation.stage_job("fetch-model"))
    simulation.edit({"compute.image": "second"})
    simulation.settle()
    assert sorted(images_of_stage(simulation, "fetch-model")) == ["first"]

    simulation.succeed(simulation.stage_job("fetch-model"))
    simulation.settle()
    assert simulation.condition("ModelReady")["status"] == "True"


def test_edit_that_is_undone_goes_back_to_the_job_of_before():
    simulation = Simulation({"compute": {"image": "first", "nodes": 1}})
    simulation.settle()
    job = simulation.stage_job("fetch-model")
    job["metadata"]["ownerReferences"].append({"uid": "another"})
    unpullable(simulation, job)
    for image in ("second", "first"):
        simulation.edit({"compute.image": image})
        simulation.settle()

    assert images_of_stage(simulation, "fetch-model") == {"first": ["another", "job-uid"]}


def name_of_image(simulation, image):
    """Name of the Job of fetch-model with an image."""
    (name,) = [
        name
        for (kind, name), one in simulation.objects.items()
        if kind == "Job" and "fetch-model" in name and image_of(one) == image
    ]
    return name


def test_nodes_that_are_chosen_anew_count_for_a_stage_that_waits_for_one():
    simulation = Simulation({"podTemplate": {"spec": {"nodeSelector": {"pool": "gone"}}}})
    simulation.settle()
    job = simulation.stage_job("fetch-model")
    (pod,) = simulation.start_pods(job, phase="Pending")
    pod["status"]["conditions"] = [{"type": "PodScheduled", "status": "False", "message": "no"}]
    simulation.settle()
    assert simulation.condition("ModelReady")["reason"] == "Unschedulable"

    simulation.document["spec"]["podTemplate"] = {"spec": {"nodeSelector": {"pool": "there"}}}
    simulation.document["metadata"]["generation"] = 2
    simulation.settle()
    simulation.remove_deleted()
    simulation.settle()
    found = simulation.stage_job("fetch-model")["spec"]["template"]["spec"]
    assert found["nodeSelector"] == {"pool": "there"}


def test_stage_on_a_node_that_never_answers_again_is_begun_anew():
    simulation = Simulation()
    simulation.settle()
    job = simulation.stage_job("fetch-model")
    (pod,) = simulation.start_pods(job)
    pod["metadata"]["deletionTimestamp"] = format_time(simulation.now)
    simulation.settle()
    assert simulation.stage_job("fetch-model")["metadata"]["uid"] == job["metadata"]["uid"]

    simulation.pass_time(61)
    simulation.settle()
    assert simulation.stage_job("fetch-model")["metadata"]["uid"] != job["metadata"]["uid"]
    simulation.pods.pop(pod["metadata"]["name"])  # its successor would have a name of its own
    simulation.succeed(simulation.stage_job("fetch-model"))
    simulation.settle()
    assert simulation.condition("ModelReady")["status"] == "True"
