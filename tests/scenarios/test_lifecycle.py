"""A job from ``kubectl apply`` to its end: shared results, appended items, edits and deletion on the way."""

from __future__ import annotations

import pytest
from support.scenario_world import ITEM, ScenarioWorld


@pytest.fixture(scope="module")
def finished(world: ScenarioWorld) -> str:
    """A job that trained on two nodes, needing no other operator, and sampled."""
    world.start_operator()
    compute = {"nodes": 2, "processesPerNode": 1}
    world.submit("whole", backend={"type": "Job"}, compute=compute, inference=[ITEM])
    world.wait_state("whole", "Succeeded")
    return "whole"


def test_job_trains_publishes_and_samples(world: ScenarioWorld, finished: str) -> None:
    status = world.status(finished)

    assert status["progress"]["summary"] == f"{world.steps}/{world.steps}"
    assert status["checkpoints"]["latestStep"] == world.steps
    assert [(a["backend"], a["outcome"]) for a in status["attempts"]] == [("Job", "Succeeded")]
    assert status["inference"][0]["numVideos"] == 1
    addresses = {one["name"]: one["address"] for one in status["outputs"]}
    assert addresses["model"] == "checkpoints://whole/model.pt"
    for kind in ("Accepted", "StorageReady", "ModelReady", "DatasetReady", "EmbeddingsReady",
                 "LatentsReady", "InputsReady", "Admitted", "Published", "Succeeded"):  # fmt: skip
        assert world.condition(finished, kind)["status"] == "True", kind
    assert world.condition(finished, "Failed")["status"] == "False"


def test_finished_job_stays_finished_whatever_is_edited(
    world: ScenarioWorld, finished: str
) -> None:
    before = world.status(finished)
    world.patch(finished, {"runPolicy": {"maxAttempts": 7}})
    status = world.wait(
        "the edit is seen",
        lambda: (s := world.status(finished))["observedGeneration"] == 2 and s,
    )

    assert status == {**before, "observedGeneration": 2}


def test_appended_item_that_cannot_be_carried_out_fails_alone(world: ScenarioWorld) -> None:
    world.submit("append", inference=[ITEM], **world.endless)
    world.wait_step("append", 5)
    wrong = {**ITEM, "name": "wrong", "inputs": [{"prompt": "push", "conditioning": "vido://x"}]}
    world.patch("append", {"inference": [ITEM, wrong]})
    status = world.wait(
        "the item has failed",
        lambda: (s := world.status("append"))["inference"][-1]["name"] == "wrong" and s,
    )

    assert [one["state"] for one in status["inference"]] == ["Pending", "Failed"]
    assert "conditioning" in status["inference"][-1]["message"]
    assert world.condition("append", "Accepted")["status"] == "True"
    assert world.condition("append", "Failed")["status"] == "False"
    world.delete("append")


def test_jobs_with_the_same_inputs_share_their_preparation(world: ScenarioWorld) -> None:
    embeddings = world.document("share-a")["spec"]["embeddings"] | {"maxLength": 80}
    other = world.document("share-b")["spec"]["training"] | {"seed": 7}
    world.submit("share-a", embeddings=embeddings)
    world.submit("share-b", embeddings=embeddings, training=other)
    for name in ("share-a", "share-b"):
        world.wait_state(name, "Succeeded")

    uids = {world.job(name)["metadata"]["uid"] for name in ("share-a", "share-b")}  # type: ignore[index]
    for stage in ("fetch-model", "prepare-dataset", "embed-text", "cache-latents"):
        owners = [
            {owner["uid"] for owner in job["metadata"]["ownerReferences"]}
            for job in world.stage_jobs(stage)
        ]
        assert [uids <= found for found in owners if uids & found] == [True], stage


def test_training_on_what_others_prepared_waits_for_its_own_model(world: ScenarioWorld) -> None:
    embeddings = world.document("first")["spec"]["embeddings"] | {"maxLength": 81}
    world.submit("first-model", embeddings=embeddings)
    world.wait_state("first-model", "Succeeded")
    world.lack_data("/no-model", "fetch-model")

    other = {"name": "Other", "source": {"path": "/no-model"}}
    world.submit("second-model", embeddings=embeddings, model=other)
    status = world.wait_state("second-model", "Failed")

    assert "/no-model" in status["message"]
    for kind in ("DatasetReady", "EmbeddingsReady", "LatentsReady"):
        assert world.condition("second-model", kind)["status"] == "True", kind
    assert status.get("attempts", []) == []


def test_wrong_input_is_told_before_the_training(world: ScenarioWorld) -> None:
    gone = {"prompt": "push the red cube left", "conditioning": "/no-image.png"}
    world.lack_data("/no-image.png", "check-inputs")
    world.submit("no-start-image", inference=[{**ITEM, "inputs": [gone]}])
    status = world.wait_state("no-start-image", "Failed")

    assert "/no-image.png" in status["message"]
    assert world.condition("no-start-image", "InputsReady")["status"] == "False"
    assert status.get("attempts", []) == []
