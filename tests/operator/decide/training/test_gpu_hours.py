"""GPU hours that attempts use, repeat and wait for."""

from __future__ import annotations

from support.attempts import report, run
from support.decisions import Simulation

TWO_GPUS = {"compute": {"nodes": 2, "gpusPerNode": 1}}
HOUR_S = 3600


def begin(simulation: Simulation) -> None:
    """Bring the job to its first attempt, which waits for its pods."""
    simulation.prepare()
    simulation.settle()


def test_hours_of_an_attempt_that_waits_an_hour_and_trains_two() -> None:
    simulation = Simulation(TWO_GPUS)
    begin(simulation)
    simulation.pass_time(HOUR_S)
    run(simulation, 10)
    simulation.pass_time(2 * HOUR_S)
    report(simulation, 40)
    simulation.settle()
    simulation.succeed(simulation.running_attempt(), step=40, checkpoint=40)
    simulation.settle()

    (attempt,) = simulation.attempts
    assert attempt["gpus"] == 2
    assert attempt["gpuHours"] == {"used": "4.000", "repeated": "0.000", "waited": "2.000"}
    assert simulation.status["gpuHours"] == attempt["gpuHours"]


def test_steps_after_the_last_checkpoint_are_repeated() -> None:
    simulation = Simulation(TWO_GPUS)
    begin(simulation)
    run(simulation, 0)
    simulation.pass_time(HOUR_S)
    report(simulation, 20)
    simulation.say("push-1-master-0", "saved checkpoint step=15")
    simulation.settle()
    simulation.fail(simulation.running_attempt(), 1, step=20, checkpoint=15)
    simulation.settle()

    hours = simulation.attempts[0]["gpuHours"]
    assert hours == {"used": "2.000", "repeated": "0.500", "waited": "0.000"}, "5 of 20 steps"

    simulation.pass_time(300)
    simulation.settle()
    run(simulation, 15)
    simulation.pass_time(HOUR_S)
    report(simulation, 40)
    simulation.settle()
    simulation.succeed(simulation.running_attempt(), step=40, checkpoint=40)
    simulation.settle()
    assert simulation.attempts[0]["gpuHours"] == hours
    assert simulation.status["gpuHours"]["used"] == "4.000"
    assert simulation.status["gpuHours"]["repeated"] == "0.500"


def test_hours_alone_do_not_cause_a_write_of_the_status() -> None:
    simulation = Simulation(TWO_GPUS)
    begin(simulation)
    run(simulation, 10)
    before = simulation.status
    simulation.pass_time(60)

    decision = simulation.decide()
    assert decision.status["attempts"][0]["gpuHours"] == before["attempts"][0]["gpuHours"]


def test_training_on_the_cpu_has_none() -> None:
    simulation = Simulation()
    begin(simulation)
    run(simulation, 10)

    assert "gpuHours" not in simulation.status
    assert "gpuHours" not in simulation.attempts[0]
