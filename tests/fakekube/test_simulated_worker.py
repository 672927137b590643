"""The simulated worker: its log, the files that it writes, its exit codes and messages."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
import urllib3
from support.api_client import Api, wait_for
from support.fakekube import FakeKube, Fault, Timing
from support.fakekube.plans import Plan, ended, has, words

FAST = Timing(controller_s=0.002, start_s=0.005, stage_s=0.02, step_s=0.004, retry_s=0.05)
TRAINING = "pytorchjobs.kubeflow.org"


@pytest.fixture
def fake() -> Iterator[FakeKube]:
    with FakeKube(timing=FAST) as cluster:
        yield cluster


def test_finished_stages_are_not_repeated(fake: FakeKube) -> None:
    plan = Plan(fake)
    plan.run("fetch-model")
    (pod,) = fake.find("pods")
    fake.call(lambda: fake.store.delete("jobs.batch", "default", pod["metadata"]["labels"]["job-name"],
                                        propagation="Background"))  # fmt: skip
    wait_for(lambda: not fake.find("pods"))
    plan.run("fetch-model")
    (pod,) = fake.find("pods")
    assert "fetch-model already done key=" in fake.log(pod["metadata"]["name"])[0]
    assert words(pod)["result"]["artifacts"]


def test_a_stage_that_starts_too_early(fake: FakeKube) -> None:
    job = Plan(fake).run("cache-latents")
    assert has(job, "Failed")
    (pod,) = fake.find("pods")
    assert words(pod)["reason"] == "DataError"
    assert ended(pod)["exitCode"] == 2


def test_crash_and_continue(fake: FakeKube) -> None:
    plan = Plan(fake, {"checkpoints.everySteps": 10}).prepare()
    fake.add_fault(Fault("train", step=25, message="RuntimeError: boom", attempt=1))
    assert has(plan.run("train", 1), "Failed")
    (pod,) = plan.pods()
    assert ended(pod)["exitCode"] == 1
    expected = {
        "reason": "Bug",
        "message": "RuntimeError: boom",
        "step": 25,
        "checkpoint": 20,
        "rank": 0,
    }
    assert words(pod) == {**expected, "node": "node-1"}
    assert has(plan.run("train", 2), "Succeeded")
    lines = fake.log("push-2-master-0")
    assert any(" continued step=20 from=/mnt/cosmos/checkpoints/push-" in line for line in lines)
    assert sum(" checkpoint step=" in line for line in lines) == 2


def test_a_pod_that_is_deleted_saves(fake: FakeKube) -> None:
    plan = Plan(fake, {"training.steps": 1000}).prepare()
    plan.start("train")
    pod = plan.training_at(20)
    fake.call(lambda: fake.store.delete("pods", "default", "push-1-master-0"))
    assert has(plan.end(TRAINING, "push-1"), "Failed")
    lines = fake.log_of(pod["metadata"]["uid"])
    assert " checkpoint step=" in lines[-2]
    assert " INFO launcher cosmos_worker.runtime.launch Stopped: " in lines[-1]


def test_a_hanging_worker_is_killed(fake: FakeKube) -> None:
    plan = Plan(fake, {"backend.type": "Job"}).prepare()
    fake.add_fault(Fault("train", kind="hang", step=15))
    key, name = plan.start("train")
    pod = plan.training_at(10)
    time.sleep(0.1)
    count = len(fake.log(pod["metadata"]["name"]))
    time.sleep(0.2)
    assert len(fake.log(pod["metadata"]["name"])) == count
    fake.call(lambda: fake.store.delete("pods", "default", pod["metadata"]["name"]))
    assert has(plan.end(key, name), "Failed")


def test_memory_runs_out(fake: FakeKube) -> None:
    plan = Plan(fake).prepare()
    fake.add_fault(Fault("train", kind="oom", step=15))
    plan.run("train")
    (pod,) = plan.pods()
    assert (ended(pod)["exitCode"], ended(pod)["reason"]) == (137, "OOMKilled")
    assert " step=10/40 " in ended(pod)["message"]  # no message: the end of the log


def test_a_process_is_killed(fake: FakeKube) -> None:
    plan = Plan(fake, {"training.steps": 1000}).prepare()
    plan.start("train")
    plan.training_at(10)
    fake.kill_process("push-1-master-0", rank=0)
    plan.end(TRAINING, "push-1")
    (pod,) = plan.pods()
    assert (ended(pod)["exitCode"], ended(pod)["reason"]) == (137, "Error")
    assert words(pod)["reason"] == "Killed"
    assert words(pod)["step"] >= 10


@pytest.mark.parametrize("rank", [0, 1])
def test_nodes_share_their_fate(fake: FakeKube, rank: int) -> None:
    plan = Plan(fake, {"compute.nodes": 2, "backend.type": "Job"}).prepare()
    fake.add_fault(
        Fault("train", exit_code=81, reason="GpuFault", message="Xid 79", step=15, rank=rank)
    )
    key, name = plan.start("train")
    pods = wait_for(lambda: plan.pods() if len(plan.pods()) == 2 else None)
    assert has(plan.end(key, name), "Failed")
    last = [fake.log_of(pod["metadata"]["uid"])[-1] for pod in pods]
    assert "ERROR launcher cosmos_worker.runtime.launch GpuFault: Xid 79" in last[rank]
    expected = f"ERROR launcher cosmos_worker.runtime.launch PeerLost: node rank {rank} is gone"
    assert expected in last[1 - rank]


def test_all_nodes_stop_together(fake: FakeKube) -> None:
    plan = Plan(fake, {"compute.nodes": 2, "training.steps": 1000}).prepare()
    plan.start("train")
    plan.training_at(10)
    uids = [pod["metadata"]["uid"] for pod in plan.pods()]
    fake.call(lambda: fake.store.delete("pods", "default", "push-1-worker-0"))
    plan.end(TRAINING, "push-1")
    assert "Stopped: " in fake.log_of(uids[0])[-1]


def test_two_trainings_in_one_folder(fake: FakeKube) -> None:
    plan = Plan(fake, {"training.steps": 1000}).prepare()
    plan.start("train", 1)
    plan.training_at(10)
    assert has(plan.run("train", 2), "Failed")
    pod = fake.get("pods", "push-2-master-0") or {}
    assert ended(pod)["exitCode"] == 74
    assert len(fake.mishaps) == 1


def test_logs(fake: FakeKube) -> None:
    plan = Plan(fake, {"training.steps": 100}).prepare()
    plan.start("train")
    plan.training_at(10)
    api, path = Api(fake.url), "/api/v1/namespaces/default/pods/push-1-master-0/log"
    _, last = api.call("GET", path, tailLines=1)
    assert last.count("\n") == 1
    assert api.call("GET", path, container="other")[0] == 400
    _, followed = api.call("GET", path, follow="true")  # to the end
    assert "train done" in followed.splitlines()[-1]
    _, stamped = api.call("GET", path, timestamps="true", tailLines=1)
    assert len(stamped.split()[0]) == len("2026-01-01T00:00:00.000000Z")


def test_log_lines_are_those_of_the_worker(fake: FakeKube) -> None:
    plan = Plan(fake).prepare()
    plan.run("train")
    line = next(line for line in fake.log("push-1-master-0") if "step=20/40" in line)
    time_, level, rank, logger, *values = line.split()
    assert (level, rank, logger) == ("INFO", "rank=0", "cosmos_worker.train.metrics")
    assert time_.endswith("Z")
    names = [value.partition("=")[0] for value in values]
    assert names == ["step", "loss", "lr", "grad_norm", "s/step", "samples/s", "eta"]


# --- clients ---------------------------------------------------------------------------------


def test_refused_calls(fake: FakeKube) -> None:
    api, path = Api(fake.url), "/api/v1/namespaces/default/configmaps"
    rule = fake.refuse(lambda call: call.verb == "list" and call.resource.plural == "configmaps")
    code, answer = api.call("GET", path)
    assert (code, answer["reason"]) == (503, "ServiceUnavailable")
    fake.forgive(rule)
    assert api.call("GET", path)[0] == 200
    assert len(fake.calls("list", "configmaps")) == 2
    fake.refuse(lambda call: True, 429, "TooManyRequests", "slow down", times=1)
    assert [api.call("GET", path)[0] for _ in range(2)] == [429, 200]


def test_dropped_watches_end(fake: FakeKube) -> None:
    pool = urllib3.PoolManager(retries=False)
    found: list[int] = []

    def watch() -> None:
        answer = pool.request("GET", f"{fake.url}/api/v1/pods?watch=1", timeout=20)
        found.append(answer.status)

    thread = threading.Thread(target=watch)
    thread.start()
    wait_for(lambda: fake.call(fake.api.watches.open))
    fake.drop_watches()
    thread.join(5)
    assert found == [200]
