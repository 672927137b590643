"""Attempts of a training: their beginning, end, count and order."""

from __future__ import annotations

from datetime import timedelta

import pytest
from support.attempts import TWO_NODES, outcomes, report, run, training
from support.decisions import Simulation

from cosmos_operator.kube.objects import format_time
from cosmos_operator.settings import Settings


def test_first_attempt_begins_when_everything_is_prepared():
    simulation = Simulation()
    simulation.settle()
    assert simulation.workload_names("PyTorchJob") == []

    simulation.prepare()

    assert simulation.workload_names("PyTorchJob") == ["push-1"]
    assert simulation.status["state"] == "Training"


def test_progress_is_read_from_the_log():
    simulation = training()

    progress = simulation.status["progress"]
    assert progress["summary"] == "10/40"
    assert (progress["loss"], progress["samplesPerSecond"]) == ("0.1834", "8.50")
    assert (progress["etaSeconds"], progress["eta"]) == (70, "1m10s")
    assert simulation.condition("Running")["status"] == "True"
    assert simulation.condition("Progressing")["status"] == "True"


def test_note_of_the_worker_stays_with_the_attempt():
    """The worker says that a training begins anew once, early in the log, and again in the result."""
    simulation = training()
    simulation.say("push-1-master-0", "note: training begins anew in /run: another schedule")
    simulation.settle()
    assert simulation.attempts[-1]["message"] == "training begins anew in /run: another schedule"
    assert simulation.status["message"].endswith(", training begins anew in /run: another schedule")
    simulation.logs.clear()

    simulation.succeed(simulation.running_attempt())
    simulation.settle()

    (attempt,) = simulation.attempts
    assert (attempt["outcome"], attempt["message"][:21]) == ("Succeeded", "training begins anew ")


def test_note_in_the_result_of_the_worker_is_shown_where_the_log_was_not_seen():
    simulation = training()

    simulation.succeed(simulation.running_attempt(), result={"note": "6 steps were done before"})
    simulation.settle()

    assert simulation.attempts[-1]["message"] == "6 steps were done before"


def test_mere_progress_is_written_only_now_and_then():
    simulation = training()
    simulation.pass_time(3)
    report(simulation, 11)
    assert simulation.decide().status["progress"]["step"] == 10

    simulation.pass_time(30)
    report(simulation, 12)
    assert simulation.decide().status["progress"]["step"] == 12


@pytest.mark.parametrize(
    ("exit_code", "reason", "outcome", "counted"),
    [
        (1, "Bug", "Crashed", True),
        (137, "Killed", "Crashed", True),
        (137, "OOMKilled", "OutOfMemory", True),
        (74, "OSError", "IoFailed", True),
        (75, "Stopped", "Stopped", False),
        (81, "GpuFault", "GpuFault", False),
    ],
)
def test_failed_attempt_is_classified_and_followed_by_another(exit_code, reason, outcome, counted):
    simulation = training(TWO_NODES)
    simulation.fail(simulation.running_attempt(), exit_code, reason, step=10)
    simulation.step()
    simulation.pass_time(600)
    simulation.settle()

    assert outcomes(simulation) == [outcome, "Running"]
    assert simulation.attempts[0]["counted"] is counted
    assert simulation.status["failedAttempts"] == int(counted)
    assert simulation.attempts[-1]["workload"] == "push-2"


@pytest.mark.parametrize(
    ("disruption", "outcome"),
    [
        ("PreemptionByScheduler", "Preempted"),
        ("EvictionByEvictionAPI", "Evicted"),
        ("DeletionByTaintManager", "NodeLost"),
    ],
)
def test_disrupted_gang_is_stopped_whole_and_begun_again_without_counting(disruption, outcome):
    simulation = training(TWO_NODES)
    pod = simulation.pods["push-1-worker-0"]
    pod["metadata"]["deletionTimestamp"] = format_time(simulation.now)
    pod["status"]["conditions"] = [
        {"type": "DisruptionTarget", "status": "True", "reason": disruption}
    ]

    simulation.settle()
    assert outcomes(simulation) == [outcome]
    assert "deletionTimestamp" in simulation.running_attempt()["metadata"]
    simulation.remove_deleted()
    simulation.settle()

    assert outcomes(simulation) == [outcome, "Running"]
    assert simulation.status["failedAttempts"] == 0


