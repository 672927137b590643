"""The ends of stages in the status: reason, message and last lines, written once, within bounds."""

from __future__ import annotations

import json

from support.attempts import training
from support.decisions import Simulation

from cosmos_operator.decide.stages.results import MAX_TEXT, cut_lines


def results(simulation):
    return {one["name"]: one for one in simulation.status["stages"]}


def log_of(simulation, job, text):
    (pod,) = simulation.pods_of(job["metadata"]["name"]) or simulation.start_pods(job)
    simulation.logs[pod["metadata"]["name"]] = text
    return pod


def test_success_keeps_three_lines_that_stay_when_the_pod_is_gone():
    simulation = Simulation()
    simulation.settle()
    job = simulation.stage_job("fetch-model")
    log_of(simulation, job, "".join(f"line {number}\n" for number in range(30)))
    simulation.succeed(job, message="fetched 4 files")
    simulation.settle()
    simulation._forget(job["metadata"]["name"])
    simulation.settle()

    found = results(simulation)["fetch-model"]
    assert found["lastLines"] == ["line 27", "line 28", "line 29"]
    assert (found["state"], found["message"]) == ("Succeeded", "fetched 4 files")
    assert found["finishTime"]


def test_failure_keeps_ten_lines_with_its_reason():
    simulation = Simulation()
    simulation.settle()
    job = simulation.stage_job("prepare-dataset")
    log_of(simulation, job, "".join(f"line {number}\n" for number in range(30)))
    simulation.fail(job, 2, "DataError", message="no clips")
    simulation.settle()

    found = results(simulation)["prepare-dataset"]
    assert found["lastLines"] == [f"line {number}" for number in range(20, 30)]
    assert (found["state"], found["reason"], found["message"]) == (
        "Failed",
        "DataError",
        "no clips",
    )


def test_result_of_a_stage_that_begins_anew_goes():
    simulation = Simulation()
    simulation.settle()
    simulation.fail(simulation.stage_job("fetch-model"), 2, "ConfigError")
    simulation.settle()
    assert results(simulation)["fetch-model"]["state"] == "Failed"

    simulation.edit({"runPolicy.retry": 1})
    simulation.settle()
    assert "fetch-model" not in results(simulation)
    assert "status" not in simulation.stage_job("fetch-model")


def test_training_keeps_its_last_lines_too():
    simulation = training({"runPolicy": {"maxAttempts": 1}})
    simulation.say("push-1-master-0", "RuntimeError: scripted")
    simulation.fail(simulation.running_attempt(), 1, step=12)
    simulation.settle()
    simulation.remove_deleted()
    simulation.settle()

    found = results(simulation)["train"]
    assert (found["state"], found["reason"]) == ("Failed", "Crashed")
    assert found["lastLines"][-1].endswith("RuntimeError: scripted")


def test_lines_are_cut_and_cleaned():
    assert cut_lines(["", "a\x1b[31mb", "  ", "c" * 900], 3) == ("a [31mb", "c" * 200)
    many = cut_lines(["x" * 200] * 10, 10)
    assert sum(map(len, many)) <= MAX_TEXT
    assert cut_lines([], 3) == ()


def test_status_of_a_large_job_stays_small():
    items = [
        {"name": f"item-{n}", "inputs": [{"prompt": "push", "conditioning": "/data/x.png"}]}
        for n in range(32)
    ]
    simulation = Simulation({"inference": items})
    for _ in range(8):
        simulation.settle()
        for (kind, _), one in list(simulation.objects.items()):
            if kind in ("Job", "PyTorchJob") and "status" not in one:
                for pod in simulation.start_pods(one):
                    simulation.logs[pod["metadata"]["name"]] = ("y" * 300 + "\n") * 50
                simulation.succeed(one, message="z" * 5000)

    assert simulation.status["state"] == "Succeeded"
    assert len(simulation.status["stages"]) == 40
    assert len(json.dumps(simulation.status)) < 100_000
