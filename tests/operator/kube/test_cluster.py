from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from kubernetes.aio.client.configuration import Configuration
from support.scripted_api import Answer, Rig, refusal, scripted_api

from cosmos_operator.errors import ClusterUnavailable, Refused
from cosmos_operator.kube import cluster
from cosmos_operator.kube.client import Client
from cosmos_operator.kube.cluster import KubeCluster

CONFIG_MAP = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "namespace": "n"}}
OWNER = {"apiVersion": "cosmos.dev/v1alpha1", "kind": "PostTrainingJob", "name": "one", "uid": "u"}


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with scripted_api() as rig:
        yield rig


PODS = "/api/v1/namespaces/n/pods"
MAPS = "/api/v1/namespaces/n/configmaps"
JOBS = "/apis/batch/v1/namespaces/n/jobs"
PTJS = "/apis/cosmos.dev/v1alpha1/namespaces/n/posttrainingjobs"


async def test_get_returns_the_object_or_none(rig):
    rig.api.on(f"GET {PODS}/p", Answer(body={"metadata": {"name": "p"}}))
    rig.api.on("GET /api/v1/nodes/n1", Answer(body={"metadata": {"name": "n1"}}))

    assert await rig.cluster.get("Pod", "n", "p") == {"metadata": {"name": "p"}}
    assert await rig.cluster.get("Pod", "n", "absent") is None
    assert await rig.cluster.get("Node", None, "n1") == {"metadata": {"name": "n1"}}


async def test_list_reads_all_pages_and_says_what_the_items_are(rig):
    rig.api.on(
        "GET /apis/batch/v1/jobs",
        Answer(body={"metadata": {"continue": "more"}, "items": [{"metadata": {"name": "a"}}]}),
        Answer(body={"metadata": {}, "items": [{"metadata": {"name": "b"}}]}),
    )

    found = await rig.cluster.list("Job", None, {"a/b": "c", "d": "e"}, "status.phase=x")

    assert [(each["kind"], each["apiVersion"], each["metadata"]["name"]) for each in found] == [
        ("Job", "batch/v1", "a"),
        ("Job", "batch/v1", "b"),
    ]
    first, second = (request.query for request in rig.api.requests)
    assert first["labelSelector"] == "a/b=c,d=e"
    assert first["fieldSelector"] == "status.phase=x"
    assert "continue" not in first
    assert second["continue"] == "more"


async def test_list_that_took_too_long_is_tried_again_later(rig):
    rig.api.on(f"GET {PODS}", refusal(410, "Expired", "too old"))

    with pytest.raises(ClusterUnavailable, match="too old"):
        await rig.cluster.list("Pod", "n")


async def test_list_of_metadata_asks_for_metadata_only(rig):
    rig.api.on(f"GET {PODS}", Answer(body={"items": []}))

    assert await rig.cluster.list_metadata("Pod", "n") == []
    assert "as=PartialObjectMetadataList" in rig.last.headers["Accept"]


async def test_kinds_that_are_not_served_are_absent(rig):
    assert await rig.cluster.served() == frozenset()
    assert await rig.cluster.get("PyTorchJob", "n", "x") is None
    assert await rig.cluster.list("Workload", "n") == []
    await rig.cluster.delete("PyTorchJob", "n", "x", "u", foreground=True)

    with pytest.raises(Refused, match=r"404.*not served"):
        await rig.cluster.create(
            {"apiVersion": "kubeflow.org/v1", "kind": "PyTorchJob",
             "metadata": {"name": "x", "namespace": "n"}}
        )  # fmt: skip


async def test_served_kinds_are_found_once_in_a_while(rig, monkeypatch):
    kubeflow = Answer(body={"resources": [{"name": "pytorchjobs"}, {"name": "pytorchjobs/status"}]})
    rig.api.on("GET /apis/kubeflow.org/v1", kubeflow)
    assert await rig.cluster.served() == {"PyTorchJob"}
    num_requests = len(rig.api.requests)

    rig.api.on("GET /apis/kubeflow.org/v1", refusal(404))
    assert await rig.cluster.served() == {"PyTorchJob"}
    assert len(rig.api.requests) == num_requests
    assert await rig.cluster.serving(["PyTorchJob"]) == frozenset()

    monkeypatch.setattr(cluster, "monotonic", lambda: 1e12)
    assert await rig.cluster.served() == frozenset()


