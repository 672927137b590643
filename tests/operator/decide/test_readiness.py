"""What other programs read: kstatus (Flux, Argo CD through its health check), kubectl wait."""

from __future__ import annotations

import pytest
from support.decisions import Simulation


def kstatus(job):
    """Status of a custom resource by the generic rules of kstatus (sigs.k8s.io/cli-utils/pkg/kstatus/status)."""
    status = job.get("status", {})
    observed = status.get("observedGeneration")
    if observed is not None and observed != job["metadata"]["generation"]:
        return "InProgress"
    conditions = {one["type"]: one["status"] for one in status.get("conditions", ())}
    if conditions.get("Reconciling") == "True":
        return "InProgress"
    if conditions.get("Stalled") == "True":
        return "Failed"
    ready = conditions.get("Ready", "True")
    return "Current" if ready == "True" else "InProgress"


def run_to_the_end(simulation):
    simulation.prepare()
    for _ in range(6):
        for (kind, _), one in list(simulation.objects.items()):
            if kind in ("Job", "PyTorchJob") and "status" not in one:
                simulation.succeed(one, result={"videos": 1})
        simulation.settle()


def test_job_that_runs_is_in_progress():
    simulation = Simulation()
    simulation.prepare()

    assert simulation.status["state"] == "Training"
    assert kstatus(simulation.document) == "InProgress"
    assert simulation.condition("Ready")["status"] == "False"


def test_job_that_has_succeeded_is_current():
    simulation = Simulation()
    run_to_the_end(simulation)

    assert kstatus(simulation.document) == "Current"
    assert simulation.condition("Ready")["status"] == "True"


@pytest.mark.parametrize("changes", [{}, {"training.experiment": "no-such"}])
def test_job_that_has_failed_is_failed(changes):
    simulation = Simulation(changes)
    simulation.settle()
    if not changes:
        simulation.fail(simulation.stage_job("fetch-model"), 2, "DataError")
        simulation.settle()

    assert simulation.status["state"] == "Failed"
    assert kstatus(simulation.document) == "Failed"
    assert simulation.condition("Stalled")["message"] == simulation.status["message"]


def test_suspended_job_is_in_progress_and_says_why():
    simulation = Simulation({"runPolicy.suspend": True})
    simulation.settle()

    assert kstatus(simulation.document) == "InProgress"
    assert simulation.condition("Reconciling")["reason"] == "Suspended"


def test_finished_job_that_is_edited_is_current_again_after_a_pass():
    simulation = Simulation()
    run_to_the_end(simulation)
    simulation.document["spec"]["runPolicy"] = {"ttlSecondsAfterFinished": 9999}
    simulation.document["metadata"]["generation"] += 1
    assert kstatus(simulation.document) == "InProgress"

    simulation.settle()
    assert kstatus(simulation.document) == "Current"


def test_progress_of_the_training_does_not_move_the_conditions_of_readiness():
    simulation = Simulation()
    simulation.prepare()
    before = {kind: simulation.condition(kind) for kind in ("Ready", "Reconciling", "Stalled")}
    (pod, *_) = simulation.start_pods(simulation.running_attempt())
    simulation.say(pod["metadata"]["name"], "step=5/40 loss=0.5 samples/s=1.0 eta=1:00")
    simulation.settle()

    assert simulation.status["progress"]["step"] == 5
    assert {kind: simulation.condition(kind) for kind in before} == before
