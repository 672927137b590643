"""Stages that two jobs use: who is suspended gives them up, and the last one stops them."""

from __future__ import annotations

from typing import Any

import pytest
from support.scenario_world import ScenarioWorld

IMAGE = "localhost:5000/cosmos-missing:none"
"""An image that cannot be pulled: the stages that use it wait."""


def submit(world: ScenarioWorld, name: str, **changes: Any) -> None:
    """Submit a job whose model nobody has downloaded."""
    unknown = world.document(name)["spec"]["embeddings"] | {"encoder": "Shared"}
    world.submit(name, embeddings=unknown, **changes)


def owners(world: ScenarioWorld) -> list[list[str]]:
    """Names of the owners of each Job that downloads the model of these jobs."""
    found = []
    for job in world.stage_jobs("fetch-model"):
        names = sorted(one["name"] for one in job["metadata"].get("ownerReferences", ()))
        if any(name.startswith("half-") for name in names):
            found.append(names)
    return found


@pytest.mark.in_process
def test_last_user_that_is_suspended_stops_the_stage_and_who_goes_on_begins_it_anew(
    world: ScenarioWorld,
) -> None:
    compute = {"nodes": 1, "processesPerNode": 1}
    for name in ("half-a", "half-b"):
        submit(world, name, compute=compute | {"image": IMAGE})
    world.wait("both use one Job", lambda: owners(world) == [["half-a", "half-b"]])

    world.patch("half-a", {"runPolicy": {"suspend": True}})
    world.wait("one of them gives it up", lambda: owners(world) == [["half-b"]])
    assert world.status("half-b")["state"] == "Preparing"

    world.patch("half-b", {"runPolicy": {"suspend": True}})
    world.wait("the last one stops it", lambda: owners(world) == [])

    world.patch("half-a", {"runPolicy": {"suspend": False}})
    world.wait("it begins anew", lambda: owners(world) == [["half-a"]])
    for name in ("half-a", "half-b"):
        world.delete(name)
    world.wait("it goes with the job", lambda: owners(world) == [])


@pytest.mark.in_process
def test_image_that_cannot_be_pulled_stops_no_job_with_another_image(world: ScenarioWorld) -> None:
    compute = {"nodes": 1, "processesPerNode": 1}
    encoder = world.document("x")["spec"]["embeddings"] | {"encoder": "Shared-Too"}
    world.submit("wrong-image", embeddings=encoder, compute={**compute, "image": IMAGE})
    found = world.wait_condition("wrong-image", "ModelReady", "ImagePullFailed")
    assert IMAGE in found["message"]
    assert "spec.compute.image" in found["message"]

    world.submit("right-image", embeddings=encoder, compute=compute)
    world.wait_state("right-image", "Succeeded")
    assert world.condition("wrong-image", "ModelReady")["reason"] == "ImagePullFailed"

    world.patch("wrong-image", {"compute": {"image": None}})
    world.wait_state("wrong-image", "Succeeded")
    images = {
        one["spec"]["template"]["spec"]["containers"][0]["image"]
        for one in world.stage_jobs("fetch-model")
    }
    assert IMAGE not in images, "what could not start is gone"