async def test_kinds_are_found_with_one_request_where_the_server_tells_all_at_once(rig):
    kinds = [{"resource": "pytorchjobs"}]
    groups = [
        {"metadata": {"name": "kubeflow.org"}, "versions": [{"version": "v1", "resources": kinds}]},
        {"metadata": {"name": "kueue.x-k8s.io"}, "versions": [{"version": "v1beta2"}]},
    ]
    rig.api.on("GET /apis", Answer(body={"kind": "APIGroupDiscoveryList", "items": groups}))

    assert await rig.cluster.served() == {"PyTorchJob"}
    assert "as=APIGroupDiscoveryList" in rig.last.headers["Accept"]
    assert len(rig.api.requests) == 1


async def test_only_groups_that_the_server_has_are_asked_for_their_kinds(rig):
    groups = [{"versions": [{"groupVersion": "kubeflow.org/v1"}]}]
    rig.api.on("GET /apis", Answer(body={"kind": "APIGroupList", "groups": groups}))
    rig.api.on("GET /apis/kubeflow.org/v1", Answer(body={"resources": [{"name": "pytorchjobs"}]}))

    assert await rig.cluster.served() == {"PyTorchJob"}
    assert len(rig.api.requests) == 2


@pytest.mark.parametrize("version", ["v1beta1", "v1beta2"])
async def test_queues_are_read_in_the_version_that_is_served(rig, version):
    root = f"/apis/kueue.x-k8s.io/{version}"
    kinds = {"resources": [{"name": "localqueues"}, {"name": "workloads"}]}
    rig.api.on(f"GET {root}", Answer(body=kinds))
    rig.api.on(f"GET {root}/namespaces/n/localqueues/q", Answer(body={"metadata": {"name": "q"}}))
    rig.api.on(f"GET {root}/namespaces/n/workloads", Answer(body={"items": [{"metadata": {}}]}))

    assert await rig.cluster.served() == {"LocalQueue", "Workload"}
    assert await rig.cluster.get("LocalQueue", "n", "q") is not None
    (found,) = await rig.cluster.list("Workload", "n")
    assert found["apiVersion"] == f"kueue.x-k8s.io/{version}"


async def test_create_tells_new_from_existing(rig):
    rig.api.on(f"POST {MAPS}", Answer(201), refusal(409, "AlreadyExists"))

    assert await rig.cluster.create(CONFIG_MAP) == {}
    assert rig.last.body == CONFIG_MAP
    assert rig.last.query == {"fieldManager": "cosmos-operator"}
    assert await rig.cluster.create(CONFIG_MAP) is None


async def test_create_in_a_namespace_that_is_absent_is_refused(rig):
    rig.api.on(f"POST {MAPS}", refusal(404, "NotFound", 'namespaces "n" not found'))

    with pytest.raises(Refused, match=r'\(404\): namespaces "n" not found') as caught:
        await rig.cluster.create(CONFIG_MAP)
    assert caught.value.status == 404


@pytest.mark.parametrize("status", [401, 409, 429, 502, 503, 504])
async def test_answers_that_may_change_mean_try_again(rig, status):
    rig.api.on(f"POST {MAPS}", refusal(status, "Conflict", "quota changed"))

    message = f"create ConfigMap n/c: HTTP {status}: quota changed"
    with pytest.raises(ClusterUnavailable, match=message):
        await rig.cluster.create(CONFIG_MAP)


@pytest.mark.parametrize("status", [400, 403, 405, 413, 422, 500])
async def test_other_refusals_carry_what_the_server_says(rig, status):
    rig.api.on(f"POST {MAPS}", refusal(status, "Invalid", "spec.x: too\n  long"))

    with pytest.raises(Refused, match=r"spec\.x: too long") as caught:
        await rig.cluster.create(CONFIG_MAP)
    assert (caught.value.status, caught.value.message) == (status, "spec.x: too long")


