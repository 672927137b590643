"""The worker's container among others in a pod, and what the pod says about it."""

from __future__ import annotations

from typing import Any

import pytest

from cosmos_operator.kube.containers import (
    WORKER_NAMES,
    has_started,
    kept_alive_by,
    memory_limit,
    worker_name,
)
from cosmos_operator.kube.kinds import Manifest
from cosmos_operator.kube.pods import ending_of, obstacle_of
from cosmos_operator.plan.backend import BACKENDS

RUNNING: Manifest = {"running": {"startedAt": "2026-01-31T12:00:00Z"}}


def terminated(exit_code: int, message: str = "") -> Manifest:
    return {"terminated": {"exitCode": exit_code, "reason": "Error", "message": message}}


def waiting(reason: str, message: str = "") -> Manifest:
    return {"waiting": {"reason": reason, "message": message}}


def pod(
    states: dict[str, Manifest], phase: str = "Running", init: dict[str, Manifest] | None = None
) -> Manifest:
    """A pod with these containers, and these init containers."""

    def statuses(found: dict[str, Manifest]) -> list[Manifest]:
        return [
            {"name": name, "image": f"{name}:1", "state": state} for name, state in found.items()
        ]

    return {
        "metadata": {"name": "push-1", "labels": {}},
        "spec": {
            "nodeName": "node1",
            "containers": [{"name": name} for name in states],
            "initContainers": [{"name": name} for name in init or {}],
        },
        "status": {
            "phase": phase,
            "containerStatuses": statuses(states),
            "initContainerStatuses": statuses(init or {}),
        },
    }


def test_every_backend_has_a_known_name_for_the_workers_container():
    assert {backend.container for backend in BACKENDS.values()} == set(WORKER_NAMES)


@pytest.mark.parametrize("name", WORKER_NAMES)
def test_worker_is_found_by_its_name_wherever_it_stands(name):
    assert worker_name(pod({"istio-proxy": RUNNING, name: RUNNING})) == name


def test_annotation_decides_between_two_known_names():
    found = pod({"worker": RUNNING, "node": RUNNING})
    found["metadata"]["annotations"] = {"kubectl.kubernetes.io/default-container": "node"}
    assert worker_name(found) == "node"

    found["metadata"]["annotations"] = {"kubectl.kubernetes.io/default-container": "istio-proxy"}
    assert worker_name(found) == "worker"


def test_end_is_that_of_the_worker_whatever_others_ended_with():
    found = ending_of(
        pod({"istio-proxy": terminated(0), "worker": terminated(2, "no clips")}, "Failed")
    )
    assert found is not None
    assert (found.exit_code, found.message) == (2, "no clips")

    found = ending_of(pod({"istio-proxy": terminated(1), "worker": terminated(0)}, "Failed"))
    assert found is not None
    assert found.exit_code == 0


@pytest.mark.parametrize(
    ("states", "phase", "names"),
    [
        ({"istio-proxy": RUNNING, "worker": terminated(0)}, "Running", ("istio-proxy",)),
        ({"x": waiting("ImagePullBackOff"), "worker": terminated(0)}, "Pending", ("x",)),
        ({"istio-proxy": RUNNING, "worker": RUNNING}, "Running", ()),
        ({"istio-proxy": terminated(0), "worker": terminated(0)}, "Running", ()),
        ({"istio-proxy": terminated(0), "worker": terminated(0)}, "Succeeded", ()),
        ({"worker": terminated(1)}, "Running", ()),
    ],
)
def test_pod_is_kept_alive_by_those_that_have_not_ended(states, phase, names):
    assert kept_alive_by(pod(states, phase)) == names


def test_native_sidecar_that_is_being_ended_keeps_nothing_alive():
    assert kept_alive_by(pod({"worker": terminated(0)}, init={"proxy": RUNNING})) == ()


def test_worker_runs_although_a_container_that_cannot_be_pulled_keeps_its_pod_pending():
    found = pod({"x": waiting("ImagePullBackOff"), "worker": RUNNING}, "Pending")
    assert has_started(found)
    assert obstacle_of(found) is None
    assert not has_started(pod({"x": RUNNING, "worker": waiting("ErrImagePull")}, "Pending"))


