"""Requests that the cluster cannot satisfy: a condition says what was asked, what there is, and what to do."""

from __future__ import annotations

import pytest
from support.scenario_world import ITEM, ScenarioWorld


def test_claim_that_is_not_there(world: ScenarioWorld) -> None:
    world.submit("no-claim", storage={"datasets": {"claimName": "archive"}})
    found = world.wait_condition("no-claim", "StorageReady", "ClaimNotFound")

    assert "spec.storage.datasets.claimName: no claim 'archive'" in found["message"]
    assert "cosmos" in found["message"].partition("(there: ")[2].partition(")")[0].split(", ")
    assert world.status("no-claim")["state"] == "Pending"
    world.delete("no-claim")


def test_secret_that_is_not_there(world: ScenarioWorld) -> None:
    world.submit("no-secret", credentials={"huggingFace": {"name": "hub-token"}})
    found = world.wait_condition("no-secret", "ModelReady", "ContainerNotCreated")

    assert 'secret "hub-token" not found' in found["message"]
    world.delete("no-secret")


def test_image_that_cannot_be_pulled(world: ScenarioWorld) -> None:
    image = "localhost:5000/cosmos-missing:none"
    # nobody has prepared it: a pod must start
    unknown = world.document("no-image")["spec"]["embeddings"] | {"encoder": "Other"}
    compute = {"nodes": 1, "processesPerNode": 1}
    world.submit("no-image", compute=compute | {"image": image}, embeddings=unknown)
    found = world.wait_condition("no-image", "ModelReady", "ImagePullFailed")

    assert image in found["message"]
    assert "spec.compute.image" in found["message"]

    # the Job that waits for its image is still there when the corrected job comes
    world.delete("no-image")
    world.submit("no-image", compute=compute, embeddings=unknown)
    world.wait_condition("no-image", "ModelReady", "Ready")
    world.delete("no-image")


def test_more_gpus_than_any_node_has(world: ScenarioWorld) -> None:
    world.submit(
        "no-gpus",
        training={
            "experiment": "video2world_instruction_push_tiny",
            "overrides": ["trainer.micro_batch_size=1"],
        },
        compute={
            "nodes": 1,
            "gpusPerNode": 16,
            "preparation": {"gpus": 0},
            "image": world.cpu_image,
        },
    )
    found = world.wait_condition("no-gpus", "Running", "Unschedulable")

    assert "asks for 16 nvidia.com/gpu on each of 1 node" in found["message"]
    assert "spec.compute" in found["message"]
    world.delete("no-gpus")


def test_published_name_of_another_job(world: ScenarioWorld) -> None:
    compute, outputs = {"nodes": 1, "processesPerNode": 1}, {"name": "same-name"}
    world.submit("keeps-name", compute=compute, outputs=outputs)
    world.wait_condition("keeps-name", "Accepted", "Valid")
    world.submit("copies-name", compute=compute, outputs=outputs)
    found = world.wait_condition("copies-name", "Accepted", "PublishedNameTaken")

    assert "PostTrainingJob 'keeps-name' publishes as 'same-name' too" in found["message"]
    assert world.status("copies-name")["state"] == "Failed"
    assert not world.owned("copies-name")

    # the advice is followed: another name, and trying again
    world.patch("copies-name", {"outputs": {"name": "other-name"}, "runPolicy": {"retry": 1}})
    world.wait_condition("copies-name", "Accepted", "Valid")
    for name in ("keeps-name", "copies-name"):
        world.delete(name)


@pytest.mark.parametrize("items", [[ITEM], []])
@pytest.mark.in_process
def test_published_name_of_a_job_that_is_gone(
    world: ScenarioWorld, items: list[dict[str, object]]
) -> None:
    compute, outputs = {"nodes": 1, "processesPerNode": 1}, {"name": f"left-{len(items)}"}
    world.submit("publishes", compute=compute, outputs=outputs)
    world.wait_state("publishes", "Succeeded")
    world.delete("publishes")
    training = world.document("x")["spec"]["training"] | {"seed": 7}
    world.submit("comes-late", compute=compute, outputs=outputs, inference=items, training=training)
    status = world.wait_state("comes-late", "Failed")

    assert "belongs to publishes, not to comes-late" in status["message"]
    assert status.get("progress", {}).get("step", 0) == 0
    assert items == [] or not status["attempts"]
    world.delete("comes-late")


def test_unknown_experiment(world: ScenarioWorld) -> None:
    world.submit("no-experiment", training={"experiment": "video2world_nothing"})
    status = world.wait_state("no-experiment", "Failed")

    assert "video2world_nothing" in status["message"]
    assert "video2world_instruction_bridge_57frames" in status["message"]
    assert world.condition("no-experiment", "Accepted")["reason"] == "InvalidSpec"


def test_queue_where_nothing_queues(world: ScenarioWorld) -> None:
    world.submit("no-queue", scheduling={"queueName": "team-a"})
    found = world.wait_condition("no-queue", "Admitted", "QueueingUnavailable")

    assert "'team-a' needs Kueue" in found["message"]
    world.delete("no-queue")


def test_data_that_is_not_in_the_image_fails_with_the_workers_words(world: ScenarioWorld) -> None:
    world.lack_data("/nowhere")
    world.submit("no-data", dataset={"source": {"path": "/nowhere"}})
    status = world.wait_state("no-data", "Failed")

    assert "/nowhere" in status["message"]
    assert world.condition("no-data", "DatasetReady")["status"] == "False"
