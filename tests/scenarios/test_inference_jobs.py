"""InferenceJobs: videos of a model that a PostTrainingJob has published, or will."""

from __future__ import annotations

import pytest
from support.scenario_world import ITEM, InferenceJobs, ScenarioWorld


@pytest.fixture
def jobs(world: ScenarioWorld) -> InferenceJobs:
    return InferenceJobs(world)


@pytest.fixture(scope="module")
def trained(world: ScenarioWorld) -> str:
    """A job that has ended and has generated one item."""
    world.submit("film", inference=[ITEM])
    world.wait_state("film", "Succeeded")
    return "film"


def own_objects(world: ScenarioWorld, name: str) -> list[str]:
    selector = f"cosmos.dev/inference-job={name}"
    paths = ("/apis/batch/v1 jobs", "/api/v1 configmaps", "/api/v1 pods")
    return [one["metadata"]["name"] for path in paths for one in world.list(path, selector)]


def test_job_that_was_applied_before_its_training_generates_once_the_model_is_published(
    world: ScenarioWorld, jobs: InferenceJobs
) -> None:
    jobs.submit("later", model={"job": "trains"})
    jobs.wait_condition("later", "ModelReady", "JobNotFound")
    world.submit("trains", runPolicy={"suspend": True})
    found = jobs.wait_condition("later", "ModelReady", "WaitsForJob")
    assert "'trains' has published its model" in found["message"]
    assert own_objects(world, "later") == []
    world.patch("trains", {"runPolicy": {"suspend": False}})

    status = jobs.wait_state("later", "Succeeded")
    assert [one["numVideos"] for one in status["inference"]] == [1]
    assert status["inference"][0]["address"].startswith("checkpoints://trains-")
    assert [one["name"] for one in status["outputs"]] == ["report"]
    for kind in ("Accepted", "StorageReady", "ModelReady", "InputsReady", "Succeeded", "Ready"):
        assert jobs.condition("later", kind)["status"] == "True", kind
    assert world.status("trains")["state"] == "Succeeded"


def test_item_that_the_job_has_generated_is_found_and_other_videos_are_made(
    world: ScenarioWorld, jobs: InferenceJobs, trained: str
) -> None:
    (theirs,) = world.status(trained)["inference"]
    other = {**ITEM, "name": "other", "parameters": {**ITEM["parameters"], "seed": 9}}
    jobs.submit("more", model={"job": trained}, items=[ITEM, other])
    status = jobs.wait_state("more", "Succeeded")

    same, new = status["inference"]
    assert same["address"] == theirs["address"]
    assert new["address"] != theirs["address"]
    assert world.status(trained)["inference"] == [theirs]


def test_two_kinds_may_bear_one_name_and_each_goes_with_its_own(
    world: ScenarioWorld, jobs: InferenceJobs, trained: str
) -> None:
    before = {one["metadata"]["uid"] for one in world.owned(trained)}
    jobs.submit(trained, model={"job": trained})
    jobs.wait_state(trained, "Succeeded")
    assert {one["metadata"]["uid"] for one in world.owned(trained)} == before
    assert own_objects(world, trained)

    jobs.delete(trained)
    world.wait("its objects are gone", lambda: not own_objects(world, trained))
    assert {one["metadata"]["uid"] for one in world.owned(trained)} == before


def test_model_stays_usable_when_the_job_that_trained_it_is_deleted(
    world: ScenarioWorld, jobs: InferenceJobs
) -> None:
    world.submit("gone")
    world.wait_state("gone", "Succeeded")
    jobs.submit("kept", model={"job": "gone"}, runPolicy={"suspend": True})
    jobs.wait_state("kept", "Suspended")
    jobs.wait("the record", lambda: "kept-model-ij" in own_objects(world, "kept"))
    world.delete("gone")
    world.wait("it is gone", lambda: world.job("gone") is None)

    jobs.patch("kept", {"runPolicy": {"suspend": False}})
    jobs.wait_state("kept", "Succeeded")


def test_suspended_job_has_no_pods_and_goes_on(
    world: ScenarioWorld, jobs: InferenceJobs, trained: str
) -> None:
    jobs.submit("paused", model={"job": trained}, runPolicy={"suspend": True})
    jobs.wait_state("paused", "Suspended")
    assert world.list("/api/v1 pods", "cosmos.dev/inference-job=paused") == []

    jobs.patch("paused", {"runPolicy": {"suspend": False}})
    jobs.wait_state("paused", "Succeeded")


def test_published_name_is_sampled_without_the_job(
    world: ScenarioWorld, jobs: InferenceJobs, trained: str
) -> None:
    spec = world.document(trained)["spec"]
    own = {name: spec[name] for name in ("tokenizer", "embeddings")}
    experiment = spec["training"]["experiment"]
    jobs.submit("by-name", model={"published": trained}, experiment=experiment, **own)
    status = jobs.wait_state("by-name", "Succeeded")

    assert status["inference"][0]["address"].startswith("checkpoints://generated-with-film/")


def test_finished_job_is_deleted_in_time(jobs: InferenceJobs, trained: str) -> None:
    jobs.submit("brief", model={"job": trained}, runPolicy={"ttlSecondsAfterFinished": 1})
    jobs.wait("it is deleted", lambda: jobs.job("brief") is None)


def test_restarted_operator_carries_on(
    world: ScenarioWorld, jobs: InferenceJobs, trained: str
) -> None:
    other = {**ITEM, "parameters": {**ITEM["parameters"], "seed": 11}}
    jobs.submit("restart", model={"job": trained}, items=[other])
    jobs.wait("it has begun", lambda: own_objects(world, "restart"))
    world.kill_operator()
    world.start_operator()
    jobs.wait_state("restart", "Succeeded")
