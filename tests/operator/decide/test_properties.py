"""Whatever happens, and in whatever order: what must always hold of the decisions."""

from __future__ import annotations

from decisions import Simulation
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cosmos_operator.decide.decision import Create, Delete
from cosmos_operator.decide.times import format_time

EVENTS = (
    "pass", "pass", "time", "start", "report", "succeed", "succeed", "crash", "stop", "gpu",
    "evict", "vanish", "let_go", "lose_status", "suspend", "resume",
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
    workloads = unfinished(simulation)
    workload = workloads[choice % len(workloads)] if workloads else None
    training = [one for one in workloads if one["kind"] == "PyTorchJob"]
    if event == "pass":
        simulation.step()
    elif event == "time":
        simulation.pass_time(20)
    elif event == "suspend" or event == "resume":
        simulation.document["spec"]["runPolicy"] = {
            "suspend": event == "suspend",
            "maxAttempts": 50,
        }
        simulation.document["metadata"]["generation"] += 1
    elif event == "let_go":
        simulation.let_go()
    elif event == "lose_status" and simulation.status.get("attempts"):
        simulation.status["attempts"] = simulation.status["attempts"][:-1]
    elif workload is None:
        return
    elif event == "start" and not simulation.pods_of(workload["metadata"]["name"]):
        simulation.start_pods(workload)
    elif event == "report" and training and simulation.pods_of(training[0]["metadata"]["name"]):
        pod = simulation.pods_of(training[0]["metadata"]["name"])[0]
        simulation.say(
            pod["metadata"]["name"], f"step={choice + 1}/40 loss=0.5 samples/s=1.0 eta=1:00"
        )
    elif event == "succeed":
        simulation.succeed(workload)
    elif event == "vanish":
        simulation._forget(workload["metadata"]["name"])
    elif training and event in ("crash", "stop", "gpu"):
        code = {"crash": 1, "stop": 75, "gpu": 81}[event]
        simulation.fail(training[0], code, "Crashed", step=choice + 1)
    elif training and event == "evict":
        for pod in simulation.pods_of(training[0]["metadata"]["name"], active=True)[:1]:
            pod["metadata"]["deletionTimestamp"] = format_time(simulation.now)


def active_attempts(simulation):
    """Training workloads that run or may still run."""
    return [
        one["metadata"]["name"]
        for (kind, name), one in simulation.objects.items()
        if kind == "PyTorchJob" and ("status" not in one or simulation.pods_of(name, active=True))
    ]


histories = st.lists(st.tuples(st.sampled_from(EVENTS), st.integers(0, 39)), max_size=40)
quick = settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)


@quick
@given(histories)
def test_two_attempts_never_run_at_once_and_nothing_is_both_made_and_deleted(history):
    simulation = Simulation({"runPolicy": {"maxAttempts": 50}})
    for event, choice in history:
        happen(simulation, event, choice)
        decision = simulation.decide()
        made = {(a.manifest["kind"], a.manifest["metadata"]["name"]) for a in decision.actions if isinstance(a, Create)}  # fmt: skip
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
        simulation.let_go()
        simulation.pass_time(400)
        for workload in unfinished(simulation):
            simulation.succeed(workload)
        if simulation.status["state"] in ("Succeeded", "Failed"):
            break

    ended = simulation.status["state"]
    assert ended == "Succeeded" or simulation.condition("Failed")["reason"] == "NoProgress"
    assert simulation.decide().actions == ()
