"""Edits of jobs that run, wait or have failed: what a message advises is accepted, and does what was said."""

from __future__ import annotations

from typing import Any

import pytest
from support.scenario_world import Manifest, ScenarioWorld


def constant_rate(world: ScenarioWorld, **training: Any) -> Manifest:
    """``spec.training`` with a learning rate that stays as it is, so that a run may become longer."""
    found: Manifest = world.document("any")["spec"]["training"]
    overrides = [*found["overrides"], "optimizer.final_factor=1"]
    return {**found, "overrides": overrides, **training}


def endless(world: ScenarioWorld) -> Manifest:
    """Fields of spec of a training on one node that never ends by itself."""
    return {**world.endless, "compute": {"nodes": 1, "processesPerNode": 1}}


def cpu_requests(pod: Manifest) -> str:
    requests: Manifest = pod["spec"]["containers"][0].get("resources", {}).get("requests", {})
    return str(requests.get("cpu", ""))


# --- compute -------------------------------------------------------------------------------------


def test_edit_of_a_running_training_waits_for_its_next_attempt(world: ScenarioWorld) -> None:
    world.submit("edit-later", **endless(world))
    world.wait_step("edit-later", 5)
    (before,) = world.pods("edit-later", running=True)
    world.patch("edit-later", {"compute": {"resources": {"requests": {"cpu": "100m"}}}})

    found = world.wait_condition("edit-later", "SpecApplied", "NextAttempt")
    assert "attempt 2" in found["message"]
    (running,) = world.pods("edit-later", running=True)
    assert running["metadata"]["uid"] == before["metadata"]["uid"]

    world.patch("edit-later", {"runPolicy": {"suspend": True}})
    saved = world.wait_state("edit-later", "Suspended")["checkpoints"]["latestStep"]
    world.patch("edit-later", {"runPolicy": {"suspend": False}})
    status = world.wait_step("edit-later", saved + 1, attempt=2)
    (after,) = world.pods("edit-later", running=True)

    assert cpu_requests(after) == "100m"
    assert status["attempts"][1]["startStep"] >= saved
    assert world.condition("edit-later", "SpecApplied")["status"] == "True"
    world.delete("edit-later")


@pytest.mark.in_process
def test_training_without_memory_is_held_and_goes_on_with_more(world: ScenarioWorld) -> None:
    limited = {"nodes": 1, "processesPerNode": 1, "resources": {"limits": {"memory": "150Mi"}}}
    world.lack_memory("no-memory", 2)
    world.submit("no-memory", compute={**limited, "sharedMemory": "32Mi"})
    status = world.wait_state("no-memory", "Suspended", seconds=4 * world.patience)

    assert [one["outcome"] for one in status["attempts"]] == ["OutOfMemory"] * 2
    held = world.condition("no-memory", "Suspended")
    assert held["reason"] == "OutOfMemory"
    assert "spec.compute.resources.limits.memory=150Mi" in held["message"]

    world.patch("no-memory", {"compute": {"resources": {"limits": {"memory": "3Gi"}}}})
    status = world.wait_state("no-memory", "Succeeded", seconds=4 * world.patience)
    assert status["attempts"][-1]["outcome"] == "Succeeded"


@pytest.mark.in_process
def test_training_that_no_node_can_run_is_given_less(world: ScenarioWorld) -> None:
    compute = {"nodes": 1, "gpusPerNode": 16, "preparation": {"gpus": 0}}
    training = constant_rate(world, overrides=["trainer.micro_batch_size=1"])
    world.submit("less-gpus", training=training, compute=compute)
    found = world.wait_condition("less-gpus", "Running", "Unschedulable")
    assert "or change spec.compute" in found["message"]

    world.patch("less-gpus", {"compute": {"gpusPerNode": 0, "processesPerNode": 1}})
    world.wait_state("less-gpus", "Succeeded")
    assert [one["outcome"] for one in world.status("less-gpus")["attempts"]] == [
        "Edited",
        "Succeeded",
    ]


# --- retry ---------------------------------------------------------------------------------------


