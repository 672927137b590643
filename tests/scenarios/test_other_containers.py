"""Containers that other software puts into the pods of a job: the result is the worker's, and the pod is ended."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.scenario_world import Manifest, ScenarioWorld

ADVICE = ("'istio-proxy' did not end with the worker", "native sidecar", "sidecar.istio.io/inject")


@pytest.fixture
def inject(world: ScenarioWorld) -> Iterator[Callable[[str], None]]:
    """Puts a container that does not end by itself into the pods of a stage."""
    yield world.inject_sidecar
    world.end_injection()


def fresh(world: ScenarioWorld, name: str, max_length: int, **changes: Any) -> None:
    """Submit a job whose stages nobody has prepared."""
    embeddings = world.document(name)["spec"]["embeddings"] | {"maxLength": max_length}
    world.submit(name, embeddings=embeddings, **changes)


def result_of(world: ScenarioWorld, name: str, stage: str) -> Manifest:
    """The result of a stage in the status of a job."""
    found = world.status(name).get("stages", ())
    return next((one for one in found if one["name"] == stage), {})


@pytest.mark.parametrize("backend", ["Job", "PyTorchJob"])
def test_training_ends_with_its_worker(
    world: ScenarioWorld, inject: Callable[[str], None], backend: str
) -> None:
    name = f"meshed-{backend.lower()}"
    inject("train")
    compute = {"nodes": 2, "processesPerNode": 1}
    world.submit(name, backend={"type": backend}, compute=compute)
    status = world.wait_state(name, "Succeeded")

    (attempt,) = status["attempts"]
    assert attempt["outcome"] == "Succeeded"
    assert all(words in attempt["message"] for words in ADVICE)
    assert status["progress"]["summary"] == f"{world.steps}/{world.steps}"
    world.wait("its pods are gone", lambda: not world.pods(name, running=True))


def test_stage_ends_with_its_worker(world: ScenarioWorld, inject: Callable[[str], None]) -> None:
    inject("embed-text")
    fresh(world, "meshed-stage", 91, **world.endless)
    world.wait_step("meshed-stage", 1)

    def told() -> Manifest | None:
        found = result_of(world, "meshed-stage", "embed-text")
        return found if found.get("reason") == "OtherContainersLived" else None

    found: Manifest = world.wait("the status says what kept the pod", told)
    assert found["state"] == "Succeeded"
    assert all(words in found["message"] for words in ADVICE)
    assert "embed-text done" in "".join(found["lastLines"])
    world.delete("meshed-stage")


@pytest.mark.in_process
def test_worker_that_finds_a_mistake_is_heard_beside_a_container_that_lives(
    world: ScenarioWorld, inject: Callable[[str], None]
) -> None:
    inject("prepare-dataset")
    world.lack_data("/no-clips")
    world.submit("meshed-mistake", dataset={"source": {"path": "/no-clips"}})
    status = world.wait_state("meshed-mistake", "Failed")

    assert "/no-clips" in status["message"]
    assert "/no-clips" in "".join(
        result_of(world, "meshed-mistake", "prepare-dataset")["lastLines"]
    )