async def test_reading_may_be_refused_too(rig):
    rig.api.on("GET /api/v1/nodes", refusal(403, "Forbidden", "nodes is forbidden"))

    with pytest.raises(Refused, match="nodes is forbidden"):
        await rig.cluster.list("Node", None)


async def test_status_is_applied_by_force(rig):
    rig.api.on(f"PATCH {PTJS}/one/status", Answer())
    manifest = {
        "apiVersion": "cosmos.dev/v1alpha1",
        "kind": "PostTrainingJob",
        "metadata": {"name": "one", "namespace": "n"},
        "status": {"state": "Pending"},
    }

    await rig.cluster.apply_status(manifest)

    assert rig.last.content_type == "application/apply-patch+yaml"
    assert rig.last.query == {"fieldManager": "cosmos-operator", "force": "true"}
    assert rig.last.body == manifest


async def test_owner_is_merged_into_those_that_are_there(rig):
    rig.api.on(f"PATCH {JOBS}/j", Answer())

    await rig.cluster.add_owner("Job", "n", "j", OWNER, uid="u-1")

    assert rig.last.content_type == "application/strategic-merge-patch+json"
    assert rig.last.body == {"metadata": {"uid": "u-1", "ownerReferences": [OWNER]}}


async def test_owner_is_removed_from_the_version_that_was_seen(rig):
    rig.api.on(f"PATCH {JOBS}/j", Answer())

    await rig.cluster.remove_owner("Job", "n", "j", "a", uid="u-1", resource_version="7")

    assert rig.last.content_type == "application/strategic-merge-patch+json"
    gone = {"$patch": "delete", "uid": "a"}
    seen = {"uid": "u-1", "resourceVersion": "7"}
    assert rig.last.body == {"metadata": {**seen, "ownerReferences": [gone]}}


async def test_owners_of_what_is_gone_or_has_changed_stay_as_they_are(rig):
    rig.api.on(f"PATCH {JOBS}/j", refusal(409, "Conflict", "the object has been modified"))

    for name in ("j", "gone"):
        await rig.cluster.add_owner("Job", "n", name, OWNER, uid="u-1")
        await rig.cluster.remove_owner("Job", "n", name, "a", uid="u-1", resource_version="7")

    text = 'Job.batch "j" is invalid: metadata.uid: Invalid value: "u-1": field is immutable'
    rig.api.on(f"PATCH {JOBS}/j", refusal(422, "Invalid", text))
    assert await rig.cluster.add_owner("Job", "n", "j", OWNER, uid="u-1") is None

    rig.api.on(f"PATCH {JOBS}/j", refusal(403, "Forbidden"))
    with pytest.raises(Refused):
        await rig.cluster.add_owner("Job", "n", "j", OWNER, uid="u-1")
    with pytest.raises(Refused):
        await rig.cluster.remove_owner("Job", "n", "j", "a", uid="u-1", resource_version="7")


async def test_delete_may_name_the_version(rig):
    rig.api.on(f"DELETE {JOBS}/j", Answer())

    await rig.cluster.delete("Job", "n", "j", "u-1", foreground=True, resource_version="7")

    assert rig.last.body["preconditions"] == {"uid": "u-1", "resourceVersion": "7"}


@pytest.mark.parametrize(("foreground", "policy"), [(True, "Foreground"), (False, "Background")])
async def test_delete_names_the_object_by_its_uid(rig, foreground, policy):
    rig.api.on(f"DELETE {JOBS}/j", Answer())

    await rig.cluster.delete("Job", "n", "j", "u-1", foreground=foreground)

    assert rig.last.body["preconditions"] == {"uid": "u-1"}
    assert rig.last.body["propagationPolicy"] == policy


async def test_delete_of_what_is_gone_or_was_made_anew_does_nothing(rig):
    precondition = "Precondition failed: UID in precondition: a, UID in object meta: b"
    rig.api.on(f"DELETE {JOBS}/j", refusal(409, "Conflict", precondition))

    await rig.cluster.delete("Job", "n", "j", "a", foreground=True)
    await rig.cluster.delete("Job", "n", "gone", "a", foreground=True)

    rig.api.on(f"DELETE {JOBS}/j", refusal(409, "Conflict", "the object has been modified"))
    with pytest.raises(ClusterUnavailable):
        await rig.cluster.delete("Job", "n", "j", "a", foreground=True)