def test_next_attempt_waits_until_every_pod_has_ended():
    simulation = training(TWO_NODES)
    simulation.end_pod(simulation.pods["push-1-master-0"], 1, step=10)
    simulation.finish(simulation.running_attempt(), "Failed")
    simulation.pass_time(60)
    simulation.settle()
    assert outcomes(simulation) == ["Crashed"]

    simulation.remove_deleted()
    simulation.pass_time(60)
    simulation.settle()

    assert outcomes(simulation) == ["Crashed", "Running"]


def test_pod_that_failed_explains_why_the_others_are_taken_away():
    """The training-operator deletes the others before it says that the PyTorchJob has failed."""
    simulation = training(TWO_NODES)
    simulation.end_pod(simulation.pods["push-1-worker-0"], 137, "Killed", message="SIGKILL")
    simulation.pods["push-1-master-0"]["metadata"]["deletionTimestamp"] = format_time(
        simulation.now
    )

    simulation.step()

    (attempt,) = simulation.attempts
    assert (attempt["outcome"], attempt["message"]) == ("Crashed", "SIGKILL")
    assert simulation.status["failedAttempts"] == 1


def test_pod_that_only_lost_its_peer_does_not_explain_the_attempt():
    """The pod that crashed may be reported after the one that waited for it in vain."""
    simulation = training(TWO_NODES)
    simulation.end_pod(simulation.pods["push-1-master-0"], 80, "PeerLost")
    simulation.finish(simulation.running_attempt(), "Failed", message="1 replica failed")
    simulation.settle()
    assert outcomes(simulation) == ["Running"]
    assert "waits for push-1-worker-0" in simulation.status["message"]

    simulation.end_pod(simulation.pods["push-1-worker-0"], 137, "Killed", message="SIGKILL")
    simulation.step()

    (attempt,) = simulation.attempts
    assert (attempt["outcome"], attempt["message"]) == ("Crashed", "SIGKILL")


def test_pods_that_outlive_a_failed_workload_are_stopped():
    """The training-operator fails a PyTorchJob that Kueue resumes while old pods still end, and starts a new one."""
    simulation = training(TWO_NODES)
    del simulation.pods["push-1-worker-0"]
    simulation.finish(simulation.running_attempt(), "Failed", message="1 replica failed")
    simulation.pass_time(61)
    simulation.settle()

    assert outcomes(simulation) == ["Deleted"]
    assert "deletionTimestamp" in simulation.running_attempt()["metadata"]
    simulation.remove_deleted()
    simulation.pass_time(60)
    simulation.settle()
    assert outcomes(simulation) == ["Deleted", "Running"]


def test_peer_that_never_ends_is_not_waited_for_for_ever():
    simulation = training(TWO_NODES)
    simulation.end_pod(simulation.pods["push-1-master-0"], 80, "PeerLost")
    simulation.finish(simulation.running_attempt(), "Failed", message="1 replica failed")
    simulation.settle()
    simulation.pass_time(61)
    simulation.settle()

    assert outcomes(simulation) == ["PeerLost"]
    assert simulation.status["failedAttempts"] == 1
    assert "deletionTimestamp" in simulation.running_attempt()["metadata"]


