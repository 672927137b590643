"""Deadlines and memory limits of stages: those of the installation, and those of a job."""

from __future__ import annotations

from typing import Any

import pytest
from support.jobs import make_job

from cosmos_operator.plan.names import stage_field
from cosmos_operator.plan.render import build_manifests
from cosmos_operator.plan.stages import plan_stages
from cosmos_operator.settings import STAGE_DEADLINES, Settings

GPU = {"compute": {"gpusPerNode": 1}}


def jobs_of(
    changes: dict[str, Any] | None = None, settings: Settings | None = None
) -> dict[str, dict[str, Any]]:
    """Kind of a stage → its Job, or the workload of the training."""
    job = make_job(changes)
    manifests = build_manifests(job, plan_stages(job), settings=settings)
    found = {}
    for one in manifests:
        if one["kind"] in ("Job", "PyTorchJob"):
            stage = one["metadata"]["labels"]["cosmos.dev/stage"]
            found["generate" if stage.startswith("generate-") else stage] = one
    return found


def resources_of(job: dict[str, Any]) -> dict[str, Any]:
    resources: dict[str, Any] = job["spec"]["template"]["spec"]["containers"][0]["resources"]
    return resources


def test_every_stage_but_the_training_has_a_deadline() -> None:
    jobs = jobs_of()

    assert {stage_field(kind) for kind in jobs} == {*STAGE_DEADLINES, "train"}
    for kind, job in jobs.items():
        expected = STAGE_DEADLINES.get(stage_field(kind))
        assert job["spec"].get("activeDeadlineSeconds") == expected, kind


def test_deadlines_of_chart_and_job() -> None:
    settings = Settings(stageDeadlineSeconds={"embedText": 60, "report": 70})

    jobs = jobs_of({"stages": {"report": {"activeDeadlineSeconds": 80}}}, settings)

    found = {kind: job["spec"].get("activeDeadlineSeconds") for kind, job in jobs.items()}
    assert (found["embed-text"], found["report"]) == (60, 80)
    assert found["publish"] == STAGE_DEADLINES["publish"]


def test_stages_without_gpus_have_a_memory_limit() -> None:
    jobs = jobs_of(GPU)

    for kind in ("fetch-model", "prepare-dataset", "check-inputs", "publish", "report"):
        resources = resources_of(jobs[kind])
        assert resources["limits"] == {"memory": "64Gi"}, kind
        assert resources["requests"] == {"memory": "256Mi"}, kind
    for kind in ("embed-text", "cache-latents"):  # Kueue would ask for a quota of memory
        assert resources_of(jobs[kind]) == {"limits": {"nvidia.com/gpu": "1"}}, kind


@pytest.mark.parametrize("part", ["limits", "requests"])
def test_pod_template_that_speaks_of_memory_is_left_alone(part: str) -> None:
    own = {part: {"memory": "100Gi"}}
    template = {"spec": {"containers": [{"name": "worker", "resources": own}]}}

    jobs = jobs_of({"stages": {"publish": {"podTemplate": template}}})

    assert resources_of(jobs["publish"]) == own
    assert resources_of(jobs["report"])["limits"] == {"memory": "64Gi"}


def test_installation_may_have_no_limit() -> None:
    assert resources_of(jobs_of(settings=Settings(stageMemoryLimit=""))["publish"]) == {}
