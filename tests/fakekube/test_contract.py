"""Behaviour of an API server that the operator relies on; true of the fake one and of the real one."""

from __future__ import annotations

from typing import Any

from support.api_client import Api, make_config, make_job, name_of
from support.jobs import make_document

# --- creating and reading --------------------------------------------------------------------


def test_create_gives_identity(api: Api) -> None:
    path, made = make_job(api)
    meta = made["metadata"]
    assert meta["generation"] == 1
    assert meta["uid"]
    assert meta["resourceVersion"]
    assert meta["creationTimestamp"].endswith("Z")
    assert api.call("GET", path) == (200, made)


def test_create_twice(api: Api) -> None:
    _, made = make_job(api)
    document = make_document()
    name = document["metadata"]["name"] = made["metadata"]["name"]
    status, answer = api.call("POST", api.jobs, document)
    assert status == 409
    assert answer["reason"] == "AlreadyExists"
    assert answer["message"] == f'posttrainingjobs.cosmos.dev "{name}" already exists'
    assert answer["details"] == {"name": name, "group": "cosmos.dev", "kind": "posttrainingjobs"}


def test_generate_name(api: Api) -> None:
    status, made = api.call("POST", api.core("configmaps"), {"metadata": {"generateName": "gen-"}})
    assert status == 201
    assert made["metadata"]["name"].startswith("gen-")
    assert len(made["metadata"]["name"]) == 9


def test_absent_things(api: Api) -> None:
    status, answer = api.call("GET", f"{api.core('pods')}/nobody")
    assert (status, answer["reason"]) == (404, "NotFound")
    assert answer["message"] == 'pods "nobody" not found'
    status, answer = api.call("GET", "/apis/nowhere.dev/v1/things")
    assert status == 404
    path = "/api/v1/namespaces/nowhere/configmaps"
    status, answer = api.call("POST", path, {"metadata": {"name": "a"}})
    assert (status, answer["message"]) == (404, 'namespaces "nowhere" not found')


def test_kind_of_body_is_checked(api: Api) -> None:
    body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}}
    assert api.call("POST", api.core("configmaps"), body)[0] == 400


def test_selectors(api: Api) -> None:
    group = name_of()
    for color in ("red", "blue", "blue"):
        make_config(api, labels={"group": group, "color": color})
    make_config(api, labels={"group": group})
    expected = {
        "color=red": 1, "color!=red": 3, "color": 3, "!color": 1,
        "color in (red,blue)": 3, "color notin (red)": 3, "color==blue": 2,
    }  # fmt: skip
    for selector, count in expected.items():
        _, found = api.call(
            "GET", api.core("configmaps"), labelSelector=f"group={group},{selector}"
        )
        assert len(found["items"]) == count, selector
        assert found["kind"] == "ConfigMapList"
    name = found["items"][0]["metadata"]["name"]
    _, found = api.call("GET", api.core("configmaps"), fieldSelector=f"metadata.name={name}")
    assert [item["metadata"]["name"] for item in found["items"]] == [name]


# --- changing --------------------------------------------------------------------------------


def test_status_is_apart(api: Api) -> None:
    path, made = make_job(api)
    assert made.get("status", {}).get("state", "Pending") == "Pending"
    change = {"status": {"message": "hello"}, "spec": {"runPolicy": {"suspend": True}}}
    status, changed = api.call("PATCH", f"{path}/status", change, "merge")
    assert status == 200
    assert changed["status"]["message"] == "hello"
    assert changed["spec"] == made["spec"]
    assert changed["metadata"]["generation"] == 1
    change["status"]["message"] = "bye"
    _, changed = api.call("PATCH", path, change, "merge")
    assert changed["status"]["message"] == "hello"
    assert changed["spec"]["runPolicy"]["suspend"] is True
    assert changed["metadata"]["generation"] == 2


def test_metadata_does_not_count_as_generation(api: Api) -> None:
    path, _ = make_job(api)
    change = {"metadata": {"labels": {"a": "b"}, "annotations": {"c": "d"}}}
    _, changed = api.call("PATCH", path, change, "merge")
    assert changed["metadata"]["generation"] == 1


def test_same_again_makes_no_version(api: Api) -> None:
    path, _ = make_job(api)
    change = {"metadata": {"labels": {"a": "b"}}}
    _, first = api.call("PATCH", path, change, "merge")
    _, second = api.call("PATCH", path, change, "merge")
    assert first["metadata"]["resourceVersion"] == second["metadata"]["resourceVersion"]


def test_replace_needs_the_latest_version(api: Api) -> None:
    path, made = make_job(api)
    api.call("PATCH", path, {"metadata": {"labels": {"a": "b"}}}, "merge")
    status, answer = api.call("PUT", path, made)
    name = made["metadata"]["name"]
    assert (status, answer["reason"]) == (409, "Conflict")
    assert answer["message"] == (
        f'Operation cannot be fulfilled on posttrainingjobs.cosmos.dev "{name}": the object has been modified; '
        "please apply your changes to the latest version and try again"
    )


