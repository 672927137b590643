"""What the workload of a running training tells: the steps that a preemption would cost, and the progress."""

from __future__ import annotations

from support.attempts import report, training
from support.decisions import Simulation

from cosmos_operator.decide.decision import Annotate, ReportProgress

PERIOD_S = 61


def told(simulation: Simulation, kind: type) -> list[object]:
    return [action for action in simulation.decide().actions if isinstance(action, kind)]


def test_workload_tells_the_steps_since_the_last_checkpoint_now_and_then() -> None:
    simulation = training()
    simulation.say("push-1-master-0", "checkpoint step=10 seconds=0.1")
    report(simulation, 17)
    assert told(simulation, Annotate) == [], "a short training pays no request"

    simulation.pass_time(PERIOD_S)
    report(simulation, 18)
    (action,) = told(simulation, Annotate)
    assert isinstance(action, Annotate)
    assert (action.kind, action.name) == ("PyTorchJob", "push-1")
    assert action.annotations["cosmos.dev/steps-since-checkpoint"] == "8"

    workload = simulation.running_attempt()
    workload["metadata"].setdefault("annotations", {}).update(action.annotations)
    simulation.pass_time(5)
    report(simulation, 19)
    assert told(simulation, Annotate) == [], "not more often"
    simulation.pass_time(PERIOD_S)
    report(simulation, 20)
    assert len(told(simulation, Annotate)) == 1


def test_trainjob_tells_its_progress_in_its_own_words() -> None:
    simulation = training({"backend.type": "TrainJob"}, served=frozenset({"TrainJob"}))
    simulation.pass_time(PERIOD_S)
    pod = simulation.pods_of("push-1")[0]
    report(simulation, 20, pod)
    (action,) = told(simulation, ReportProgress)

    assert isinstance(action, ReportProgress)
    status = action.trainer_status
    assert status["progressPercentage"] == 50
    assert status["estimatedRemainingSeconds"] == 70
    assert {"name": "loss", "value": "0.1834"} in status["metrics"]
    assert status["lastUpdatedTime"]


def test_training_that_has_ended_tells_nothing() -> None:
    simulation = training()
    simulation.pass_time(PERIOD_S)
    simulation.fail(simulation.running_attempt(), 1, step=12)

    assert told(simulation, Annotate) == []
