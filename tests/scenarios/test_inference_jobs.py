"""InferenceJobs: videos of a model that a PostTrainingJob has published, or will."""

from __future__ import annotations

import pytest
from support.scenario_world import ITEM, InferenceJobs, ScenarioWorld

from cosmos_operator.api.labels import STAGE_LABEL


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


@pytest.mark.in_process
def test_failed_item_is_tried_again_with_the_pods_that_it_is_given_then(
    world: ScenarioWorld, jobs: InferenceJobs, trained: str
) -> None:
    world.lack_data("/mended/prompt", stage="generate-tried")
    other = {**ITEM, "name": "tried", "parameters": {**ITEM["parameters"], "seed": 13}}
    jobs.submit("retried", model={"job": trained}, items=[other])
    failed = jobs.wait_state("retried", "Failed")
    assert "spec.runPolicy.retry=1" in failed["message"]

    template = {"metadata": {"labels": {"team": "vision"}}}
    grace = {"generate": {"podTemplate": {"spec": {"terminationGracePeriodSeconds": 45}}}}
    jobs.patch("retried", {"podTemplate": template, "stages": grace, "runPolicy": {"retry": 1}})
    status = jobs.wait_state("retried", "Succeeded")

    assert status["retry"] == 1
    assert [one["state"] for one in status["inference"]] == ["Succeeded"]
    found = {
        pod["metadata"]["labels"][STAGE_LABEL]: pod
        for pod in world.list("/api/v1 pods", "cosmos.dev/inference-job=retried")
    }
    for name, seconds in (("generate-tried", 45), ("report", 30)):
        assert found[name]["metadata"]["labels"]["team"] == "vision"
        assert found[name]["spec"]["terminationGracePeriodSeconds"] == seconds
    jobs.delete("retried")


@pytest.mark.in_process
def test_pod_templates_reach_the_pods_of_their_stages_and_items(
    world: ScenarioWorld, jobs: InferenceJobs, trained: str
) -> None:
    templates = {
        "podTemplate": {"metadata": {"labels": {"team": "vision"}}},
        "stages": {"generate": {"podTemplate": {"metadata": {"labels": {"size": "small"}}}}},
    }
    large = {"podTemplate": {"metadata": {"labels": {"size": "large"}}}}
    items = [
        {**ITEM, "name": name, "parameters": {**ITEM["parameters"], "seed": seed}, **own}
        for name, seed, own in (("plain", 17, {}), ("own", 19, large))
    ]
    jobs.submit("shaped", model={"job": trained}, items=items, **templates)
    jobs.wait_state("shaped", "Succeeded")

    found = {
        labels[STAGE_LABEL]: (labels.get("team"), labels.get("size"))
        for pod in world.list("/api/v1 pods", "cosmos.dev/inference-job=shaped")
        for labels in [pod["metadata"]["labels"]]
    }
    assert found["generate-plain"] == ("vision", "small")
    assert found["generate-own"] == ("vision", "large")
    assert found["report"] == ("vision", None)


@pytest.mark.in_process
def test_job_that_is_made_anew_under_its_name_generates_its_own_videos(
    world: ScenarioWorld, jobs: InferenceJobs, trained: str
) -> None:
    """Neither status, nor objects, nor files of the deleted job count for another content."""
    addresses = []
    for seed in (23, 29):
        item = {**ITEM, "parameters": {**ITEM["parameters"], "seed": seed}}
        jobs.submit("reborn", model={"job": trained}, items=[item])
        (result,) = jobs.wait_state("reborn", "Succeeded")["inference"]
        addresses.append(result["address"])
        pods = world.list("/api/v1 pods", "cosmos.dev/inference-job=reborn")
        assert [p for p in pods if p["metadata"]["labels"][STAGE_LABEL] == "generate-clip"]
        jobs.delete("reborn")
        world.wait("it is gone", lambda: jobs.job("reborn") is None)
    assert addresses[0] != addresses[1]


@pytest.mark.in_process
def test_model_that_is_published_anew_under_its_name_is_sampled_anew(
    world: ScenarioWorld, jobs: InferenceJobs
) -> None:
    """The files of the videos bear the key of the training that made the model, not its name alone."""
    addresses = []
    for seed in (3, 5):
        training = world.document("phoenix")["spec"]["training"] | {"seed": seed}
        world.submit("phoenix", training=training)
        world.wait_state("phoenix", "Succeeded")
        jobs.submit("of-phoenix", model={"job": "phoenix"})
        (result,) = jobs.wait_state("of-phoenix", "Succeeded")["inference"]
        addresses.append(result["address"])
        jobs.delete("of-phoenix")
        world.delete("phoenix")
        world.wait("it is gone", lambda: world.job("phoenix") is None)
        world.wait("and its objects", lambda: not world.owned("phoenix"))
    assert addresses[0] != addresses[1]
