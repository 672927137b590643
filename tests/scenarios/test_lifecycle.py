"""A job from ``kubectl apply`` to its end, and what is shared, appended, edited and deleted on the way."""

from __future__ import annotations

import pytest
from scenario_world import Refusal, World

INPUT = {
    "prompt": "push the red cube left",
    "conditioning": "/opt/cosmos/examples/pushing/dataset/videos/test/one-000000/rgb.mp4",
}
SAMPLING = {
    "numPixelFrames": 17, "height": 128, "width": 160, "fps": 10, "steps": 2, "sampler": "Res2Ab",
    "guidance": 1, "numInputFrames": 1, "inputFrames": "First",
}  # fmt: skip
ITEM = {"name": "clip", "inputs": [INPUT], "parameters": SAMPLING}


def test_job_trains_publishes_and_samples(world: World) -> None:
    world.submit("whole", inference=[ITEM])
    status = world.wait_state("whole", "Succeeded")

    assert status["progress"]["summary"] == f"{world.steps}/{world.steps}"
    assert status["checkpoints"]["latestStep"] == world.steps
    assert [a["outcome"] for a in status["attempts"]] == ["Succeeded"]
    assert status["inference"][0]["numVideos"] == 1
    addresses = {one["name"]: one["address"] for one in status["outputs"]}
    assert addresses["model"] == "checkpoints://whole/model.pt"
    for kind in ("Accepted", "StorageReady", "ModelReady", "DatasetReady", "EmbeddingsReady",
                 "LatentsReady", "Admitted", "Published", "Succeeded"):  # fmt: skip
        assert world.condition("whole", kind)["status"] == "True", kind
    assert world.condition("whole", "Failed")["status"] == "False"


def test_item_appended_to_a_finished_job_is_generated(world: World) -> None:
    world.submit("append")
    world.wait_state("append", "Succeeded")

    world.patch("append", {"inference": [ITEM]})
    status = world.wait_state("append", "Succeeded")

    assert status["inference"][0]["state"] == "Succeeded"
    assert status["inference"][0]["address"].startswith("checkpoints://append-")
    assert [a["number"] for a in status["attempts"]] == [1]


def test_jobs_with_the_same_inputs_share_their_preparation(world: World) -> None:
    world.submit("share-a")
    other = {"experiment": "video2world_instruction_push_tiny", "steps": 20, "seed": 7}
    world.submit("share-b", training=other)
    for name in ("share-a", "share-b"):
        world.wait_state(name, "Succeeded")

    uids = {world.job(name)["metadata"]["uid"] for name in ("share-a", "share-b")}  # type: ignore[index]
    for stage in ("fetch-model", "prepare-dataset", "embed-text", "cache-latents"):
        owners = [
            {owner["uid"] for owner in job["metadata"]["ownerReferences"]}
            for job in world.stage_jobs(stage)
        ]
        assert [uids <= found for found in owners if uids & found] == [True], stage


def test_batch_job_backend_needs_no_other_operator(world: World) -> None:
    world.submit("batch", backend={"type": "Job"})
    status = world.wait_state("batch", "Succeeded")

    assert status["attempts"][0]["backend"] == "Job"


def test_deleted_job_takes_everything_with_it_but_its_files(world: World) -> None:
    world.submit("gone")
    world.wait_step("gone", 20)
    assert world.owned("gone")

    world.delete("gone")

    world.wait("all that it owned is gone", lambda: not world.owned("gone"))
    assert world.job("gone") is None
    assert world.checkpoint_files("gone")


def test_job_of_a_deleted_jobs_name_continues_from_its_files(world: World) -> None:
    world.submit("again")
    world.wait_step("again", 20)
    world.delete("again")
    world.submit("again")
    status = world.wait_state("again", "Succeeded")

    assert status["attempts"][-1]["startStep"] >= 10


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("training", {"training": {"steps": 7}}),
        ("dataset", {"dataset": {"camera": 3}}),
        ("compute", {"compute": {"nodes": 1}}),
        ("storage", {"storage": {"models": {"claimName": "other"}}}),
        ("backend", {"backend": {"type": "Job"}}),
        ("outputs", {"outputs": {"name": "another"}}),
    ],
)
def test_what_decides_the_result_cannot_be_edited(world: World, field: str, change: dict) -> None:  # type: ignore[type-arg]
    if world.job("fixed") is None:
        world.submit("fixed", runPolicy={"suspend": True})

    with pytest.raises(Refusal, match=f"{field} cannot be changed"):
        world.patch("fixed", change)


def test_what_decides_the_pace_can_be_edited(world: World) -> None:
    world.submit("edited", runPolicy={"suspend": True})
    world.wait_state("edited", "Suspended")

    world.patch("edited", {"runPolicy": {"suspend": False, "maxAttempts": 5, "stallTimeoutSeconds": 900}})  # fmt: skip
    world.wait_state("edited", "Succeeded")
