"""Failures in the middle of a job: processes, pods, nodes and the operator die, and no work is lost.

Most of it happens to one training, "survivor", in the order of the tests: each breaks the attempt that the one before
left running.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from support.scenario_world import Manifest, ScenarioWorld


def impatient(world: ScenarioWorld) -> Manifest:
    """Settings with a short wait for a lost node, though longer than its taint stays after it is back."""
    toleration = {
        "key": "node.kubernetes.io/unreachable",
        "operator": "Exists",
        "effect": "NoExecute",
        "tolerationSeconds": 15 if world.is_real else 1,
    }
    return {"tolerations": [toleration]}


@pytest.fixture(scope="module")
def survivor(world: ScenarioWorld) -> str:
    """An endless training on two nodes."""
    world.restore_node()
    world.start_operator()
    world.uncordon()
    world.submit("survivor", **world.endless, scheduling=impatient(world))
    return "survivor"


def get_on(world: ScenarioWorld, name: str) -> Manifest:
    """Wait until the latest attempt runs on all nodes and has done ten steps; returns the status."""

    def test() -> Manifest | None:
        status = world.status(name)
        attempt = (status.get("attempts") or [{}])[-1]
        steps = attempt.get("endStep", 0) - attempt.get("startStep", 0)
        running = len(world.pods(name, running=True)) == 2
        return status if attempt.get("outcome") == "Running" and running and steps >= 10 else None

    result: Manifest = world.wait(f"the latest attempt of {name} gets on", test)
    return result


def break_attempt(world: ScenarioWorld, name: str, harm: Callable[[], object]) -> Manifest:
    """Break a progressing attempt; returns it once the next one has continued from its checkpoint."""
    (broken,) = break_attempts(world, name, harm)
    return broken


def break_attempts(world: ScenarioWorld, name: str, harm: Callable[[], object]) -> list[Manifest]:
    """Break a progressing attempt; returns the attempts that ended until one progressed from the last checkpoint."""
    before = get_on(world, name)
    number, saved = before["attempts"][-1]["number"], before["checkpoints"]["latestStep"]
    assert saved >= 5
    harm()
    world.wait(
        "another attempt begins", lambda: world.status(name)["attempts"][-1]["number"] > number
    )
    after = get_on(world, name)

    *ended, following = [one for one in after["attempts"] if one["number"] >= number]
    assert [one["number"] for one in ended] == list(range(number, following["number"]))
    assert following["startStep"] >= saved, "what was saved is continued from"
    return ended


@pytest.mark.in_process
def test_operator_that_is_started_anew_touches_nothing_of_a_running_training(
    world: ScenarioWorld, survivor: str
) -> None:
    def objects() -> list[str]:
        owned = world.owned(survivor)
        return sorted(f"{one['metadata']['name']} {one['metadata']['uid']}" for one in owned)

    get_on(world, survivor)
    before = objects()
    world.kill_operator()
    world.start_operator()
    world.wait_step(survivor, world.status(survivor)["progress"]["step"] + 20)

    assert objects() == before


def test_deleted_trainer_pod_costs_an_attempt_but_no_steps(
    world: ScenarioWorld, survivor: str
) -> None:
    get_on(world, survivor)
    (worker,) = world.workers(survivor)
    broken = break_attempt(world, survivor, lambda: world.delete_pod(worker["metadata"]["name"]))

    assert broken["outcome"] in ("Deleted", "Stopped")
    assert world.status(survivor)["failedAttempts"] == 0


def test_killed_worker_process_is_counted_and_continued(
    world: ScenarioWorld, survivor: str
) -> None:
    (worker,) = world.workers(survivor)
    broken = break_attempt(world, survivor, lambda: world.kill_process(worker["metadata"]["name"]))

    assert broken["outcome"] == "Crashed"
    assert "SIGKILL" in broken["message"]
    assert world.status(survivor)["failedAttempts"] == 1


def test_drained_node_stops_the_gang_which_continues_when_it_is_back(
    world: ScenarioWorld, survivor: str
) -> None:
    def drain_and_return() -> None:
        world.drain()
        world.wait("the gang has stopped", lambda: not world.pods(survivor, running=True))
        found = world.wait_condition(survivor, "Running", "Unschedulable")
        assert "unschedulable" in found["message"]
        world.uncordon()

    broken = break_attempt(world, survivor, drain_and_return)

    assert broken["outcome"] in ("Evicted", "Stopped", "Deleted")
    assert broken["counted"] is False


def test_lost_node_is_no_fault_of_the_job_which_continues(
    world: ScenarioWorld, survivor: str
) -> None:
    def lose_and_restore() -> None:
        world.lose_node()
        world.wait(
            "the attempt is given up while the node is away",
            lambda: world.status(survivor)["attempts"][-1]["outcome"] != "Running",
        )
        assert world.pods(survivor), "nobody is there to end them"
        world.restore_node()

    ended = break_attempts(world, survivor, lose_and_restore)

    # more than one if pods come back sooner than the node's last taint goes, which evicts them once more
    for broken in ended:
        assert broken["outcome"] == "NodeLost"
        assert broken["node"]
        assert broken["counted"] is False


def test_suspended_job_saves_and_resumes_where_it_stopped(
    world: ScenarioWorld, survivor: str
) -> None:
    def suspend_and_resume() -> None:
        step = world.status(survivor)["attempts"][-1]["endStep"]
        world.patch(survivor, {"runPolicy": {"suspend": True}})
        world.wait("its pods are gone", lambda: not world.pods(survivor))
        world.wait_state(survivor, "Suspended")
        world.wait(
            "the status tells the save of its end",
            lambda: world.status(survivor)["checkpoints"]["latestStep"] >= step,
        )
        pace = {"suspend": False, "maxAttempts": 5, "stallTimeoutSeconds": 900}
        world.patch(survivor, {"runPolicy": pace})

    broken = break_attempt(world, survivor, suspend_and_resume)

    assert broken["outcome"] == "Suspended"


def test_job_of_a_deleted_jobs_name_continues_from_its_files(
    world: ScenarioWorld, survivor: str
) -> None:
    saved = get_on(world, survivor)["checkpoints"]["latestStep"]
    world.delete(survivor)
    world.submit(survivor, **world.endless)
    status = get_on(world, survivor)

    assert [one["number"] for one in status["attempts"]] == [1]
    assert status["attempts"][0]["startStep"] >= saved


def test_deleted_job_takes_everything_with_it_but_its_files(
    world: ScenarioWorld, survivor: str
) -> None:
    get_on(world, survivor)
    assert world.owned(survivor)

    world.delete(survivor)

    world.wait("all that it owned is gone", lambda: not world.owned(survivor))
    assert world.job(survivor) is None
    assert world.checkpoint_files(survivor)


def test_operator_killed_at_every_stage_changes_nothing(world: ScenarioWorld) -> None:
    embeddings = world.document("headless")["spec"]["embeddings"]
    # nobody else has prepared this; it takes its time
    world.submit("headless", embeddings={**embeddings, "maxLength": 96})
    seen: list[str] = []
    while "Succeeded" not in seen:
        status = world.wait(
            f"headless leaves {seen}",
            lambda: (s := world.status("headless")) and s.get("state") not in (None, *seen) and s,
        )
        seen.append(status["state"])
        if status["state"] == "Succeeded":
            break
        world.kill_operator()
        if status["state"] == "Training":
            world.wait("the training ends", lambda: not world.pods("headless", running=True))
        world.start_operator()

    assert seen[-4:] == ["Preparing", "Training", "Publishing", "Succeeded"]
    assert [one["outcome"] for one in status["attempts"]] == ["Succeeded"]
    assert status["progress"]["summary"] == f"{world.steps}/{world.steps}"