@pytest.mark.parametrize(("ended_after_s", "outcome"), [(0, "PeerLost"), (5, "Deleted")])
def test_what_came_first_tells_a_lost_peer_from_a_deleted_pod(ended_after_s, outcome):
    """The Job controller deletes the other pods of a Job as soon as one has failed."""
    simulation = training({**TWO_NODES, "backend": {"type": "Job"}})
    deleted = simulation.now
    peer, other = simulation.pods_of("push-1")
    simulation.pass_time(ended_after_s)
    simulation.end_pod(peer, 80, "PeerLost")
    due = format_time(deleted + timedelta(seconds=300))
    other["metadata"] |= {"deletionTimestamp": due, "deletionGracePeriodSeconds": 300}

    simulation.step()

    assert outcomes(simulation) == [outcome]


def test_pod_that_hangs_after_the_leader_has_succeeded_is_stopped():
    simulation = training(TWO_NODES)
    simulation.end_pod(simulation.pods["push-1-master-0"], 0, "Succeeded", step=40)
    simulation.finish(simulation.running_attempt())
    simulation.settle()
    assert outcomes(simulation) == ["Succeeded"]
    assert "waits for push-1-worker-0" in simulation.status["message"]
    assert "deletionTimestamp" not in simulation.running_attempt()["metadata"]

    simulation.pass_time(61)
    simulation.settle()
    assert "deletionTimestamp" in simulation.running_attempt()["metadata"]
    simulation.remove_deleted()
    simulation.settle()

    assert outcomes(simulation) == ["Succeeded"]
    assert simulation.stage_job("publish")


def test_workload_that_failed_while_a_deleted_pod_still_saves_has_not_crashed():
    """The training-operator counts a pod as failed as soon as it is being deleted."""
    simulation = training(TWO_NODES)
    for name in ("push-1-worker-0", "push-1-master-0"):
        simulation.pods[name]["metadata"]["deletionTimestamp"] = format_time(simulation.now)
    simulation.finish(simulation.running_attempt(), "Failed", message="1 replica failed")

    simulation.step()

    (attempt,) = simulation.attempts
    assert attempt["outcome"] == "Deleted"
    assert "was taken away" in attempt["message"]
    assert simulation.status["failedAttempts"] == 0


def test_pod_on_a_node_that_does_not_answer_is_not_waited_for_for_ever():
    simulation = training(TWO_NODES)
    pod = simulation.pods["push-1-worker-0"]
    pod["status"]["conditions"] = [
        {"type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager"}
    ]
    pod["metadata"]["deletionTimestamp"] = format_time(simulation.now)
    simulation.settle()
    simulation.end_pod(simulation.pods["push-1-master-0"], 75, "Stopped", step=12)

    simulation.settle()
    assert outcomes(simulation) == ["NodeLost"]
    assert "deletionTimestamp" in simulation.running_attempt()["metadata"]
    simulation.pass_time(500)
    simulation.settle()

    assert outcomes(simulation) == ["NodeLost", "Running"]
    assert simulation.workload_names("PyTorchJob") == ["push-2"]
    assert pod["metadata"]["name"] in simulation.pods, "nobody can end it"


def test_user_error_fails_the_job_with_its_message():
    simulation = training(TWO_NODES)
    simulation.fail(simulation.running_attempt(), 2, "DataError", message="window 3: no latents")
    simulation.settle()

    failed = simulation.condition("Failed")
    assert (failed["status"], failed["reason"]) == ("True", "DataError")
    assert "window 3: no latents" in failed["message"]
    assert simulation.status["state"] == "Failed"
    assert simulation.decide().actions == ()


def test_attempts_run_out():
    simulation = training({"runPolicy": {"maxAttempts": 2}})
    for number, step in ((1, 10), (2, 20)):
        simulation.fail(simulation.running_attempt(), 1, step=step)
        simulation.step()
        simulation.pass_time(600)
        simulation.settle()
        if number == 1:
            run(simulation, 20)

    assert simulation.condition("Failed")["reason"] == "AttemptsExhausted"
    assert "maxAttempts=2" in simulation.status["message"]