def test_failed_training_goes_on_from_its_checkpoint(world: ScenarioWorld) -> None:
    world.submit("again", **endless(world), runPolicy={"maxAttempts": 1})
    world.wait_step("again", 10)
    (pod,) = world.pods("again", running=True)
    world.kill_process(pod["metadata"]["name"])
    failed = world.wait_state("again", "Failed")
    assert "spec.runPolicy.retry=1" in failed["message"]

    world.patch("again", {"runPolicy": {"retry": 1}})
    status = world.wait_step("again", failed["checkpoints"]["latestStep"] + 1, attempt=2)

    assert status["attempts"][1]["startStep"] == failed["checkpoints"]["latestStep"]
    assert status["retry"] == 1
    assert status["failedAttempts"] == 0
    world.delete("again")


@pytest.mark.in_process
def test_failed_stage_is_tried_again(world: ScenarioWorld) -> None:
    world.lack_data("/mended")
    world.submit("mended", dataset={"name": "mended", "source": {"path": "/mended"}})
    world.wait_state("mended", "Failed")
    world.patch("mended", {"runPolicy": {"retry": 1}})

    assert world.wait_state("mended", "Succeeded")["retry"] == 1


@pytest.mark.in_process
def test_name_that_is_taken_is_changed(world: ScenarioWorld) -> None:
    world.submit("owner", outputs={"name": "taken"})
    world.wait_state("owner", "Succeeded")
    world.submit("guest", outputs={"name": "taken"})
    failed = world.wait_state("guest", "Failed")
    assert "give this job another spec.outputs.name" in failed["message"]
    assert not failed.get("attempts"), "it is told before anything is trained"

    world.patch("guest", {"outputs": {"name": "free"}, "runPolicy": {"retry": 1}})
    status = world.wait_state("guest", "Succeeded")

    assert status["outputs"][0]["address"] == "checkpoints://free/model.pt"
    assert [one["outcome"] for one in status["attempts"]] == ["Succeeded"]


# --- more steps, and other runs -------------------------------------------------------------------


@pytest.mark.in_process
def test_training_goes_on_to_more_steps(world: ScenarioWorld) -> None:
    world.submit("longer", training=constant_rate(world, steps=200))
    world.wait_step("longer", 5)
    world.patch("longer", {"training": {"steps": 210}})
    status = world.wait_state("longer", "Succeeded", seconds=4 * world.patience)

    assert status["progress"]["summary"] == "210/210"
    assert [one["outcome"] for one in status["attempts"]] == ["Succeeded", "Succeeded"]
    assert status["attempts"][1]["startStep"] == 200
    assert status["outputs"][0]["step"] == 210


@pytest.mark.in_process
def test_more_steps_are_refused_where_they_would_be_another_training(world: ScenarioWorld) -> None:
    world.submit("falling", **endless(world))
    world.wait_step("falling", 5)
    world.patch("falling", {"training": {"steps": 200_000}})
    found = world.wait_condition("falling", "SpecApplied", "Refused")

    assert "goes on to 100000 steps" in found["message"]
    assert len(world.pods("falling", running=True)) == 1
    world.delete("falling")


@pytest.mark.in_process
def test_job_takes_the_training_of_another_one_over(world: ScenarioWorld) -> None:
    world.submit("origin", training=constant_rate(world))
    world.wait_state("origin", "Succeeded")
    more = constant_rate(world, steps=world.steps + 10)
    world.submit("heir", training=more, checkpoints={"everySteps": 10, "from": {"job": "origin"}})
    status = world.wait_state("heir", "Succeeded")

    assert status["attempts"][0]["startStep"] == world.steps
    assert status["outputs"][0]["step"] == world.steps + 10


@pytest.mark.in_process
def test_training_of_other_options_is_refused_before_anything_is_trained(
    world: ScenarioWorld,
) -> None:
    world.submit("model-of", training=constant_rate(world))
    world.wait_state("model-of", "Succeeded")
    other = constant_rate(world, seed=77)
    world.submit("stranger", training=other, checkpoints={"from": {"job": "model-of"}})
    status = world.wait_state("stranger", "Failed")

    assert "trainer.seed" in status["message"]
    assert world.condition("stranger", "Failed")["reason"] == "IncompatibleCheckpoint"
    assert status.get("attempts", []) == []


