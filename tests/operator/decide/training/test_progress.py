"""Progress of the training, judged by the operator's own clock: the clock of a node may be wrong."""

from __future__ import annotations

import pytest
from support.attempts import outcomes, report, training
from support.decisions import Simulation

from cosmos_operator.decide.training import progress
from cosmos_operator.decide.training.progress import LogFacts, read_log

TIMEOUT = {"runPolicy": {"stallTimeoutSeconds": 60}}
HOUR = 3600.0


def skewed_report(simulation, step, behind_s):
    """The leader reports a step with the time of a clock that is behind (or, if negative, ahead)."""
    pod = simulation.pods_of(simulation.attempts[-1]["workload"])[0]["metadata"]["name"]
    simulation.say(pod, f"step={step}/40 loss=0.1 samples/s=8.5 eta=1:10", ago_s=behind_s)
    simulation.settle()


@pytest.mark.parametrize("behind_s", [HOUR, -HOUR, 24 * HOUR])
def test_node_whose_clock_is_wrong_is_not_called_stalled(behind_s):
    simulation = training(TIMEOUT)
    for step in range(11, 16):
        simulation.pass_time(40)
        skewed_report(simulation, step, behind_s)

    assert outcomes(simulation) == ["Running"]
    assert simulation.condition("Progressing")["status"] == "True"
    assert simulation.status["progress"]["step"] == 15


@pytest.mark.parametrize("behind_s", [HOUR, -HOUR, 0])
def test_training_that_reports_nothing_new_is_stalled_whatever_the_clock(behind_s):
    simulation = training(TIMEOUT)
    simulation.pass_time(40)
    skewed_report(simulation, 11, behind_s)
    simulation.pass_time(59)
    simulation.settle()
    assert outcomes(simulation) == ["Running"]

    simulation.pass_time(2)
    simulation.settle()
    assert outcomes(simulation) == ["Stalled"]
    assert "no progress for 1m01s" in simulation.attempts[0]["message"]


def test_training_that_hangs_before_its_first_step_is_stalled():
    simulation = Simulation(TIMEOUT)
    simulation.prepare()
    (pod,) = simulation.start_pods(simulation.running_attempt())
    simulation.say(pod["metadata"]["name"], "training parameters=1000 device=cuda", ago_s=HOUR)
    simulation.settle()
    assert simulation.status["progress"]["summary"] == "0/40"

    for _ in range(7):
        simulation.pass_time(10)
        simulation.settle()
    assert outcomes(simulation) == ["Stalled"]


def test_both_times_of_the_last_report_are_in_the_status():
    simulation = training(TIMEOUT)
    simulation.pass_time(40)
    skewed_report(simulation, 11, HOUR)

    progress = simulation.status["progress"]
    assert progress["lastReportTime"] == "2026-01-31T12:00:40Z"
    assert progress["logTime"] == "2026-01-31T11:00:40Z"


def test_report_of_the_attempt_before_is_none_of_the_next():
    simulation = training(TIMEOUT)
    simulation.fail(simulation.running_attempt(), 1, step=12)
    simulation.settle()
    simulation.pass_time(600)
    simulation.settle()
    (pod, *_) = simulation.start_pods(simulation.running_attempt())
    simulation.logs[pod["metadata"]["name"]] = "loads\n"
    simulation.settle()
    simulation.pass_time(59)
    simulation.settle()
    assert outcomes(simulation)[-1] == "Running", (
        "600 s without a report were those between attempts"
    )
    report(simulation, 13)
    simulation.settle()
    assert simulation.status["progress"]["step"] == 13


STAMP = "2026-01-31T12:00:00Z INFO rank=0 cosmos_worker.train.trainer "


@pytest.mark.parametrize(
    "line",
    [
        STAMP + f"step={'9' * 5000}/10 loss=0.5 samples/s=1 eta=1:00",
        STAMP + f"step=1/{'9' * 5000} loss=0.5 samples/s=1 eta=1:00",
        STAMP + f"checkpoint step={'9' * 5000}",
        STAMP + "step=\u0661/\u0662 loss=0.5 samples/s=1 eta=1:00",
        STAMP.replace("01-31", "02-30") + "step=1/2 loss=0.5 samples/s=1 eta=1:00",
        STAMP.replace("12:00", "29:00") + "step=1/2 loss=0.5 samples/s=1 eta=1:00",
        STAMP.replace("2026", "\u0662\u0660\u0662\u0666") + "step=1/2 loss=0.5",
        "[" * 4000,
        "\0" * 100,
    ],
    ids=range(9),
)
def test_line_with_impossible_numbers_is_passed_over(line):
    assert read_log(f"{line}\n") == LogFacts()


def test_impossible_parts_of_a_line_are_left_out():
    facts = read_log(
        STAMP + f"step=1/2 loss={'9' * 5000} samples/s=-{'1' * 99} eta={'9' * 5000}:1\n"
    )

    assert (facts.step, facts.total_steps) == (1, 2)
    assert (progress._decimal(facts.loss), progress._decimal(facts.samples_per_second)) == (
        None,
        None,
    )
    assert facts.eta_s is None


def test_note_has_neither_control_characters_nor_thousands():
    facts = read_log(STAMP + "note: a\x1b[31m" + "b" * 5000 + "\n")

    assert facts.note.startswith("a\\x1b[31mbbb")
    assert len(facts.note) == 500