def test_two_failures_without_progress_end_the_job_early():
    simulation = Simulation({"runPolicy": {"maxAttempts": 10}})
    simulation.prepare()
    for _ in range(2):
        simulation.fail(simulation.running_attempt(), 1)
        simulation.step()
        simulation.pass_time(600)
        simulation.settle()

    assert simulation.condition("Failed")["reason"] == "NoProgress"
    assert len(simulation.attempts) == 2


def test_raising_max_attempts_does_not_revive_a_failed_job():
    simulation = training({"runPolicy": {"maxAttempts": 1}})
    simulation.fail(simulation.running_attempt(), 1, step=20)
    simulation.settle()
    assert simulation.status["state"] == "Failed"

    simulation.document["spec"]["runPolicy"]["maxAttempts"] = 3
    simulation.document["metadata"]["generation"] = 2
    simulation.pass_time(600)
    simulation.settle()

    assert outcomes(simulation) == ["Crashed"]
    assert simulation.condition("Failed")["status"] == "True"
    assert simulation.status["observedGeneration"] == 2


def test_stalled_attempt_is_stopped_and_counted():
    simulation = training({"runPolicy": {"stallTimeoutSeconds": 60}})
    simulation.pass_time(61)
    simulation.settle()

    assert outcomes(simulation) == ["Stalled"]
    assert "no progress for 1m01s" in simulation.attempts[0]["message"]
    simulation.remove_deleted()
    simulation.pass_time(600)
    simulation.settle()
    assert outcomes(simulation) == ["Stalled", "Running"]


def test_leader_without_a_readable_log_is_not_called_stalled():
    simulation = training({"runPolicy": {"stallTimeoutSeconds": 60}})
    simulation.logs.clear()
    simulation.pass_time(1000)
    simulation.settle()

    assert outcomes(simulation) == ["Running"]
    assert simulation.condition("Progressing")["status"] == "Unknown"


def test_start_deadline_fails_the_job_and_says_what_it_waited_for():
    simulation = Simulation({"runPolicy": {"startDeadlineSeconds": 100}})
    simulation.prepare()
    pods = simulation.start_pods(simulation.running_attempt(), phase="Pending")
    pods[0]["status"]["conditions"] = [
        {"type": "PodScheduled", "status": "False", "message": "0/3 nodes are available"}
    ]
    simulation.settle()
    assert simulation.condition("Running")["reason"] == "Unschedulable"
    simulation.pass_time(101)
    simulation.settle()

    assert simulation.condition("Failed")["reason"] == "StartDeadlineExceeded"
    assert "0/3 nodes are available" in simulation.status["message"]
    assert "deletionTimestamp" in simulation.running_attempt()["metadata"]


def test_suspend_stops_with_a_checkpoint_and_resume_continues():
    simulation = training()
    simulation.document["spec"]["runPolicy"] = {"suspend": True}
    simulation.settle()
    assert outcomes(simulation) == ["Suspended"]
    pod = simulation.pods["push-1-master-0"]
    simulation.say("push-1-master-0", "checkpoint step=12 folder=/x")
    simulation.end_pod(pod, 75, "Stopped", step=12, checkpoint=12)
    simulation.settle()
    simulation.remove_deleted()
    simulation.settle()
    assert simulation.status["state"] == "Suspended"
    assert simulation.status["message"] == "suspended; continues from step 12"
    assert simulation.workload_names("PyTorchJob") == []

    simulation.document["spec"]["runPolicy"] = {"suspend": False}
    simulation.settle()

    assert outcomes(simulation) == ["Suspended", "Running"]
    assert simulation.attempts[-1]["startStep"] == 12
    assert simulation.status["failedAttempts"] == 0


def test_deleted_workload_is_replaced_by_the_next_attempt():
    simulation = training()
    simulation._forget("push-1")
    simulation.settle()
    simulation.pass_time(60)
    simulation.settle()

    assert outcomes(simulation) == ["Deleted", "Running"]


