"""Garbage collection after the deletion of an owner; the same in the fake cluster and in the real one."""

from __future__ import annotations

import pytest
from support.api_client import Api, is_gone, make_config, make_job, wait_for


@pytest.fixture(scope="module")
def api(controlled_api: Api) -> Api:
    """An API server beside which controllers run."""
    return controlled_api


def test_dependents_go_with_their_owner(api: Api) -> None:
    owner_path, owner = make_job(api)
    path, _ = make_config(api, (owner,))
    api.call("DELETE", owner_path)
    wait_for(lambda: is_gone(api, path), 30)


def test_shared_dependents_stay_until_the_last_owner(api: Api) -> None:
    (first_path, first), (second_path, second) = make_job(api), make_job(api)
    path, _ = make_config(api, (first, second))
    api.call("DELETE", first_path)

    def owners() -> list[str]:
        found = api.call("GET", path)[1]["metadata"]["ownerReferences"]
        return [reference["uid"] for reference in found]

    wait_for(lambda: owners() == [second["metadata"]["uid"]], 30)
    api.call("DELETE", second_path)
    wait_for(lambda: is_gone(api, path), 30)


def test_foreground_waits_for_dependents(api: Api) -> None:
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


def test_orphans_stay(api: Api) -> None:
    owner_path, owner = make_job(api)
    path, _ = make_config(api, (owner,))
    api.call("DELETE", owner_path, {"propagationPolicy": "Orphan"})
    wait_for(lambda: is_gone(api, owner_path), 30)
    wait_for(lambda: "ownerReferences" not in api.call("GET", path)[1]["metadata"], 30)


def test_an_owner_that_never_was(api: Api) -> None:
    _, owner = make_job(api)
    owner["metadata"]["uid"] = "11111111-2222-3333-4444-555555555555"
    path, _ = make_config(api, (owner,))
    wait_for(lambda: is_gone(api, path), 30)
