from __future__ import annotations

import pytest

from cosmos_operator.controller.metrics import Metrics
from cosmos_operator.controller.work_queue import WorkQueue
from cosmos_operator.kube.kinds import JobKey


def key(name: str) -> JobKey:
    return JobKey("PostTrainingJob", "a", name)


def values(metrics: Metrics) -> dict[str, float]:
    lines = metrics.render().decode().splitlines()
    pairs = [line.rsplit(" ", 1) for line in lines if not line.startswith("#")]
    return {name: float(value) for name, value in pairs}


def test_jobs_are_counted_by_their_last_state():
    metrics = Metrics()
    metrics.note_job(key("one"), "Pending")
    metrics.note_job(key("two"), "Training")
    metrics.note_job(key("one"), "Training")
    metrics.note_job(key("one"), "Training")
    metrics.note_job(key("two"), None)
    metrics.note_job(key("unknown"), None)

    found = values(metrics)
    assert found['cosmos_jobs{kind="PostTrainingJob",state="Training"}'] == 1
    assert found['cosmos_jobs{kind="PostTrainingJob",state="Pending"}'] == 0


def test_passes_are_timed_and_failures_counted():
    metrics = Metrics()
    with metrics.time_pass():
        pass
    with pytest.raises(KeyError), metrics.time_pass():
        raise KeyError("spec")

    found = values(metrics)
    assert found["cosmos_reconcile_seconds_count"] == 2
    assert found["cosmos_reconcile_errors_total"] == 1


async def test_queue_and_watch_are_asked_when_read():
    metrics = Metrics()

    async def handle(_: JobKey) -> None:
        return None

    queue = WorkQueue(handle)
    metrics.follow_queue(queue)
    metrics.follow_watch("Pod", lambda: 7.5)
    metrics.note_namespace("team-a", is_left_out=True)
    metrics.note_attempt("Succeeded")
    metrics.note_leader(is_leader=True)
    queue.add(key("one"))

    found = values(metrics)
    assert found["cosmos_queue_depth"] == 1
    assert found['cosmos_watch_lag_seconds{kind="Pod"}'] == 7.5
    assert found['cosmos_namespace_left_out{namespace="team-a"}'] == 1
    assert found['cosmos_attempts_total{outcome="Succeeded"}'] == 1
    assert found["cosmos_leader"] == 1


def test_two_operators_in_a_process_do_not_share_metrics():
    Metrics().note_attempt("Failed")

    assert "cosmos_attempts_total" not in str(values(Metrics()))


def test_gpu_hours_are_added_by_kind():
    metrics = Metrics()
    metrics.note_gpu_hours("used", 1.5)
    metrics.note_gpu_hours("used", 0.5)
    metrics.note_gpu_hours("waited", 0.25)

    text = metrics.render().decode()
    assert 'cosmos_gpu_hours_total{kind="used"} 2.0' in text
    assert 'cosmos_gpu_hours_total{kind="waited"} 0.25' in text
