"""What dies in the middle of a job, and that nothing is lost."""

from __future__ import annotations

from scenario_world import Manifest, World


def attempts(status: Manifest) -> list[str]:
    return [one["outcome"] for one in status["attempts"]]


def continued(status: Manifest) -> bool:
    """Whether the last attempt began from a checkpoint."""
    return bool(status["attempts"][-1].get("startStep", 0) >= 10)


def test_operator_killed_at_every_stage_changes_nothing(world: World) -> None:
    world.submit("headless")
    seen = set()
    for state in ("Preparing", "Training", "Publishing", "Succeeded"):
        status = world.wait(
            f"headless gets to {state}",
            lambda: (s := world.status("headless")) and s.get("state") not in (None, *seen) and s,
        )
        seen.add(status["state"])
        if status["state"] == "Succeeded":
            break
        world.kill_operator()
        world.start_operator()
    status = world.wait_state("headless", "Succeeded")

    assert attempts(status) == ["Succeeded"]
    assert status["progress"]["summary"] == f"{world.steps}/{world.steps}"


def test_operator_that_was_away_catches_up(world: World) -> None:
    world.submit("away")
    world.wait_step("away", 10)
    world.kill_operator()
    world.wait("the training ends", lambda: not world.pods("away", running=True))
    world.start_operator()
    status = world.wait_state("away", "Succeeded")

    assert attempts(status) == ["Succeeded"]


def test_deleted_trainer_pod_costs_an_attempt_but_no_steps(world: World) -> None:
    world.submit("deleted")
    world.wait_step("deleted", 20)
    (worker,) = world.workers("deleted")
    world.delete_pod(worker["metadata"]["name"])
    status = world.wait_state("deleted", "Succeeded")

    assert attempts(status)[-1] == "Succeeded"
    assert len(attempts(status)) == 2
    assert status["failedAttempts"] == 0
    assert continued(status)


def test_killed_worker_process_is_counted_and_continued(world: World) -> None:
    world.submit("killed")
    world.wait_step("killed", 20)
    (worker,) = world.workers("killed")
    world.kill_process(worker["metadata"]["name"])
    status = world.wait_state("killed", "Succeeded")

    assert attempts(status) == ["Crashed", "Succeeded"]
    assert "SIGKILL" in status["attempts"][0]["message"]
    assert status["failedAttempts"] == 1
    assert continued(status)


def test_drained_node_stops_the_gang_which_continues_when_it_is_back(world: World) -> None:
    world.submit("drained")
    world.wait_step("drained", 20)
    world.drain()
    world.wait("the gang has stopped", lambda: not world.pods("drained", running=True))
    status = world.wait(
        "the next attempt waits",
        lambda: (s := world.status("drained")) and len(s["attempts"]) == 2 and s,
    )
    assert attempts(status)[0] in ("Evicted", "Stopped", "Deleted")
    found = world.wait_condition("drained", "Running", "Unschedulable")
    assert "unschedulable" in found["message"]

    world.uncordon()
    status = world.wait_state("drained", "Succeeded")

    assert status["failedAttempts"] == 0
    assert continued(status)


def test_suspended_job_saves_and_resumes_where_it_stopped(world: World) -> None:
    world.submit("paused")
    world.wait_step("paused", 15)
    world.patch("paused", {"runPolicy": {"suspend": True}})
    world.wait("its pods are gone", lambda: not world.pods("paused"))
    status = world.wait_state("paused", "Suspended")
    assert attempts(status) == ["Suspended"]
    saved = status["checkpoints"]["latestStep"]
    assert saved >= 10

    world.patch("paused", {"runPolicy": {"suspend": False}})
    status = world.wait_state("paused", "Succeeded")

    assert attempts(status) == ["Suspended", "Succeeded"]
    assert status["attempts"][1]["startStep"] >= saved
