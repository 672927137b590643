"""Server-side apply: owners of a status's fields, and the fields that an apply takes over, keeps and removes."""

from __future__ import annotations

import pytest
from support.api_client import Api, apply_status, condition, make_job, name_of

from cosmos_operator.errors import Conflict
from cosmos_operator.kube.cluster import KubeCluster

pytestmark = pytest.mark.api_server


def test_apply_status(api: Api) -> None:
    path, made = make_job(api)
    code, changed = apply_status(
        api, path, {"state": "Training", "conditions": [condition("Running")]}
    )
    assert code == 200
    assert changed["status"]["state"] == "Training"
    assert changed["spec"] == made["spec"]
    (entry,) = [e for e in changed["metadata"]["managedFields"] if e["manager"] == "operator"]
    assert (entry["operation"], entry["subresource"]) == ("Apply", "status")
    owned = entry["fieldsV1"]["f:status"]
    assert set(owned) == {"f:state", "f:conditions"}
    assert set(owned["f:conditions"]) == {'k:{"type":"Running"}'}


def test_apply_removes_what_is_left_out(api: Api) -> None:
    path, _ = make_job(api)
    apply_status(
        api,
        path,
        {
            "message": "old",
            "startTime": "2026-01-01T00:00:00Z",
            "progress": {"step": 1, "loss": "0.5"},
            "conditions": [condition("Running"), condition("Accepted")],
            "attempts": [{"number": n, "backend": "Job", "workload": "w"} for n in (1, 2)],
        },
    )
    attempts = [{"number": 2, "backend": "Job", "workload": "w", "endStep": 3}]
    _, changed = apply_status(
        api,
        path,
        {"progress": {"step": 2}, "conditions": [condition("Accepted")], "attempts": attempts},
    )
    status = changed["status"]
    assert status["message"] == ""  # the default again
    assert "startTime" not in status
    assert "loss" not in status["progress"]
    assert [c["type"] for c in status["conditions"]] == ["Accepted"]
    assert [(a["number"], a["endStep"]) for a in status["attempts"]] == [(2, 3)]
    assert "totalSteps" in status["progress"]
    _, changed = apply_status(api, path, {"state": "Failed", "conditions": []})
    assert changed["status"]["conditions"] == []
    assert "progress" not in changed["status"]  # nor its defaults, which nobody owns


def test_apply_of_nothing_removes_the_status(api: Api) -> None:
    path, _ = make_job(api)
    apply_status(api, path, {"state": "Failed"})
    code, changed = apply_status(api, path, {"conditions": []})
    assert code == 200
    assert changed["status"]["state"] == "Pending", "the default of a job that nobody has seen"


def test_apply_of_null(api: Api) -> None:
    path, _ = make_job(api)
    code, answer = apply_status(api, path, {"state": "Failed", "progress": None})
    assert code == 422
    problem = (
        'status.progress: Invalid value: "null": progress in body must be of type object: "null"'
    )
    assert problem in answer["message"]


def test_apply_keeps_what_others_own(api: Api) -> None:
    path, _ = make_job(api)
    apply_status(api, path, {"conditions": [condition("Running")]})
    apply_status(api, path, {"conditions": [condition("Accepted")]}, "somebody")
    _, changed = apply_status(api, path, {"state": "Failed"})
    assert [c["type"] for c in changed["status"]["conditions"]] == ["Accepted"]


def test_apply_conflict_and_force(api: Api) -> None:
    path, _ = make_job(api)
    apply_status(api, path, {"message": "mine"})
    code, answer = apply_status(api, path, {"message": "yours"}, "somebody")
    assert (code, answer["reason"]) == (409, "Conflict")
    expected = 'Apply failed with 1 conflict: conflict with "operator" with subresource "status": .status.message'
    assert answer["message"] == expected
    code, changed = apply_status(api, path, {"message": "yours"}, "somebody", force=True)
    assert (code, changed["status"]["message"]) == (200, "yours")
    _, changed = apply_status(api, path, {"state": "Failed"})
    assert changed["status"]["message"] == "yours"


