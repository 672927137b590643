"""Invariants of the decisions under random events in random order."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.decisions import Simulation

from cosmos_operator.decide.decision import Create, Delete
from cosmos_operator.kube.objects import format_time

EVENTS = (
    "pass", "pass", "time", "start", "report", "succeed", "succeed", "crash", "stop", "gpu",
    "evict", "vanish", "remove_deleted", "lose_status", "suspend", "resume",
)  # fmt: skip


def unfinished(simulation):
    return [
        one
        for (kind, _), one in simulation.objects.items()
        if kind in ("Job", "PyTorchJob")
        and "status" not in one
        and "deletionTimestamp" not in one["metadata"]
    ]


def happen(simulation, event, choice):
    """Let one random event happen to the job, to a workload, or to the training if there is one."""
    if event in GENERAL:
        GENERAL[event](simulation)
        return
    workloads = unfinished(simulation)
    training = [one for one in workloads if one["kind"] == "PyTorchJob"]
    if event in TO_ANY and workloads:
        TO_ANY[event](simulation, workloads[choice % len(workloads)])
    elif event in TO_TRAINING and training:
        TO_TRAINING[event](simulation, training[0], choice + 1)


def change(simulation, suspend):
    simulation.document["spec"]["runPolicy"] = {"suspend": suspend, "maxAttempts": 50}
    simulation.document["metadata"]["generation"] += 1


def lose_status(simulation):
    if simulation.status.get("attempts"):
        simulation.status["attempts"] = simulation.status["attempts"][:-1]


def start(simulation, workload):
    if not simulation.pods_of(workload["metadata"]["name"]):
        simulation.start_pods(workload)


def report(simulation, workload, step):
    for pod in simulation.pods_of(workload["metadata"]["name"])[:1]:
        text = f"step={step}/40 loss=0.5 samples/s=1.0 eta=1:00"
        simulation.say(pod["metadata"]["name"], text)


def evict(simulation, workload, step):
    for pod in simulation.pods_of(workload["metadata"]["name"], active=True)[:1]:
        pod["metadata"]["deletionTimestamp"] = format_time(simulation.now)


GENERAL = {
    "pass": lambda simulation: simulation.step(),
    "time": lambda simulation: simulation.pass_time(20),
    "suspend": lambda simulation: change(simulation, True),
    "resume": lambda simulation: change(simulation, False),
    "remove_deleted": lambda simulation: simulation.remove_deleted(),
    "lose_status": lose_status,
}
TO_ANY = {
    "start": start,
    "succeed": lambda simulation, workload: simulation.succeed(workload),
    "vanish": lambda simulation, workload: simulation._forget(workload["metadata"]["name"]),
}
TO_TRAINING = {
    "report": report,
    "evict": evict,
    "crash": lambda simulation, workload, step: simulation.fail(workload, 1, step=step),
    "stop": lambda simulation, workload, step: simulation.fail(workload, 75, "Stopped", step=step),
    "gpu": lambda simulation, workload, step: simulation.fail(workload, 81, "GpuFault", step=step),
}


def active_attempts(simulation):
    """Training workloads that run or may still run."""
    return [
        one["metadata"]["name"]
        for (kind, name), one in simulation.objects.items()
        if kind == "PyTorchJob" and ("status" not in one or simulation.pods_of(name, active=True))
    ]


histories = st.lists(st.tuples(st.sampled_from(EVENTS), st.integers(0, 39)), max_size=40)
quick = settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)


@quick
@given(histories)
def test_two_attempts_never_run_at_once_and_nothing_is_both_made_and_deleted(history):
    simulation = Simulation({"runPolicy": {"maxAttempts": 50}})
    for event, choice in history:
        happen(simulation, event, choice)
        decision = simulation.decide()
        made = {
            (a.manifest["kind"], a.manifest["metadata"]["name"])
            for a in decision.actions
            if isinstance(a, Create)
        }
        gone = {(a.kind, a.name) for a in decision.actions if isinstance(a, Delete)}
        assert not made & gone
        assert len(active_attempts(simulation)) <= 1


@quick
@given(histories)
def test_operator_always_comes_to_rest(history):
    simulation = Simulation({"runPolicy": {"maxAttempts": 50}})
    for event, choice in history:
        happen(simulation, event, choice)

    simulation.settle()


@quick
@given(histories)
def test_job_succeeds_in_the_end_if_the_cluster_lets_it(history):
    simulation = Simulation({"runPolicy": {"maxAttempts": 50}})
    for event, choice in history:
        happen(simulation, event, choice)
    if simulation.status.get("state") == "Failed":
        assert simulation.condition("Failed")["reason"] == "NoProgress"
        return
    simulation.document["spec"]["runPolicy"] = {"suspend": False, "maxAttempts": 50}
    simulation.document["metadata"]["generation"] += 1
    for _ in range(40):
        simulation.settle()
        simulation.remove_deleted()
        simulation.pass_time(400)
        for workload in unfinished(simulation):
            simulation.succeed(workload)
        if simulation.status["state"] in ("Succeeded", "Failed"):
            break

    ended = simulation.status["state"]
    assert ended == "Succeeded" or simulation.condition("Failed")["reason"] == "NoProgress"
    assert simulation.decide().actions == ()
