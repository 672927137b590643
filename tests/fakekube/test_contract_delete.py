"""Deletion and what follows from it; true of the fake API server and of the real one."""

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


def test_dependents_go_with_their_owner(controlled_api: Api) -> None:
    api = controlled_api
    owner_path, owner = make_job(api)
    path, _ = make_config(api, (owner,))
    api.call("DELETE", owner_path)
    wait_for(lambda: is_gone(api, path), 30)


def test_shared_dependents_stay_until_the_last_owner(controlled_api: Api) -> None:
    api = controlled_api
    (first_path, first), (second_path, second) = make_job(api), make_job(api)
    path, _ = make_config(api, (first, second))
    api.call("DELETE", first_path)

    def owners() -> list[str]:
        found = api.call("GET", path)[1]["metadata"]["ownerReferences"]
        return [reference["uid"] for reference in found]

    wait_for(lambda: owners() == [second["metadata"]["uid"]], 30)
    api.call("DELETE", second_path)
    wait_for(lambda: is_gone(api, path), 30)


def test_foreground_waits_for_dependents(controlled_api: Api) -> None:
    api = controlled_api
    owner_path, owner = make_job(api)
    path, _ = make_config(api, (owner,), finalizers=["cosmos.dev/test"])
    code, answer = api.call("DELETE", owner_path, {"propagationPolicy": "Foreground"})
    assert code == 200
    assert answer["metadata"]["finalizers"] == ["foregroundDeletion"]
    wait_for(lambda: "deletionTimestamp" in api.call("GET", path)[1]["metadata"], 30)
    assert api.call("GET", owner_path)[0] == 200
    api.call("PATCH", path, {"metadata": {"finalizers": None}}, "merge")
    wait_for(lambda: is_gone(api, path), 30)
    wait_for(lambda: is_gone(api, owner_path), 30)


def test_orphans_stay(controlled_api: Api) -> None:
    api = controlled_api
    owner_path, owner = make_job(api)
    path, _ = make_config(api, (owner,))
    api.call("DELETE", owner_path, {"propagationPolicy": "Orphan"})
    wait_for(lambda: is_gone(api, owner_path), 30)
    wait_for(lambda: "ownerReferences" not in api.call("GET", path)[1]["metadata"], 30)


def test_an_owner_that_never_was(controlled_api: Api) -> None:
    api = controlled_api
    _, owner = make_job(api)
    owner["metadata"]["uid"] = "11111111-2222-3333-4444-555555555555"
    path, _ = make_config(api, (owner,))
    wait_for(lambda: is_gone(api, path), 30)


def test_delete_collection(api: Api) -> None:
    group = name_of()
    paths = [make_config(api, labels={"group": group})[0] for _ in range(2)]
    code, _ = api.call("DELETE", api.core("configmaps"), labelSelector=f"group={group}")
    assert code == 200
    assert all(is_gone(api, path) for path in paths)
