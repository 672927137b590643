"""Decisions over the life of a job: the API server admits every object and keeps every status unchanged."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from support.api_client import Api, name_of
from support.attempts import run
from support.decisions import InferenceSimulation, Simulation
from support.jobs import make_document

from cosmos_operator.api.base import API_VERSION
from cosmos_operator.api.status import PostTrainingJobStatus
from cosmos_operator.decide.decision import Create, Decision
from cosmos_operator.kube.cluster import KubeCluster
from cosmos_operator.kube.kinds import KINDS

pytestmark = pytest.mark.api_server
TWO_NODES = {"nodes": 2, "processesPerNode": 1}
GPUS = {
    "compute": {"nodes": 2, "gpusPerNode": 4, "resources": {"limits": {"memory": "64Gi"}}},
    "training.overrides": ["trainer.micro_batch_size=1"],
    "dataset.source": {"claim": {"claimName": "lab-data", "path": "cubes"}},
    "model.source": {"huggingFace": {"repo": "lab/tiny", "revision": "abc"}},
    "credentials": {"huggingFace": {"name": "hub"}},
    "storage": {"checkpoints": {"claimName": "new", "create": {"size": "1Gi"}}},
    "scheduling": {
        "priorityClassName": "research",
        "nodeSelector": {"gpu": "h100"},
        "tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}],
    },
}


def submit(api: Api, simulation: Simulation, name: str) -> None:
    """Create the simulated job on the server; the simulation takes over its identity."""
    metadata = simulation.document["metadata"]
    document = {**simulation.document, "metadata": {"name": name}}
    code, made = api.call("POST", api.jobs, document)
    assert code == 201, made
    metadata |= {field: made["metadata"][field] for field in ("name", "namespace", "uid")}


def live(simulation: Simulation) -> None:
    """A training that crashes, loses a GPU, is suspended and resumed, and succeeds; then all that comes after it."""
    simulation.settle()
    for (kind, _), one in simulation.objects.items():
        if kind == "PersistentVolumeClaim":
            one["status"] = {"phase": "Bound"}
    simulation.prepare()
    run(simulation, 10)
    simulation.fail(simulation.running_attempt(), 1, step=12)
    go_on(simulation)
    run(simulation, 15)
    simulation.fail(simulation.running_attempt(), 81, "GpuFault", step=15, message="Xid 79")
    go_on(simulation)
    run(simulation, 20)
    for suspend in (True, False):
        simulation.document["spec"]["runPolicy"] = {"suspend": suspend}
        simulation.document["metadata"]["generation"] += 1
        go_on(simulation)
    run(simulation, 30)
    for _ in range(20):
        go_on(simulation)
        for (kind, _), one in list(simulation.objects.items()):
            if kind in ("Job", "PyTorchJob") and "status" not in one:
                simulation.succeed(one, step=40)
        if simulation.status["state"] == "Succeeded":
            return
    raise AssertionError(simulation.status)


def go_on(simulation: Simulation) -> None:
    simulation.settle()
    simulation.remove_deleted()
    simulation.pass_time(700)
    simulation.settle()


async def check_status(
    api: Api, cluster: KubeCluster, simulation: Simulation, status: dict[str, Any]
) -> None:
    """Write a status as the operator does; what the server then has is that status and the schema's defaults."""
    metadata = simulation.document["metadata"]
    name = {field: metadata[field] for field in ("name", "namespace", "uid")}
    kind = simulation.document["kind"]
    body = {"apiVersion": API_VERSION, "kind": kind, "metadata": name, "status": status}
    written = await cluster.apply_status(body)
    assert written["kind"] == kind
    _, job = api.call("GET", f"{api.jobs}/{metadata['name']}")
    kept, wanted = (PostTrainingJobStatus.model_validate(one) for one in (job["status"], status))
    assert kept == wanted


def check_objects(api: Api, decision: Decision) -> int:
    """Create, with ``dryRun``, the objects of a decision; returns their number."""
    manifests = [action.manifest for action in decision.actions if isinstance(action, Create)]
    for manifest in manifests:
        resource = KINDS[manifest["kind"]]
        where = f"namespaces/{api.namespace}/{resource.plural}"
        group = f"/apis/{resource.api_version}" if resource.group else "/api/v1"
        query = {"dryRun": "All", "fieldValidation": "Strict"}
        code, answer = api.call("POST", f"{group}/{where}", manifest, **query)
        assert code == 201, answer
    return len(manifests)


@pytest.mark.parametrize("backend", ["PyTorchJob", "Job"])
@pytest.mark.parametrize(
    ("changes", "name_length"), [({"compute": TWO_NODES}, 11), (GPUS, 40)], ids=["cpus", "gpus"]
)
async def test_life_of_a_job(
    api: Api, cluster: KubeCluster, changes: dict[str, Any], name_length: int, backend: str
) -> None:
    simulation = Simulation({**changes, "backend": {"type": backend}})
    simulation.add_claim("lab-data")
    submit(api, simulation, name_of("life").ljust(name_length, "x"))
    live(simulation)

    num_statuses = num_objects = 0
    for decision in simulation.log:
        if decision.status is not None:
            await check_status(api, cluster, simulation, decision.status)
            num_statuses += 1
        num_objects += check_objects(api, decision)

    assert num_statuses > 10
    assert num_objects > 10
    assert [one["outcome"] for one in simulation.attempts] == [
        "Crashed", "GpuFault", "Suspended", "Succeeded",
    ]  # fmt: skip


async def test_job_that_fails(api: Api, cluster: KubeCluster) -> None:
    simulation = Simulation()
    submit(api, simulation, name_of("life"))
    simulation.settle()
    simulation.fail(simulation.stage_job("fetch-model"), 2, "DataError", message="no such folder")
    simulation.settle()

    for decision in simulation.log:
        if decision.status is not None:
            await check_status(api, cluster, simulation, decision.status)
    assert simulation.status["state"] == "Failed"


@pytest.mark.parametrize("name_length", [11, 40])
async def test_life_of_an_inference_job(api: Api, cluster: KubeCluster, name_length: int) -> None:
    inference = copy.copy(api)
    inference.plural = "inferencejobs"
    trained = {**make_document({"compute": {"gpusPerNode": 2}}), "status": {"state": "Training"}}
    simulation = InferenceSimulation(model_job=trained)
    submit(inference, simulation, name_of("more").ljust(name_length, "x"))
    simulation.settle()
    published = {"type": "Published", "status": "True", "reason": "R"}
    published["lastTransitionTime"] = "2026-01-31T12:00:00Z"
    simulation.model_job = {**trained, "status": {"conditions": [published]}}
    for _ in range(8):
        simulation.settle()
        for (kind, _), one in list(simulation.objects.items()):
            if kind == "Job" and "status" not in one:
                simulation.succeed(one, result={"videos": 1})
    assert simulation.status["state"] == "Succeeded"

    num_objects = 0
    for decision in simulation.log:
        if decision.status is not None:
            await check_status(inference, cluster, simulation, decision.status)
        num_objects += check_objects(api, decision)
    assert num_objects == 9  # the record, and a ConfigMap and a Job of each of four stages
