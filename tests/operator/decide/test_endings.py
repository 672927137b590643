"""Out of memory is told as such in every stage, with what it had and which field to raise."""

from __future__ import annotations

import pytest
from support.attempts import training
from support.decisions import Simulation

from cosmos_operator.decide.endings import memory_field

TAIL = "2026-01-31T12:00:09Z INFO rank=0 cosmos_worker.stages.embed_text captions=0/480\n"


def kill_for_memory(simulation, workload, limit):
    """The kernel kills the worker; the node gives the end of its log as its message."""
    (pod, *_) = simulation.pods_of(workload["metadata"]["name"]) or simulation.start_pods(workload)
    container = pod["spec"]["containers"][0]
    container["resources"] = {"limits": {"memory": limit}} if limit else {}
    simulation.end_pod(pod, 137, "OOMKilled")
    pod["status"]["containerStatuses"][0]["state"]["terminated"]["message"] = TAIL
    simulation.finish(workload, "Failed", "a pod failed")
    simulation.settle()


@pytest.mark.parametrize(
    ("limit", "words"),
    [("512Mi", "its container may use 512Mi; raise"), ("", "the memory of its node was used up")],
)
def test_stage_out_of_memory(limit, words):
    simulation = Simulation()
    simulation.settle()
    kill_for_memory(simulation, simulation.stage_job("fetch-model"), limit)

    failed = simulation.condition("Failed")
    assert failed["reason"] == "OutOfMemory"
    assert failed["message"].startswith("fetch-model: ran out of memory: ")
    assert words in failed["message"]
    assert "spec.stages.fetchModel.podTemplate.spec.containers" in failed["message"]


def test_training_out_of_memory():
    simulation = training()
    kill_for_memory(simulation, simulation.running_attempt(), "64Gi")

    (attempt,) = simulation.attempts
    assert attempt["outcome"] == "OutOfMemory"
    assert "may use 64Gi; raise spec.compute.resources.limits.memory" in attempt["message"]


@pytest.mark.parametrize(
    ("kind", "field"),
    [
        ("embed-text", "spec.stages.embedText.podTemplate.spec.containers"),
        ("report", "spec.stages.report.podTemplate.spec.containers"),
        ("generate", "spec.compute.resources.limits.memory"),
    ],
)
def test_field_to_raise(kind, field):
    assert memory_field(kind).endswith(field)


def test_worker_that_succeeded_after_a_helper_was_killed_for_memory_has_succeeded():
    simulation = training()
    (pod,) = simulation.pods_of("push-1")
    simulation.end_pod(pod, 0, "Succeeded", step=40)
    pod["status"]["containerStatuses"][0]["state"]["terminated"]["reason"] = "OOMKilled"
    simulation.finish(simulation.running_attempt())
    simulation.settle()

    (attempt,) = simulation.attempts
    assert attempt["outcome"] == "Succeeded"
    assert "memory" not in attempt.get("message", "")