def test_workload_that_was_never_made_is_made_under_the_same_name():
    simulation = Simulation()
    simulation.prepare()
    simulation._forget("push-1")
    del simulation.attempts[0][
        "startTime"
    ]  # as if the API server had failed between status and creation
    simulation.settle()

    assert simulation.workload_names("PyTorchJob") == ["push-1"]
    assert [attempt["number"] for attempt in simulation.attempts] == [1]


def test_attempt_whose_status_was_lost_is_known_by_its_workload():
    simulation = training()
    del simulation.document["status"]["attempts"]
    simulation.settle()

    assert [attempt["number"] for attempt in simulation.attempts] == [1]
    assert simulation.workload_names("PyTorchJob") == ["push-1"]


def test_workload_of_an_earlier_job_of_the_same_name_is_waited_for():
    simulation = Simulation()
    simulation.objects["PyTorchJob", "push-1"] = {
        "kind": "PyTorchJob",
        "metadata": {"name": "push-1", "uid": "x", "labels": {"cosmos.dev/stage": "train"}},
        "spec": {},
    }
    simulation.prepare()
    assert simulation.condition("Running")["reason"] == "NameConflict"

    simulation._forget("push-1")
    simulation.settle()
    assert simulation.running_attempt()["metadata"]["ownerReferences"][0]["uid"] == "job-uid"


def affinity_after(simulation, exit_code, reason, num_nodes, disruption=""):
    """Node affinity of the attempt that follows one that ended on node0."""
    if num_nodes:
        offer = {"allocatable": {"nvidia.com/gpu": "8"}}
        names = [{"name": f"node{i}"} for i in range(num_nodes)]
        cpu_only = {"metadata": {"name": "cpu"}, "status": {}}
        nodes = [{"metadata": name, "status": offer} for name in names]
        simulation.extra["nodes"] = (*nodes, cpu_only)
    simulation.prepare()
    run(simulation, 10)
    workload = simulation.running_attempt()
    if disruption:
        (pod,) = simulation.pods_of(workload["metadata"]["name"])
        condition = {"type": "DisruptionTarget", "status": "True", "reason": disruption}
        pod["status"]["conditions"] = [condition]
    simulation.fail(workload, exit_code, reason, step=11)
    simulation.step()
    simulation.pass_time(60)
    simulation.settle()
    pod = simulation.running_attempt()["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"]
    return pod["affinity"]["nodeAffinity"]


def test_log_that_cannot_be_read_any_more_is_no_beginning():
    simulation = training()
    simulation.logs.clear()
    simulation.settle()

    assert simulation.condition("Progressing")["reason"] == "NoLog"
    assert simulation.status["message"] == "no news since step 10"
    assert simulation.status["progress"]["summary"] == "10/40"


ELSEWHERE = {
    "matchExpressions": [
        {"key": "kubernetes.io/hostname", "operator": "NotIn", "values": ["node0"]}
    ]
}
RULED_OUT = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [ELSEWHERE]}}
LAST_CHOICE = {
    "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "preference": ELSEWHERE}]
}


def test_gpu_fault_keeps_the_next_attempt_off_the_node():
    simulation = Simulation({"compute": {"gpusPerNode": 1}})

    assert affinity_after(simulation, 81, "GpuFault", num_nodes=2) == RULED_OUT


@pytest.mark.parametrize("num_nodes", [0, 1])
def test_node_with_a_broken_gpu_is_taken_where_no_other_is_known_to_fit(num_nodes):
    """An attempt that waits for ever for a node is no better than one on a suspected node."""
    simulation = Simulation({"compute": {"gpusPerNode": 1}})

    assert affinity_after(simulation, 81, "GpuFault", num_nodes=num_nodes) == LAST_CHOICE


def test_folder_that_a_lost_node_still_holds_is_waited_for():
    """An attempt that began too early would crash on the lock, and two crashes without progress end the job."""
    simulation = training()
    for number in range(2, 8):
        simulation.fail(simulation.running_attempt(), 74, "FolderInUseError", message="in use")
        simulation.settle()
        simulation.pass_time(301)
        simulation.settle()
        assert len(simulation.attempts) == number

    assert set(outcomes(simulation)) == {"Stopped", "Running"}
    assert simulation.attempts[0]["message"] == "in use"
    assert simulation.status["failedAttempts"] == 0


