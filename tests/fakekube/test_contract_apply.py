"""Server-side apply of a status that has one owner; true of the fake API server and of the real one."""

from __future__ import annotations

from support.api_client import Api, apply_status, condition, make_job

RUNNING = {"state": "Training", "message": "old", "conditions": [condition("Running")]}


def test_applied_status_is_there_and_the_rest_is_as_it_was(api: Api) -> None:
    path, made = make_job(api)
    code, changed = apply_status(api, path, RUNNING)
    assert code == 200
    assert (changed["status"]["state"], changed["status"]["message"]) == ("Training", "old")
    assert [one["type"] for one in changed["status"]["conditions"]] == ["Running"]
    assert changed["spec"] == made["spec"]
    assert changed["metadata"]["generation"] == 1


def test_apply_again_changes_nothing(api: Api) -> None:
    path, _ = make_job(api)
    _, first = apply_status(api, path, RUNNING)
    _, second = apply_status(api, path, RUNNING)
    assert first["metadata"]["resourceVersion"] == second["metadata"]["resourceVersion"]


def test_what_is_left_out_is_removed(api: Api) -> None:
    path, _ = make_job(api)
    apply_status(api, path, {**RUNNING, "startTime": "2026-01-01T00:00:00Z"})
    _, changed = apply_status(api, path, {"conditions": [condition("Accepted")]})
    assert [one["type"] for one in changed["status"]["conditions"]] == ["Accepted"]
    assert "startTime" not in changed["status"]
    assert not changed["status"].get("message")


def test_old_version_is_refused(api: Api) -> None:
    path, made = make_job(api)
    apply_status(api, path, RUNNING)
    version = made["metadata"]["resourceVersion"]
    code, answer = apply_status(api, path, {"state": "Failed"}, resourceVersion=version)
    assert (code, answer["reason"]) == (409, "Conflict")


def test_status_of_nothing(api: Api) -> None:
    assert apply_status(api, f"{api.jobs}/nobody", {"state": "Failed"})[0] == 404
