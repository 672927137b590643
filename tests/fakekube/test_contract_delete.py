"""Deletion; true of the fake API server and of the real one."""

from __future__ import annotations

from support.api_client import Api, is_gone, make_config, make_job, name_of, wait_for


def test_delete_answers(api: Api) -> None:
    path, made = make_job(api)
    code, answer = api.call("DELETE", path)
    assert (code, answer["status"]) == (200, "Success")
    assert answer["details"]["uid"] == made["metadata"]["uid"]
    assert api.call("DELETE", path)[0] == 404


def test_delete_another(api: Api) -> None:
    path, made = make_job(api)
    options = {"preconditions": {"uid": "11111111-2222-3333-4444-555555555555"}}
    code, answer = api.call("DELETE", path, options)
    assert (code, answer["reason"]) == (409, "Conflict")
    name, uid = made["metadata"]["name"], made["metadata"]["uid"]
    assert answer["message"] == (
        f'Operation cannot be fulfilled on PostTrainingJob.cosmos.dev "{name}": the UID in the precondition '
        f"(11111111-2222-3333-4444-555555555555) does not match the UID in record ({uid}). "
        "The object might have been deleted and then recreated"
    )
    assert api.call("DELETE", path, {"preconditions": {"uid": uid}})[0] == 200


def test_finalizers_hold_back(api: Api) -> None:
    path, _ = make_config(api, finalizers=["cosmos.dev/test"])
    code, answer = api.call("DELETE", path)
    assert code == 200
    assert answer["metadata"]["deletionTimestamp"]
    assert api.call("GET", path)[0] == 200
    api.call("PATCH", path, {"metadata": {"finalizers": None}}, "merge")
    wait_for(lambda: is_gone(api, path))


def test_delete_collection(api: Api) -> None:
    group = name_of()
    paths = [make_config(api, labels={"group": group})[0] for _ in range(2)]
    code, _ = api.call("DELETE", api.core("configmaps"), labelSelector=f"group={group}")
    assert code == 200
    assert all(is_gone(api, path) for path in paths)