def test_lost_node_is_the_last_choice_once_it_is_back():
    simulation = Simulation({"compute": {"gpusPerNode": 1}})
    lost = "DeletionByTaintManager"

    assert affinity_after(simulation, 143, "Error", num_nodes=3, disruption=lost) == LAST_CHOICE


def test_backoff_doubles_without_progress():
    simulation = Simulation(settings=Settings(retryBackoffSeconds=10))
    simulation.prepare()
    simulation.fail(simulation.running_attempt(), 81, "GpuFault")
    simulation.settle()
    assert simulation.log[-1].requeue_after_s == pytest.approx(10, abs=1)
    simulation.pass_time(11)
    simulation.settle()
    simulation.fail(simulation.running_attempt(), 81, "GpuFault")
    simulation.settle()

    assert simulation.log[-1].requeue_after_s == pytest.approx(20, abs=1)


def test_active_deadline_stops_and_fails():
    simulation = training({"runPolicy": {"activeDeadlineSeconds": 3000}})
    simulation.pass_time(3001)
    simulation.settle()

    assert simulation.condition("Failed")["reason"] == "DeadlineExceeded"
    assert "deletionTimestamp" in simulation.running_attempt()["metadata"]


def test_queued_training_waits_for_admission_and_says_so():
    simulation = Simulation(
        {"scheduling": {"queueName": "team-a"}},
        served=frozenset({"PyTorchJob", "LocalQueue", "Workload"}),
    )
    simulation.extra["queue_names"] = ("team-a",)
    simulation.prepare()
    assert simulation.status["state"] == "Queued"
    assert simulation.condition("Admitted")["reason"] == "QuotaPending"
    simulation.pass_time(61)
    simulation.settle()
    assert simulation.condition("Admitted")["reason"] == "QueueNotHonored"
    assert "kubeflow.org/pytorchjob" in simulation.condition("Admitted")["message"]

    simulation.running_attempt()["spec"]["runPolicy"]["suspend"] = False
    run(simulation, 5)

    assert simulation.condition("Admitted")["status"] == "True"
    assert simulation.status["state"] == "Training"


def test_trainjob_mounts_each_volume_once():
    """Its patch of the runtime's pod is a map by the names of the volumes."""
    simulation = Simulation({"backend": {"type": "TrainJob"}}, served=frozenset({"TrainJob"}))
    simulation.prepare()

    (patch,) = simulation.running_attempt()["spec"]["runtimePatches"]
    (node,) = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    pod = node["template"]["spec"]["template"]["spec"]
    mounted = [mount["name"] for mount in pod["containers"][0]["volumeMounts"]]
    assert len(mounted) == len(set(mounted))
    claims = {v["name"]: v.get("persistentVolumeClaim") for v in pod["volumes"]}
    paths = {m["mountPath"]: claims[m["name"]] for m in pod["containers"][0]["volumeMounts"]}
    for volume in ("models", "datasets", "embeddings", "checkpoints"):
        assert paths[f"/mnt/cosmos/{volume}"] == {"claimName": "cosmos"}


def test_trainjob_runs_the_same_pod():
    served = frozenset({"TrainJob"})
    simulation = Simulation({"backend": {"type": "TrainJob"}}, served=served)
    simulation.prepare()

    assert simulation.workload_names("TrainJob") == ["push-1"]
    trainer = simulation.running_attempt()["spec"]["trainer"]
    assert trainer["command"][:2] == ["cosmos-worker", "train"]


def test_gpu_faults_without_any_progress_end_the_job_in_the_end():
    simulation = Simulation()
    simulation.prepare()
    for _ in range(5):
        simulation.fail(simulation.running_attempt(), 81, "GpuFault")
        simulation.step()
        simulation.pass_time(600)
        simulation.settle()

    assert simulation.condition("Failed")["reason"] == "NoProgress"
    assert simulation.status["failedAttempts"] == 0


