"""Server-side apply; true of the fake API server and of the real one."""

from __future__ import annotations

from typing import Any

from support.fakekube.client import Api, make_job, name_of


def condition(kind: str, status: str = "True") -> dict[str, Any]:
    return {
        "type": kind,
        "status": status,
        "reason": "Tested",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }


def apply_status(
    api: Api, path: str, status: dict[str, Any], manager: str = "operator", **query: Any
) -> Any:
    body = {
        "apiVersion": "cosmos.dev/v1alpha1",
        "kind": "PostTrainingJob",
        "metadata": {"name": path.rpartition("/")[2], "namespace": api.namespace},
        "status": status,
    }
    return api.call("PATCH", f"{path}/status", body, "apply", fieldManager=manager, **query)


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


def test_apply_again_changes_nothing(api: Api) -> None:
    path, _ = make_job(api)
    status = {"state": "Training", "conditions": [condition("Running")]}
    _, first = apply_status(api, path, status)
    _, second = apply_status(api, path, status)
    assert first["metadata"]["resourceVersion"] == second["metadata"]["resourceVersion"]


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
    assert "status" not in changed


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
    code, changed = apply_status(api, path, {"message": "yours"}, "somebody", force="true")
    assert (code, changed["status"]["message"]) == (200, "yours")
    _, changed = apply_status(api, path, {"state": "Failed"})
    assert changed["status"]["message"] == "yours"


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


def test_apply_status_of_nothing(api: Api) -> None:
    assert apply_status(api, f"{api.jobs}/nobody", {"state": "Failed"})[0] == 404