# --- requirements --------------------------------------------------------------------------------


@pytest.mark.in_process
def test_queue_of_a_cluster_without_queues_is_removed(world: ScenarioWorld) -> None:
    world.submit("unqueued", scheduling={"queueName": "team-a"})
    found = world.wait_condition("unqueued", "Admitted", "QueueingUnavailable")
    assert "or remove the name" in found["message"]

    world.patch("unqueued", {"scheduling": {"queueName": None}})
    world.wait_state("unqueued", "Succeeded")


@pytest.mark.in_process
def test_backend_that_the_cluster_lacks_is_replaced(world: ScenarioWorld) -> None:
    world.submit("unbacked", backend={"type": "TrainJob"})
    found = world.wait_condition("unbacked", "Accepted", "BackendUnavailable")
    assert "set it to one that this cluster has" in found["message"]

    world.patch("unbacked", {"backend": {"type": "Job"}})
    status = world.wait_state("unbacked", "Succeeded")
    assert status["attempts"][0]["backend"] == "Job"


@pytest.mark.in_process
def test_log_address_of_a_job_follows_its_backend(world: ScenarioWorld) -> None:
    world.submit("followed", **endless(world), backend={"type": "PyTorchJob"})
    world.wait_step("followed", 5)
    assert pods_of_service(world, "followed") == ["followed-1-master-0"]

    world.patch("followed", {"backend": {"type": "Job"}, "runPolicy": {"suspend": True}})
    world.wait_state("followed", "Suspended")
    world.patch("followed", {"runPolicy": {"suspend": False}})
    status = world.wait_step("followed", 10, attempt=2)

    assert status["attempts"][1]["backend"] == "Job"
    (pod,) = world.pods("followed", running=True)
    assert pods_of_service(world, "followed") == [pod["metadata"]["name"]]
    world.delete("followed")


def pods_of_service(world: ScenarioWorld, name: str) -> list[str]:
    """Names of the running pods that ``kubectl logs svc/NAME`` chooses from."""
    services = world.list("/api/v1 services")
    (service,) = [one for one in services if one["metadata"]["name"] == name]
    selector = ",".join(f"{key}={value}" for key, value in service["spec"]["selector"].items())
    pods = world.list("/api/v1 pods", selector)
    return [pod["metadata"]["name"] for pod in pods if pod["status"].get("phase") == "Running"]


@pytest.mark.in_process
def test_claim_that_is_not_there_is_created_by_the_job(world: ScenarioWorld) -> None:
    world.submit("unclaimed", storage={"datasets": {"claimName": "archive-of-edits"}})
    found = world.wait_condition("unclaimed", "StorageReady", "ClaimNotFound")
    assert "set spec.storage.datasets.create in this job" in found["message"]

    new = {"size": "1Gi", "accessMode": "ReadWriteOnce"}
    world.patch("unclaimed", {"storage": {"datasets": {"create": new}}})
    world.wait(
        "the claim is there",
        lambda: (
            "archive-of-edits"
            in [one["metadata"]["name"] for one in world.list("/api/v1 persistentvolumeclaims")]
        ),
    )
    world.delete("unclaimed")


# --- order ---------------------------------------------------------------------------------------


@pytest.mark.in_process
def test_training_begins_once_its_own_model_is_there(world: ScenarioWorld) -> None:
    """Embeddings and latents are there already, made by another job with another model."""
    embeddings = world.document("any")["spec"]["embeddings"] | {"maxLength": 82}
    model = world.document("any")["spec"]["model"]
    world.submit("with-one-model", embeddings=embeddings)
    world.wait_state("with-one-model", "Succeeded")
    world.submit("with-another", embeddings=embeddings, model={**model, "name": "Another"})
    status = world.wait_state("with-another", "Succeeded")

    ready = {c["type"]: c["lastTransitionTime"] for c in status["conditions"]}
    assert ready["LatentsReady"] <= ready["ModelReady"]
    assert ready["ModelReady"] <= status["attempts"][0]["startTime"]