def test_pod_without_statuses_has_started_as_its_phase_says():
    found: dict[str, Any] = pod({})
    del found["status"]["containerStatuses"]
    assert has_started(found)
    found["status"]["phase"] = "Pending"
    assert not has_started(found)


def test_image_of_another_container_is_no_matter_of_the_jobs_image():
    states = {"worker": waiting("PodInitializing"), "proxy": waiting("ErrImagePull", "not found")}
    found = obstacle_of(pod(states, "Pending"))
    assert found is not None
    assert found.reason == "ImagePullFailed"
    assert "container 'proxy', which is not ours: image 'proxy:1'" in found.message
    assert "spec.compute.image" not in found.message

    own = obstacle_of(pod({"worker": waiting("ErrImagePull", "not found")}, "Pending"))
    assert own is not None
    assert "spec.compute.image" in own.message


def test_image_of_the_training_operators_init_container_is_set_there():
    found = obstacle_of(
        pod({}, "Pending", init={"init-pytorch": waiting("ImagePullBackOff", "no route")})
    )
    assert found is not None
    assert "--pytorch-init-container-image" in found.message


def test_native_sidecar_that_never_starts_is_named():
    crashing = pod(
        {"worker": waiting("PodInitializing")}, "Pending", {"proxy": waiting("CrashLoopBackOff")}
    )
    last = {"terminated": {"exitCode": 3}}
    crashing["status"]["initContainerStatuses"][0]["lastState"] = last
    found = obstacle_of(crashing)
    assert found is not None
    assert found.reason == "ContainerCrashes"
    assert "'proxy'" in found.message
    assert "exit code 3" in found.message


def test_init_container_that_fails_speaks_for_itself_not_for_the_worker():
    failed = pod(
        {"worker": waiting("PodInitializing")}, "Failed", {"vault": terminated(2, "no token")}
    )
    found = ending_of(failed)
    assert found is not None
    assert not found.is_of_worker
    assert "init container 'vault' (image 'vault:1'), which is not ours" in found.message
    assert "exit code 2: no token" in found.message
    assert "kubectl logs push-1 -c vault" in found.message


def test_native_sidecar_that_was_killed_with_its_pod_is_no_failed_init_container():
    evicted = pod({"worker": waiting("x")}, "Failed", {"proxy": terminated(137)})
    evicted["spec"]["initContainers"] = [{"name": "proxy", "restartPolicy": "Always"}]
    evicted["status"]["reason"] = "Evicted"
    found = ending_of(evicted)
    assert found is not None
    assert found.disruption == "Evicted"


def test_memory_limit_is_that_of_the_worker():
    found = pod({"proxy": RUNNING, "worker": RUNNING})
    found["spec"]["containers"][0]["resources"] = {"limits": {"memory": "128Mi"}}
    assert memory_limit(found) == ""
    found["spec"]["containers"][1]["resources"] = {"limits": {"memory": "2Gi"}}
    assert memory_limit(found) == "2Gi"


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("SignatureValidationFailed", "ImagePullFailed"),
        ("RegistryUnavailable", "ImagePullFailed"),
        ("ImageInspectError", "ImagePullFailed"),
        ("CreateContainerError", "ContainerNotCreated"),
        ("PreStartHookError", "ContainerNotCreated"),
        ("ReasonOfALaterKubelet", "ContainerNotCreated"),
    ],
)
def test_every_reason_of_a_container_that_does_not_come_is_told(reason: str, expected: str):
    found = obstacle_of(pod({"worker": waiting(reason, "the node's words")}, "Pending"))

    assert found is not None
    assert found.reason == expected
    assert "the node's words" in found.message


@pytest.mark.parametrize("reason", ["ContainerCreating", "PodInitializing"])
def test_container_that_is_being_made_is_no_obstacle(reason: str):
    assert obstacle_of(pod({"worker": waiting(reason)}, "Pending")) is None
