"""The chart on the real cluster: its own tests, upgrade, uninstall and reinstall while a job trains."""

from __future__ import annotations

import pytest
from real_world import RELEASE, RealWorld

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]


def test_helm_test_passes(real_world: RealWorld) -> None:
    said = real_world.helm("test", RELEASE, "--timeout=180s")

    assert "Succeeded" in said
    assert "Failed" not in said


def test_upgrade_leaves_a_running_job_alone(real_world: RealWorld) -> None:
    real_world.submit("upgraded")
    real_world.wait_step("upgraded", 10)
    before = real_world.kubectl("get", "pods", "--selector=app.kubernetes.io/component=operator")

    real_world.install("--set=jobs.podAnnotations.example\\.com/upgraded=yes")
    status = real_world.wait_state("upgraded", "Succeeded")

    after = real_world.kubectl("get", "pods", "--selector=app.kubernetes.io/component=operator")
    assert before.split() != after.split()
    assert [one["outcome"] for one in status["attempts"]] == ["Succeeded"]


def test_uninstall_and_reinstall_lose_nothing(real_world: RealWorld) -> None:
    real_world.submit("reinstalled")
    real_world.wait_step("reinstalled", 10)

    real_world.helm("uninstall", RELEASE, "--wait")
    assert real_world.job("reinstalled") is not None
    real_world.wait(
        "the pods go on", lambda: len(real_world.pods("reinstalled", running=True)) == 2
    )
    assert "cosmos" in real_world.kubectl("get", "pvc", "--output=name")
    real_world.install()
    status = real_world.wait_state("reinstalled", "Succeeded")

    assert [one["outcome"] for one in status["attempts"]] == ["Succeeded"]


def test_job_can_be_deleted_while_no_operator_runs(real_world: RealWorld) -> None:
    real_world.submit("orphan")
    real_world.wait_step("orphan", 10)
    real_world.kill_operator()

    real_world.delete("orphan")
    real_world.wait("everything of it is gone", lambda: not real_world.owned("orphan"))

    real_world.start_operator()
