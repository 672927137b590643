"""An upgrade from the first chart on a real API server: everything that is stored there can be brought up to date."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from support.api_client import Api, connect, wait_for
from support.before import read, running_job, stored_job
from support.helm_chart import CHART, NAMESPACE, SWITCHES, find, render

from cosmos_operator.api.crd import build_crd
from cosmos_operator.kube.cluster import KubeCluster
from cosmos_operator.kube.cluster import connect as connect_cluster
from cosmos_operator.plan.job_plan import plan_job

if TYPE_CHECKING:
    from harness.api_server import ApiServer

pytestmark = pytest.mark.api_server
CUSTOM = ("ServiceMonitor", "PodMonitor", "PrometheusRule", "ClusterTrainingRuntime")
PLURALS = {"NetworkPolicy": "networkpolicies"}
JOBS = "/apis/cosmos.dev/v1alpha1/namespaces/lab/posttrainingjobs"


@pytest.fixture(scope="module")
def server(api_server: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """A second server, whose CustomResourceDefinition is first the one of before; the first says that there is one."""
    from harness import api_server as programs

    with programs.running(tmp_path_factory.mktemp("upgraded")) as found:
        yield found


@pytest.fixture(scope="module")
def installed(server: ApiServer) -> Api:
    """What the first chart has installed, with a job in the middle of its training."""
    api = connect(server.kubeconfig)
    for namespace in (NAMESPACE, "lab"):
        assert api.call("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})[0] == 201
    for manifest in (*read("manifests.yaml"), *read("crd.yaml")):
        apply(api, manifest)
    job = stored_job()
    wait_for(lambda: api.call("GET", JOBS)[0] == 200)
    fresh = {**job, "metadata": {"name": job["metadata"]["name"]}}
    code, made = api.call("POST", JOBS, {key: fresh[key] for key in fresh if key != "status"})
    assert code == 201, made
    status = {**made, "status": job["status"]}
    code, stored = api.call("PUT", f"{JOBS}/running/status", status)
    assert code == 200, stored
    assert stored["status"] == job["status"], "the files belong together"
    return api


def path_of(manifest: dict[str, Any]) -> str:
    group = "apis" if "/" in manifest["apiVersion"] else "api"
    namespace = manifest["metadata"].get("namespace")
    where = f"/namespaces/{namespace}" if namespace else ""
    plural = PLURALS.get(manifest["kind"], manifest["kind"].lower() + "s")
    return f"/{group}/{manifest['apiVersion']}{where}/{plural}/{manifest['metadata']['name']}"


def apply(api: Api, manifest: dict[str, Any], **query: str) -> Any:
    """Server-side apply, as Helm 4 does."""
    query = {"fieldManager": "helm", **query}
    code, said = api.call("PATCH", path_of(manifest), manifest, "apply", **query)
    assert code in (200, 201), f"{path_of(manifest)}: {said}"
    return said


@pytest.mark.parametrize("changes", [{}, SWITCHES, {"watchNamespaces": ["lab"]}], ids=str)
def test_objects_of_before_can_be_brought_up_to_date(installed: Api, changes: Any) -> None:
    manifests = [one for one in render(changes) if one["kind"] not in CUSTOM]
    manifests = [
        one for kind in {one["kind"] for one in manifests} for one in find(manifests, kind)
    ]
    before = {path_of(one) for one in read("manifests.yaml")}

    updated = {path_of(one): apply(installed, one, dryRun="All") for one in manifests}

    # the others are switched on by values only; all are found with SWITCHES, but for the claim if it is not made
    assert len(before & updated.keys()) >= (14 if changes is SWITCHES else 8)
    deployments = [one for one in updated.values() if one["kind"] == "Deployment"]
    (deployment,) = (one for one in deployments if not one["metadata"]["name"].endswith("-viewer"))
    assert deployment["spec"]["strategy"]["type"] == "RollingUpdate"
    assert deployment["spec"]["replicas"] == 2


async def test_job_of_before_is_read_and_its_status_written(
    installed: Api, server: ApiServer
) -> None:
    """The last test of this file: it brings the resource up to date for good."""
    crd = yaml.safe_load((CHART / "files" / "crd.yaml").read_text(encoding="utf-8"))
    assert crd["spec"] == build_crd()["spec"]
    before = installed.call("GET", f"{JOBS}/running")[1]
    assert before["status"]["state"] == "Training"
    apply(installed, crd)

    def accepts() -> bool:
        annotated = {"metadata": {"annotations": {"touched": "yes"}}}
        return installed.call("PATCH", f"{JOBS}/running", annotated, "merge")[0] == 200

    wait_for(accepts)
    simulation = running_job()
    stored = installed.call("GET", f"{JOBS}/running")[1]
    for part in ("spec", "status"):
        assert stored[part] == simulation.document[part], "what as_read says of the server is true"
    decision = simulation.settle()

    plan = plan_job(stored)
    assert plan.job is not None
    assert plan.job.name == "running"
    assert decision.actions == ()
    manifest = {
        "apiVersion": stored["apiVersion"],
        "kind": stored["kind"],
        "metadata": {"name": "running", "namespace": "lab"},
        "status": simulation.status,
    }
    cluster: KubeCluster = await connect_cluster(server.kubeconfig)
    try:
        await cluster.apply_status(manifest)
        found = await cluster.get("PostTrainingJob", "lab", "running")
    finally:
        await cluster.close()
    assert found is not None
    assert found["status"]["state"] == "Training"
    assert [one["outcome"] for one in found["status"]["attempts"]] == ["Crashed", "Running"]
