"""TrainJobs of the real Kubeflow Trainer v2."""

from __future__ import annotations

import pytest
from real_world import RealWorld

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]


def test_trainjob_trains_on_two_nodes_and_is_begun_again_when_a_worker_dies(
    trainer: RealWorld,
) -> None:
    training = trainer.document("trainjob")["spec"]["training"] | {"steps": 100}
    compute = {"nodes": 2, "processesPerNode": 1}
    trainer.submit("trainjob", backend={"type": "TrainJob"}, training=training, compute=compute)
    trainer.wait_step("trainjob", 15)
    (workload,) = trainer.list("/apis/trainer.kubeflow.org/v1alpha1 trainjobs", "cosmos.dev/job")
    assert workload["spec"]["trainer"]["numNodes"] == 2
    assert len(trainer.pods("trainjob", running=True)) == 2

    trainer.kill_process(trainer.workers("trainjob")[-1]["metadata"]["name"])

    status = trainer.wait_state("trainjob", "Succeeded")
    first, second = status["attempts"]
    assert (first["backend"], first["outcome"]) == ("TrainJob", "Crashed")
    assert "SIGKILL" in first["message"]
    assert second["outcome"] == "Succeeded"
    assert second["startStep"] >= 10, "it continued from a checkpoint"
    trainer.delete("trainjob")
    trainer.wait("all that it owned is gone", lambda: not trainer.owned("trainjob"))