def test_pods_of_a_deleted_job_of_the_same_name_are_waited_for():
    earlier = training()
    simulation = Simulation()
    simulation.pods = earlier.pods
    simulation.prepare()
    assert simulation.workload_names("PyTorchJob") == []
    assert simulation.condition("Running")["reason"] == "NameConflict"

    simulation.pods.clear()
    simulation.settle()
    assert simulation.workload_names("PyTorchJob") == ["push-1"]


def test_trainjob_that_lost_its_pod_is_told_with_what_to_do():
    """Kueue 0.16 writes TrainJobs as Trainer 2.1 knows them."""
    served = frozenset({"TrainJob"})
    simulation = Simulation({"backend": {"type": "TrainJob"}}, served=served)
    simulation.prepare()
    assert simulation.condition("Running")["reason"] == "Starting"

    del simulation.running_attempt()["spec"]["runtimePatches"]
    simulation.settle()

    found = simulation.condition("Running")
    assert found["reason"] == "RuntimePatchesLost"
    assert "'push-1'" in found["message"]
    assert "Kueue below 0.17" in found["message"]


def test_document_that_a_quota_refuses_is_told_while_no_pod_runs():
    simulation = Simulation()
    simulation.prepare()
    (name,) = [name for kind, name in simulation.objects if name.startswith("push-train-")]
    del simulation.objects["ConfigMap", name]
    refusal = "exceeded quota: q, requested: count/configmaps=1"
    simulation.extra["refusals"] = {("ConfigMap", name): refusal}
    simulation.step()
    found = simulation.condition("Running")
    assert (found["status"], found["reason"]) == ("False", "Refused")
    assert refusal in simulation.status["message"]
    assert simulation.attempts[-1]["outcome"] == "Running"


@pytest.mark.parametrize("is_of_an_earlier_job", [False, True])
def test_save_of_a_pod_that_is_gone_is_told(is_of_an_earlier_job):
    """A suspended training saves as it ends, and its pod is deleted before a pass can read that."""
    simulation = training()
    simulation.document["spec"]["runPolicy"] = {"suspend": True}
    simulation.step()
    (pod,) = simulation.pods_of("push-1")
    simulation.end_pod(pod, 75, "Stopped", step=17, checkpoint=17)
    if is_of_an_earlier_job:
        earlier = simulation.now - timedelta(days=1)
        pod["metadata"]["creationTimestamp"] = format_time(earlier)
    simulation.extra["departed_pods"] = (simulation.pods.pop(pod["metadata"]["name"]),)
    simulation.objects.pop(("PyTorchJob", "push-1"))
    simulation.settle()

    (attempt,) = simulation.attempts
    assert attempt["outcome"] == "Suspended"
    if is_of_an_earlier_job:
        assert (attempt["endStep"], simulation.status.get("checkpoints")) == (10, None)
    else:
        assert (attempt["endStep"], simulation.status["checkpoints"]["latestStep"]) == (17, 17)


def test_attempt_of_which_nothing_was_created_is_taken_back_while_the_job_is_suspended():
    """An operator that ends between the status and the workload leaves an attempt that never began."""
    simulation = Simulation()
    simulation.prepare()
    for kind, name in list(simulation.objects):
        if kind == "PyTorchJob":
            del simulation.objects[kind, name]
    del simulation.attempts[0]["startTime"]

    simulation.edit({"runPolicy": {"suspend": True}})
    simulation.settle()
    assert simulation.status["state"] == "Suspended"
    assert simulation.attempts == []

    simulation.edit({"runPolicy": {"suspend": False}})
    simulation.settle()
    assert [one["number"] for one in simulation.attempts] == [1]
    assert simulation.workload_names("PyTorchJob") == ["push-1"]