def test_apply_conflicts_with_what_another_write_has_changed(api: Api) -> None:
    path, _ = make_job(api)
    apply_status(api, path, {"message": "mine"})
    api.call("PATCH", f"{path}/status", {"status": {"message": "patched"}}, "merge")
    code, answer = apply_status(api, path, {"message": "mine"})
    assert code == 409
    start = 'Apply failed with 1 conflict: conflict with "contract" with subresource "status" using cosmos.dev/v1alpha1'
    assert answer["message"].startswith(start)
    assert answer["details"]["causes"][0]["field"] == ".status.message"
    code, changed = apply_status(api, path, {"message": "mine"}, force=True)
    assert (code, changed["status"]["message"]) == (200, "mine")


def test_field_of_two_owners_stays_until_both_leave_it_out(api: Api) -> None:
    path, _ = make_job(api)
    both = {"startTime": "2026-01-01T00:00:00Z"}
    for manager in ("operator", "somebody"):
        assert apply_status(api, path, both, manager)[0] == 200
    _, changed = apply_status(api, path, {"state": "Failed"})
    assert changed["status"]["startTime"] == both["startTime"]
    _, changed = apply_status(api, path, {"message": "gone"}, "somebody")
    assert "startTime" not in changed["status"]


def test_apply_does_not_look_at_the_uid(api: Api) -> None:
    """Only the resourceVersion tells a job from an earlier one of its name."""
    path, made = make_job(api)
    uid = "11111111-2222-3333-4444-555555555555"
    code, changed = apply_status(api, path, {"state": "Failed"}, uid=uid)
    assert (code, changed["status"]["state"]) == (200, "Failed")
    assert changed["metadata"]["uid"] == made["metadata"]["uid"]


async def test_status_of_an_older_version_is_a_conflict(api: Api, cluster: KubeCluster) -> None:
    path, made = make_job(api)
    names = ("name", "namespace", "uid", "resourceVersion")
    manifest = {
        "apiVersion": made["apiVersion"],
        "kind": made["kind"],
        "metadata": {name: made["metadata"][name] for name in names},
        "status": {"state": "Failed"},
    }
    api.call("PATCH", path, {"metadata": {"annotations": {"team": "a"}}}, "merge")

    with pytest.raises(Conflict, match="the object has been modified"):
        await cluster.apply_status(manifest)

    found = api.call("GET", path)[1]
    assert found.get("status", {}).get("state") != "Failed"
    manifest["metadata"]["resourceVersion"] = found["metadata"]["resourceVersion"]
    written = await cluster.apply_status(manifest)
    assert written["status"]["state"] == "Failed"
    assert written["metadata"]["uid"] == made["metadata"]["uid"]


def test_apply_creates(api: Api) -> None:
    name = name_of("made")
    body = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name},
        "data": {"a": "1", "b": "2"},
    }
    path = f"{api.core('configmaps')}/{name}"
    assert api.call("PATCH", path, body, "apply", fieldManager="one")[0] == 201
    body["data"] = {"a": "3"}
    code, changed = api.call("PATCH", path, body, "apply", fieldManager="one")
    assert (code, changed["data"]) == (200, {"a": "3"})


def test_apply_needs_a_manager(api: Api) -> None:
    path, made = make_job(api)
    code, answer = api.call(
        "PATCH", path, {**made, "metadata": {"name": made["metadata"]["name"]}}, "apply"
    )
    assert code == 422
    assert "fieldManager: Required value: is required for apply patch" in answer["message"]


def test_apply_refuses_unknown_fields(api: Api) -> None:
    path, _ = make_job(api)
    code, answer = apply_status(api, path, {"nonsense": 1})
    assert code == 500
    assert ".status.nonsense: field not declared in schema" in answer["message"]
