"""The simulated controllers: Jobs, PyTorchJobs, TrainJobs, queues, nodes, claims."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from support.api_client import Api, wait_for
from support.fakekube import FakeKube, Fault, Timing
from support.fakekube.plans import Plan, ended, has, runtime, waiting, words

FAST = Timing(
    controller_s=0.002, start_s=0.005, stage_s=0.02, step_s=0.004, retry_s=0.05, unreachable_s=0.1
)


@pytest.fixture
def fake() -> Iterator[FakeKube]:
    with FakeKube(kinds=("PyTorchJob", "TrainJob", "Kueue"), timing=FAST) as cluster:
        cluster.create("clustertrainingruntimes.trainer.kubeflow.org", runtime())
        yield cluster


def patch(fake: FakeKube, path: str, change: dict[str, Any]) -> None:
    assert Api(fake.url).call("PATCH", path, change, "merge")[0] == 200


def pytorchjob(name: str = "push-1") -> str:
    return f"/apis/kubeflow.org/v1/namespaces/default/pytorchjobs/{name}"


def delete_pod(fake: FakeKube, pod: dict[str, Any], **options: Any) -> None:
    path = f"/api/v1/namespaces/default/pods/{pod['metadata']['name']}"
    assert Api(fake.url).call("DELETE", path, options)[0] == 200


@pytest.mark.parametrize("nodes", [1, 2])
@pytest.mark.parametrize("backend", ["PyTorchJob", "Job", "TrainJob"])
def test_all_stages(fake: FakeKube, backend: str, nodes: int) -> None:
    items = [{"name": "after", "inputsFile": "dataset://test.jsonl"}]
    plan = Plan(fake, {"backend.type": backend, "compute.nodes": nodes, "inference": items})
    for stage in plan.stages:
        workload = plan.run(stage)
        assert has(workload, "Complete") or has(workload, "Succeeded"), workload["status"]
    leader = plan.pods()[0]
    assert words(leader)["reason"] == "Succeeded"
    assert words(leader)["result"]["steps"] == 40
    assert "push/model.pt" in " ".join(fake.disk("cosmos"))
    assert fake.mishaps == []


def test_trainjob_with_a_runtime_of_its_own(fake: FakeKube) -> None:
    priority = {"metadata": {"name": "high"}, "value": 5}
    fake.create("priorityclasses.scheduling.k8s.io", priority)
    changes = {"backend.type": "TrainJob", "scheduling.priorityClassName": "high"}
    plan = Plan(fake, changes).prepare()
    assert has(plan.run("train"), "Complete")
    (pod,) = plan.pods()
    assert pod["spec"]["priorityClassName"] == "high"
    assert words(pod)["reason"] == "Succeeded"
    assert fake.mishaps == []


def test_job_status(fake: FakeKube) -> None:
    job = Plan(fake).run("fetch-model")
    status = job["status"]
    assert (status["succeeded"], status["failed"], status["active"]) == (1, 0, 0)
    assert status["startTime"] <= status["completionTime"]
    (pod,) = fake.find("pods")
    assert pod["metadata"]["labels"]["batch.kubernetes.io/job-name"] == job["metadata"]["name"]
    assert pod["metadata"]["name"].startswith(job["metadata"]["name"] + "-")
    assert "finalizers" not in pod["metadata"]


def test_job_gives_up_at_a_user_error(fake: FakeKube) -> None:
    fake.add_fault(Fault("fetch-model", exit_code=2, reason="ConfigError", message="no"))
    job = Plan(fake).run("fetch-model")
    (condition,) = [c for c in job["status"]["conditions"] if c["type"] == "Failed"]
    (pod,) = fake.find("pods")
    assert condition["reason"] == "PodFailurePolicy"
    assert condition["message"] == (
        f"Container worker for pod default/{pod['metadata']['name']} failed with exit code 2 "
        "matching FailJob rule at index 1"
    )


def test_job_tries_again(fake: FakeKube) -> None:
    fake.add_fault(
        Fault("fetch-model", exit_code=74, reason="RetryableError", message="no", times=2)
    )
    job = Plan(fake).run("fetch-model")
    assert has(job, "Complete")
    assert job["status"]["failed"] == 2


def test_job_runs_out_of_tries(fake: FakeKube) -> None:
    plan = Plan(fake)
    fake.add_fault(
        Fault("fetch-model", exit_code=74, reason="RetryableError", message="no", times=9)
    )
    key, name = plan.start("fetch-model", backoffLimit=1)
    job = plan.end(key, name)
    assert {c["reason"] for c in job["status"]["conditions"] if c["status"] == "True"} == {
        "BackoffLimitExceeded"
    }
    assert job["status"]["failed"] == 2


def test_job_suspends_and_resumes(fake: FakeKube) -> None:
    plan = Plan(fake)
    key, name = plan.start("fetch-model", suspend=True)
    wait_for(lambda: has(fake.get(key, name) or {}, "Suspended"))
    assert fake.find("pods") == []
    patch(fake, f"/apis/batch/v1/namespaces/default/jobs/{name}", {"spec": {"suspend": False}})
    assert has(plan.end(key, name), "Complete")


@pytest.mark.parametrize("nodes", [{"node-1": {}}, {}], ids=["on a node", "on none"])
def test_job_is_deleted_with_its_pods(fake: FakeKube, nodes: dict[str, Any]) -> None:
    fake.set_nodes(nodes)
    plan = Plan(fake)
    plan.start("fetch-model")
    wait_for(lambda: fake.find("pods"))
    (job,) = fake.find("jobs.batch")
    path = f"/apis/batch/v1/namespaces/default/jobs/{job['metadata']['name']}"
    assert Api(fake.url).call("DELETE", path, {"propagationPolicy": "Foreground"})[0] == 200
    wait_for(lambda: not fake.find("pods") and not fake.find("jobs.batch"))


def test_pytorchjob_objects(fake: FakeKube) -> None:
    plan = Plan(fake, {"compute.nodes": 2}).prepare()
    job = plan.run("train")
    assert [c["type"] for c in job["status"]["conditions"]] == ["Created", "Running", "Succeeded"]
    assert [c["status"] for c in job["status"]["conditions"]] == ["True", "False", "True"]
    master, worker = plan.pods()
    assert [p["metadata"]["name"] for p in (master, worker)] == [
        "push-1-master-0",
        "push-1-worker-0",
    ]
    assert master["metadata"]["labels"]["training.kubeflow.org/job-role"] == "master"
    env = {e["name"]: e.get("value") for e in worker["spec"]["containers"][0]["env"]}
    assert (env["MASTER_ADDR"], env["PET_NNODES"], env["PET_NODE_RANK"]) == (
        "push-1-master-0",
        "2",
        "1",
    )
    assert worker["spec"]["initContainers"][0]["name"] == "init-pytorch"


def test_pytorchjob_suspends_and_resumes(fake: FakeKube) -> None:
    plan = Plan(fake, {"training.steps": 200}).prepare()
    plan.start("train")
    plan.training_at(20)
    patch(fake, pytorchjob(), {"spec": {"runPolicy": {"suspend": True}}})
    wait_for(lambda: not plan.pods())
    assert has(fake.get("pytorchjobs.kubeflow.org", "push-1") or {}, "Suspended")
    patch(fake, pytorchjob(), {"spec": {"runPolicy": {"suspend": False}}})
    assert has(plan.end("pytorchjobs.kubeflow.org", "push-1"), "Succeeded")
    assert " continued step=" in "\n".join(fake.log("push-1-master-0"))


def test_pytorchjob_replaces_a_pod_that_vanished(fake: FakeKube) -> None:
    plan = Plan(fake, {"training.steps": 200}).prepare()
    plan.start("train")
    pod = plan.training_at(10)
    delete_pod(fake, pod, gracePeriodSeconds=0)
    wait_for(lambda: plan.pods() and plan.pods()[0]["metadata"]["uid"] != pod["metadata"]["uid"])
    assert has(plan.end("pytorchjobs.kubeflow.org", "push-1"), "Succeeded")
    assert fake.mishaps == []


def test_pytorchjob_fails_with_a_pod_that_was_deleted(fake: FakeKube) -> None:
    plan = Plan(fake, {"training.steps": 500}).prepare()
    plan.start("train")
    delete_pod(fake, plan.training_at(10))
    job = plan.end("pytorchjobs.kubeflow.org", "push-1")
    assert has(job, "Failed")
    text = "PyTorchJob push-1 is failed because 1 Master replica(s) failed."
    assert job["status"]["conditions"][-1]["message"] == text


def test_kinds_come_and_go(fake: FakeKube) -> None:
    api = Api(fake.url)
    assert api.call("GET", "/apis/kubeflow.org/v1/pytorchjobs")[0] == 200
    fake.uninstall("PyTorchJob")
    assert api.call("GET", "/apis/kubeflow.org/v1/pytorchjobs")[0] == 404
    assert api.call("GET", "/apis/kubeflow.org/v1")[0] == 404
    fake.install("PyTorchJob")
    assert api.call("GET", "/apis/kubeflow.org/v1")[0] == 200


def test_queue_admits_while_there_is_quota(fake: FakeKube) -> None:
    fake.set_nodes({"gpus": {"nvidia.com/gpu": 8}})
    fake.set_quota("team", 1)
    fake.create(
        "localqueues.kueue.x-k8s.io", {"metadata": {"name": "team", "namespace": "default"}}
    )
    changes = {
        "compute.gpusPerNode": 1,
        "compute.processesPerNode": 1,
        "scheduling.queueName": "team",
    }
    plan = Plan(fake, changes)
    for stage in ("fetch-model", "prepare-dataset"):
        plan.run(stage)
    first, second = plan.start("embed-text"), plan.start("cache-latents")
    workloads = "workloads.kueue.x-k8s.io"
    wait_for(lambda: [has(w, "Admitted") for w in fake.find(workloads)].count(True) == 1)
    assert has(plan.end(*first), "Complete")
    assert has(plan.end(*second), "Complete")
    wait_for(lambda: all(has(w, "Finished") for w in fake.find(workloads)))


def test_queue_that_does_not_take_a_kind(fake: FakeKube) -> None:
    plan = Plan(fake, {"scheduling.queueName": "team"})
    key, name = plan.start("train")
    wait_for(lambda: has(fake.get(key, name) or {}, "Suspended"))
    assert fake.find("workloads.kueue.x-k8s.io") == []


# --- nodes and claims ------------------------------------------------------------------------


def why_unscheduled(fake: FakeKube) -> str:
    def message() -> str:
        conditions = [c for pod in fake.find("pods") for c in pod["status"].get("conditions", [])]
        return next((c["message"] for c in conditions if c.get("reason") == "Unschedulable"), "")

    return str(wait_for(message))


def test_too_few_gpus(fake: FakeKube) -> None:
    changes = {"compute.gpusPerNode": 1, "compute.processesPerNode": 1}
    Plan(fake, changes).start("embed-text")
    assert why_unscheduled(fake) == (
        "0/1 nodes are available: 1 Insufficient nvidia.com/gpu. no new claims to deallocate, "
        "preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."
    )


def test_node_selector_and_cordon(fake: FakeKube) -> None:
    fake.set_nodes({"a": {}, "b": {}})
    fake.drain("a")
    plan = Plan(fake, {"podTemplate.spec.nodeSelector": {"kubernetes.io/hostname": "a"}})
    key, name = plan.start("fetch-model")
    assert why_unscheduled(fake).startswith(
        "0/2 nodes are available: 1 node(s) didn't match Pod's node affinity/selector, 1 node(s) were unschedulable."
    )
    fake.uncordon("a")
    assert has(plan.end(key, name), "Complete")


def test_claims(fake: FakeKube) -> None:
    changes = {"storage.models.claimName": "other"}
    plan = Plan(fake, changes)
    key, name = plan.start("fetch-model")
    expected = '0/1 nodes are available: persistentvolumeclaim "other" not found. not found'
    assert why_unscheduled(fake) == expected
    plan.claim("other", storageClassName="local")
    assert has(plan.end(key, name), "Complete")
    assert (fake.get("persistentvolumeclaims", "other") or {})["status"]["phase"] == "Bound"


def test_claim_of_an_unknown_class(fake: FakeKube) -> None:
    plan = Plan(fake, {"storage.models.claimName": "other"})
    plan.claim("other", storageClassName="nope")
    plan.start("fetch-model")
    assert "pod has unbound immediate PersistentVolumeClaims" in why_unscheduled(fake)
    events = [e["message"] for e in fake.find("events") if e["reason"] == "ProvisioningFailed"]
    assert events == ['storageclass.storage.k8s.io "nope" not found']


def test_drain_saves_and_says_why(fake: FakeKube) -> None:
    plan = Plan(fake, {"training.steps": 1000, "backend.type": "Job"}).prepare()
    key, name = plan.start("train")
    pod = plan.training_at(20)
    fake.drain("node-1")
    job = plan.end(key, name)
    assert has(job, "Failed")
    assert plan.pods() == []
    lines = fake.log_of(pod["metadata"]["uid"])
    assert any(" checkpoint step=" in line for line in lines)
    assert any("Stopped: " in line for line in lines)


def test_drain_does_not_count_against_a_stage(fake: FakeKube) -> None:
    plan = Plan(fake)
    fake.add_fault(Fault("fetch-model", kind="hang"))
    key, name = plan.start("fetch-model")
    wait_for(lambda: [p for p in fake.find("pods") if p["status"]["phase"] == "Running"])
    fake.drain("node-1")
    wait_for(lambda: "unschedulable" in why_unscheduled(fake))
    fake.uncordon("node-1")
    job = plan.end(key, name)
    assert has(job, "Complete")
    assert job["status"]["failed"] == 0


def test_lost_node(fake: FakeKube) -> None:
    plan = Plan(fake, {"training.steps": 1000}).prepare()
    plan.start("train")
    pod = plan.training_at(10)
    fake.lose_node("node-1")
    name = pod["metadata"]["name"]

    def disruption() -> Any:
        found = (fake.get("pods", name) or {"status": {}})["status"].get("conditions", [])
        return [c["reason"] for c in found if c["type"] == "DisruptionTarget"]

    assert wait_for(disruption) == ["DeletionByTaintManager"]
    code, answer = Api(fake.url).call("GET", f"/api/v1/namespaces/default/pods/{name}/log")
    assert code == 500
    assert "connection refused" in answer["message"]
    assert (fake.get("pods", name) or {})["status"][
        "phase"
    ] == "Running"  # its kubelet cannot end it
    fake.set_nodes({"node-2": {}})
    fresh = wait_for(lambda: [p for p in plan.pods() if p["spec"].get("nodeName") == "node-2"])
    assert fresh[0]["metadata"]["uid"] != pod["metadata"]["uid"]


def test_node_comes_back(fake: FakeKube) -> None:
    plan = Plan(fake, {"training.steps": 1000}).prepare()
    plan.start("train")
    plan.training_at(10)
    fake.lose_node("node-1")
    wait_for(lambda: "deletionTimestamp" in plan.pods()[0]["metadata"])
    fake.restore_node("node-1")
    assert has(plan.end("pytorchjobs.kubeflow.org", "push-1"), "Failed")


def test_memory_pressure(fake: FakeKube) -> None:
    plan = Plan(fake, {"training.steps": 1000}).prepare()
    plan.start("train")
    plan.training_at(10)
    fake.evict_for_memory("push-1-master-0")
    assert has(plan.end("pytorchjobs.kubeflow.org", "push-1"), "Failed")
    (pod,) = plan.pods()
    assert pod["status"]["reason"] == "Evicted"
    assert [
        c["reason"] for c in pod["status"]["conditions"] if c["type"] == "DisruptionTarget"
    ] == ["TerminationByKubelet"]
    assert ended(pod)["exitCode"] == 137


def test_namespace_is_emptied(fake: FakeKube) -> None:
    plan = Plan(fake, {"training.steps": 1000}).prepare()
    plan.start("train")
    plan.training_at(10)
    api = Api(fake.url)
    assert api.call("DELETE", "/api/v1/namespaces/default")[0] == 200
    code, answer = api.call(
        "POST", "/api/v1/namespaces/default/configmaps", {"metadata": {"name": "a"}}
    )
    assert code == 403
    assert "because it is being terminated" in answer["message"]
    wait_for(lambda: fake.get("namespaces", "default", None) is None)
    assert fake.find("pods") == []


def test_images_and_secrets(fake: FakeKube) -> None:
    fake.set_images()
    plan = Plan(fake, {"credentials.huggingFace": {"name": "hub"}})
    key, name = plan.start("fetch-model")

    def reason() -> str:
        return str(next((waiting(pod).get("reason", "") for pod in fake.find("pods")), ""))

    wait_for(lambda: reason() == "ErrImagePull")
    wait_for(lambda: reason() == "ImagePullBackOff")
    fake.set_images("*")
    wait_for(lambda: reason() == "CreateContainerConfigError")
    assert waiting(fake.find("pods")[0])["message"] == 'secret "hub" not found'
    secret = {"metadata": {"name": "hub", "namespace": "default"}, "data": {"other": "eA=="}}
    fake.create("secrets", secret)
    text = "couldn't find key token in Secret default/hub"
    wait_for(lambda: waiting(fake.find("pods")[0]).get("message") == text)
    path = "/api/v1/namespaces/default/secrets/hub"
    patch(fake, path, {"data": {"token": "eA=="}})
    assert has(plan.end(key, name), "Complete")


def test_priority_class_that_is_absent(fake: FakeKube) -> None:
    Plan(fake, {"podTemplate.spec.priorityClassName": "research"}).start("fetch-model")
    (event,) = wait_for(lambda: [e for e in fake.find("events") if e["reason"] == "FailedCreate"])
    assert "is forbidden: no PriorityClass with name research was found" in event["message"]