async def test_event_that_exists_already_is_as_good(rig):
    rig.api.on("POST /api/v1/namespaces/n/events", refusal(409, "AlreadyExists"))

    await rig.cluster.create_event(
        {"apiVersion": "v1", "kind": "Event", "metadata": {"name": "e", "namespace": "n"}}
    )


async def test_log_is_text(rig):
    rig.api.on(f"GET {PODS}/p/log", Answer(body="a\nb ü\n"))

    assert await rig.cluster.read_log("n", "p", "worker", 50) == "a\nb ü\n"
    assert rig.last.query["container"] == "worker"
    assert rig.last.query["tailLines"] == "50"


@pytest.mark.parametrize("status", [400, 404, 500, 503])
async def test_log_that_cannot_be_had_is_none(rig, status):
    rig.api.on(f"GET {PODS}/p/log", refusal(status, "BadRequest", "container is waiting to start"))

    assert await rig.cluster.read_log("n", "p", "worker", 50) is None


async def test_log_of_a_node_that_does_not_answer_is_none(rig, monkeypatch):
    monkeypatch.setattr(cluster, "LOG_TIMEOUT_S", 0.05)
    rig.api.on(f"GET {PODS}/p/log", Answer(body="late", delay_s=1))

    assert await rig.cluster.read_log("n", "p", "worker", 50) is None


async def test_log_that_may_not_be_read_is_refused(rig):
    rig.api.on(f"GET {PODS}/p/log", refusal(403, "Forbidden", "pods/log is forbidden"))

    with pytest.raises(Refused, match="pods/log is forbidden"):
        await rig.cluster.read_log("n", "p", "worker", 50)


async def test_request_without_an_answer_times_out(rig, monkeypatch):
    monkeypatch.setitem(Client.request.__kwdefaults__, "timeout_s", 0.05)
    rig.api.on(f"GET {PODS}/p", Answer(delay_s=1))

    with pytest.raises(ClusterUnavailable, match=r"no answer within 0.05 s to GET .*/pods/p"):
        await rig.cluster.get("Pod", "n", "p")


async def test_server_that_is_not_there_is_unavailable():
    unreachable = KubeCluster(Client(Configuration(host="http://127.0.0.1:1")))

    with pytest.raises(ClusterUnavailable, match=r"http://127.0.0.1:1: ClientConnectorError"):
        await unreachable.get("Pod", "n", "p")
    await unreachable.close()


async def test_replace_says_whether_the_object_was_still_the_same(rig):
    rig.api.on(
        f"PUT {MAPS}/c",
        Answer(body={"data": {}}),
        refusal(409, "Conflict"),
        refusal(404, "NotFound"),
    )

    answers = [await rig.cluster.replace(CONFIG_MAP) for _ in range(3)]

    assert answers == [{"data": {}}, None, None]


async def test_dry_run_creates_nothing(rig):
    rig.api.on(f"POST {MAPS}", Answer(201, {"metadata": {"uid": "x"}}), refusal(422, "", "wrong"))

    assert await rig.cluster.dry_run(CONFIG_MAP) == {"metadata": {"uid": "x"}}
    assert rig.last.query["dryRun"] == "All"
    with pytest.raises(Refused, match="wrong"):
        await rig.cluster.dry_run(CONFIG_MAP)


@pytest.mark.parametrize("is_allowed", [True, False])
async def test_access_is_asked_for(rig, is_allowed):
    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    rig.api.on(f"POST {path}", Answer(201, {"status": {"allowed": is_allowed}}))

    assert await rig.cluster.may({"verb": "get", "resource": "pods"}) is is_allowed
    assert rig.last.body["spec"]["resourceAttributes"] == {"verb": "get", "resource": "pods"}


async def test_names_are_quoted(rig):
    assert await rig.cluster.get("Pod", "n", "../../secrets") is None

    assert rig.last.raw_path == f"{PODS}/..%2F..%2Fsecrets"
