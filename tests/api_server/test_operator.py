"""The real operator with a real API server: status of a job, and the objects that are created and deleted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from support.api_client import Api, connect, prepared, wait_for
from support.operator_process import OperatorProcess
from support.scenario_world import CLAIM, Jobs

if TYPE_CHECKING:
    from harness.api_server import ApiServer

pytestmark = pytest.mark.api_server


class OperatedJobs(Jobs):
    """PostTrainingJobs in a namespace of their own with a claim, and an operator that watches it."""

    is_real = False
    patience = 30.0

    def __init__(self, api: Api, operator: OperatorProcess) -> None:
        self.api, self._operator = api, operator
        claim = {
            "metadata": {"name": CLAIM},
            "spec": {
                "accessModes": ["ReadWriteMany"],
                "resources": {"requests": {"storage": "1Gi"}},
            },
        }
        path = api.core("persistentvolumeclaims")
        assert api.call("POST", path, claim)[0] == 201
        bound = {"status": {"phase": "Bound"}}
        assert api.call("PATCH", f"{path}/{CLAIM}/status", bound, "merge")[0] == 200

    def operator_log(self) -> str:
        return self._operator.log()


@pytest.fixture(scope="module")
def operated(
    api: Api, api_server: ApiServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Jobs]:
    """Jobs with a running operator, which ends in order after the tests of this file."""
    wait_for(lambda: api.call("GET", api.jobs)[0] == 200)  # 429 while it fills its memory
    with prepared(connect(api_server.kubeconfig)) as own:
        folder = tmp_path_factory.mktemp("operator")
        kubeconfig = api_server.kubeconfig
        operator = OperatorProcess(folder, kubeconfig, watchNamespaces=[own.namespace])
        jobs = OperatedJobs(own, operator)
        operator.start()
        yield jobs
        operator.stop()


def event_reasons(jobs: Jobs, name: str) -> list[str]:
    events = jobs.list("/api/v1 events")
    return [one["reason"] for one in events if one["involvedObject"]["name"] == name]


def test_unknown_experiment(operated: Jobs) -> None:
    operated.submit("no-experiment", training={"experiment": "video2world_nothing"})
    status = operated.wait_state("no-experiment", "Failed")

    assert "video2world_nothing" in status["message"]
    assert operated.condition("no-experiment", "Accepted")["reason"] == "InvalidSpec"
    operated.wait("an event says it", lambda: event_reasons(operated, "no-experiment"))


def test_claim_that_is_not_there(operated: Jobs) -> None:
    operated.submit("no-claim", storage={"datasets": {"claimName": "archive"}})
    found = operated.wait_condition("no-claim", "StorageReady", "ClaimNotFound")

    assert f"there: {CLAIM}" in found["message"]


def test_job_is_prepared_suspended_and_deleted(operated: Jobs) -> None:
    operated.submit("prepared")
    operated.wait_state("prepared", "Preparing")
    (first, *_) = operated.wait("its Jobs are made", lambda: operated.stage_jobs("prepare-dataset"))
    uid = operated.job("prepared")["metadata"]["uid"]  # type: ignore[index]
    assert uid in [owner["uid"] for owner in first["metadata"]["ownerReferences"]]

    operated.submit("shares", training=operated.document("x")["spec"]["training"] | {"seed": 7})
    other = operated.job("shares")["metadata"]["uid"]  # type: ignore[index]

    def owners() -> set[str]:
        (one,) = operated.stage_jobs("prepare-dataset")
        return {owner["uid"] for owner in one["metadata"]["ownerReferences"]}

    operated.wait("both own it", lambda: owners() == {uid, other})

    operated.patch("prepared", {"runPolicy": {"suspend": True}})
    operated.wait_state("prepared", "Suspended")
    (again,) = operated.stage_jobs("prepare-dataset")
    assert again["metadata"]["uid"] == first["metadata"]["uid"], "another job waits for it"
