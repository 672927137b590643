"""The hash of what an attempt is created from: it changes with what its pods have, and with nothing else."""

from __future__ import annotations

import pytest
from support.jobs import make_job

from cosmos_operator.plan.edits import spec_key


@pytest.mark.parametrize(
    "change",
    [
        {"compute.image": "worker:2"},
        {"compute.nodes": 2, "compute.processesPerNode": 1},
        {"compute.resources": {"limits": {"memory": "1Gi"}}},
        {"scheduling": {"queueName": "team-a"}},
        {"backend": {"type": "Job"}},
        {"checkpoints": {"everyMinutes": 10}},
        {"training.overrides": ["trainer.micro_batch_size=1"]},
        {"training.steps": 80},
    ],
    ids=str,
)
def test_hash_changes_with_what_an_attempt_has(change):
    assert spec_key(make_job(change)) != spec_key(make_job())


@pytest.mark.parametrize(
    "change",
    [
        {"runPolicy": {"suspend": True, "retry": 2}},
        {"compute.preparation": {"gpus": 0}},
        {"outputs": {"name": "other"}},
        {"inference": []},
        {"credentials": {"s3": {"name": "keys"}}},
        {"compute.nodes": 1, "scheduling": {}},
    ],
    ids=str,
)
def test_hash_stays_with_what_its_pods_do_not_depend_on(change):
    assert spec_key(make_job(change)) == spec_key(make_job())