def test_merge_patch_with_old_version(api: Api) -> None:
    path, made = make_job(api)
    api.call("PATCH", path, {"metadata": {"labels": {"a": "b"}}}, "merge")
    version = made["metadata"]["resourceVersion"]
    change = {"metadata": {"resourceVersion": version, "labels": {"a": "c"}}}
    assert api.call("PATCH", path, change, "merge")[0] == 409


def test_merge_patch_removes(api: Api) -> None:
    path, _ = make_config(api, labels={"a": "b", "c": "d"})
    _, changed = api.call(
        "PATCH", path, {"metadata": {"labels": {"a": None}}, "data": {"e": "f"}}, "merge"
    )
    assert changed["metadata"]["labels"] == {"c": "d"}
    assert changed["data"] == {"a": "b", "e": "f"}


def test_strategic_merge_of_owners(api: Api) -> None:
    (_, first), (_, second) = make_job(api), make_job(api)
    path, made = make_config(api, (first,))
    (owner,) = made["metadata"]["ownerReferences"]
    other = {**owner, "name": second["metadata"]["name"], "uid": second["metadata"]["uid"]}
    change = {"metadata": {"ownerReferences": [other]}}
    for _ in range(2):
        status, changed = api.call("PATCH", path, change, "strategic")
        assert status == 200
        uids = [reference["uid"] for reference in changed["metadata"]["ownerReferences"]]
        assert sorted(uids) == sorted([first["metadata"]["uid"], second["metadata"]["uid"]])
    gone = {
        "metadata": {"ownerReferences": [{"$patch": "delete", "uid": first["metadata"]["uid"]}]}
    }
    _, changed = api.call("PATCH", path, gone, "strategic")
    assert [r["uid"] for r in changed["metadata"]["ownerReferences"]] == [second["metadata"]["uid"]]


def test_owner_leaves_only_the_version_that_it_has_seen(api: Api) -> None:
    (_, first), (_, second) = make_job(api), make_job(api)
    path, made = make_config(api, (first, second))
    seen = {name: made["metadata"][name] for name in ("uid", "resourceVersion")}

    def leave(owner: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        gone = {"$patch": "delete", "uid": owner["metadata"]["uid"]}
        return api.call(
            "PATCH", path, {"metadata": {**seen, "ownerReferences": [gone]}}, "strategic"
        )

    assert leave(first)[0] == 200
    status, answer = leave(second)
    assert (status, answer["reason"]) == (409, "Conflict")
    options = {"preconditions": seen}
    status, answer = api.call("DELETE", path, options)
    assert (status, answer["reason"]) == (409, "Conflict")
    assert "precondition" in answer["message"].lower()
    left = api.call("GET", path)[1]["metadata"]["ownerReferences"]
    assert [one["uid"] for one in left] == [second["metadata"]["uid"]]


def test_uid_cannot_be_patched(api: Api) -> None:
    path, made = make_config(api)
    for kind in ("merge", "strategic"):
        status, answer = api.call("PATCH", path, {"metadata": {"uid": "another"}}, kind)
        assert (status, answer["reason"]) == (422, "Invalid")
        name = made["metadata"]["name"]
        assert answer["message"] == (
            f'ConfigMap "{name}" is invalid: metadata.uid: Invalid value: "another": field is immutable'
        )


def test_custom_resources_have_no_strategic_merge(api: Api) -> None:
    path, _ = make_job(api)
    status, answer = api.call("PATCH", path, {}, "strategic")
    assert (status, answer["reason"]) == (415, "UnsupportedMediaType")
    assert answer["message"].startswith(
        "the body of the request was in an unknown format - accepted media types"
    )


# --- watching --------------------------------------------------------------------------------


def test_watch_from_a_version(api: Api) -> None:
    group = name_of()
    path, made = make_config(api, labels={"group": group})
    api.call("PATCH", path, {"data": {"a": "c"}}, "merge")
    api.call("DELETE", path)
    version = int(made["metadata"]["resourceVersion"]) - 1
    selector = f"group={group}"
    events = api.watch(api.core("configmaps"), resourceVersion=version, labelSelector=selector)
    assert [kind for kind, _ in events] == ["ADDED", "MODIFIED", "DELETED"]
    versions = [int(obj["metadata"]["resourceVersion"]) for _, obj in events]
    assert versions == sorted(set(versions))


def test_watch_without_a_version_begins_with_all(api: Api) -> None:
    group = name_of()
    make_config(api, labels={"group": group})
    events = api.watch(api.core("configmaps"), labelSelector=f"group={group}")
    assert [kind for kind, _ in events] == ["ADDED"]


def test_watch_sees_objects_enter_and_leave_the_selection(api: Api) -> None:
    group = name_of()
    path, made = make_config(api)
    for labels in ({"group": group}, {"group": group, "more": "1"}, {"group": None}):
        api.call("PATCH", path, {"metadata": {"labels": labels}}, "merge")
    events = api.watch(
        api.core("configmaps"),
        resourceVersion=made["metadata"]["resourceVersion"],
        labelSelector=f"group={group}",
    )
    assert [kind for kind, _ in events] == ["ADDED", "MODIFIED", "DELETED"]
