"""The chart on the real cluster: its own tests, upgrade, uninstall and reinstall while a job trains."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.real_world import RELEASE, RealWorld

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]


def test_helm_test_passes(real_world: RealWorld) -> None:
    said = real_world.helm("test", RELEASE, "--timeout=180s")

    assert "Succeeded" in said
    assert "Failed" not in said


def test_other_replica_takes_over_when_the_one_that_acts_is_lost(real_world: RealWorld) -> None:
    def read(*what: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(real_world.kubectl("get", *what, "--output=json"))
        return found

    def holder() -> str:
        identity: str = read("lease", "cosmos-operator")["spec"]["holderIdentity"]
        return identity.partition("_")[0]

    real_world.wait_for_operator()
    budget = read("pdb", "cosmos-operator")
    assert (budget["spec"]["minAvailable"], budget["status"]["desiredHealthy"]) == (1, 1)
    first = real_world.wait("an operator acts", holder)

    real_world.kubectl("delete", "pod", first, "--grace-period=0", "--force")

    real_world.wait("the other one acts", lambda: holder() not in ("", first), 40)
    real_world.wait_for_operator()


@pytest.fixture(scope="module")
def endless(real_world: RealWorld) -> str:
    """An endless training that upgrade, uninstall and reinstall must not disturb."""
    real_world.submit("kept", **real_world.endless)
    real_world.wait_step("kept", 10)
    return "kept"


def still_trains(world: RealWorld, name: str) -> None:
    """Check that the first attempt goes on with the same pods, and that the operator reports its steps."""
    step = world.status(name)["attempts"][0]["endStep"]
    status = world.wait_step(name, step + 20)
    assert [one["outcome"] for one in status["attempts"]] == ["Running"]
    assert len(world.pods(name, running=True)) == 2


def test_upgrade_leaves_a_running_job_alone(real_world: RealWorld, endless: str) -> None:
    before = real_world.kubectl("get", "pods", "--selector=app.kubernetes.io/component=operator")

    real_world.install("--set=jobs.podAnnotations.example\\.com/upgraded=yes")

    still_trains(real_world, endless)
    after = real_world.kubectl("get", "pods", "--selector=app.kubernetes.io/component=operator")
    assert before.split() != after.split()


def test_uninstall_and_reinstall_lose_nothing(real_world: RealWorld, endless: str) -> None:
    real_world.helm("uninstall", RELEASE, "--wait")
    assert real_world.job(endless) is not None
    assert len(real_world.pods(endless, running=True)) == 2
    assert "cosmos" in real_world.kubectl("get", "pvc", "--output=name")

    real_world.install()

    still_trains(real_world, endless)


def test_job_can_be_deleted_while_no_operator_runs(real_world: RealWorld, endless: str) -> None:
    real_world.kill_operator()

    real_world.delete(endless)
    real_world.wait("everything of it is gone", lambda: not real_world.owned(endless))
    assert real_world.checkpoint_files(endless)

    real_world.start_operator()
