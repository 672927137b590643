"""The operator's client with a real API server; tests/operator/kube/test_client.py has one of scripted answers."""

from __future__ import annotations

from typing import Any

import pytest
from support.api_client import Api, make_config, make_job, name_of

from cosmos_operator.errors import Refused
from cosmos_operator.kube import lists
from cosmos_operator.kube.cluster import KubeCluster

pytestmark = pytest.mark.api_server


def config_map(api: Api, **labels: str) -> dict[str, Any]:
    meta = {"name": name_of("cm"), "namespace": api.namespace, "labels": labels}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"a": "b"}}


async def test_create_tells_new_from_existing(api: Api, cluster: KubeCluster) -> None:
    manifest = config_map(api)
    made = await cluster.create(manifest)
    assert made is not None
    assert made["metadata"]["uid"]
    assert await cluster.create(manifest) is None


async def test_lists_are_read_in_pages(
    api: Api, cluster: KubeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lists, "PAGE_SIZE", 2)
    group = name_of()
    for _ in range(5):
        await cluster.create(config_map(api, group=group))

    whole = await cluster.list("ConfigMap", api.namespace, {"group": group})
    metadata = await cluster.list_metadata("ConfigMap", api.namespace, {"group": group})

    assert [one["data"] for one in whole] == [{"a": "b"}] * 5
    assert [one["metadata"]["uid"] for one in metadata] == [one["metadata"]["uid"] for one in whole]
    assert not any("data" in one for one in metadata)
    assert {(one["apiVersion"], one["kind"]) for one in metadata} == {("v1", "ConfigMap")}


async def test_owner_is_added_once_beside_others(api: Api, cluster: KubeCluster) -> None:
    (_, first), (_, second) = make_job(api), make_job(api)
    _, made = make_config(api, (first,))
    (reference,) = made["metadata"]["ownerReferences"]
    meta = second["metadata"]
    owner = {**reference, "name": meta["name"], "uid": meta["uid"]}
    name = made["metadata"]["name"]

    for _ in range(2):
        await cluster.add_owner(
            "ConfigMap", api.namespace, name, owner, uid=made["metadata"]["uid"]
        )

    found = await cluster.get("ConfigMap", api.namespace, name)
    assert found is not None
    uids = [one["uid"] for one in found["metadata"]["ownerReferences"]]
    assert sorted(uids) == sorted([first["metadata"]["uid"], meta["uid"]])


async def test_owner_leaves_the_version_that_it_has_seen(api: Api, cluster: KubeCluster) -> None:
    (_, first), (_, second) = make_job(api), make_job(api)
    _, made = make_config(api, (first, second))
    meta, uids = made["metadata"], [one["metadata"]["uid"] for one in (first, second)]
    seen = {"uid": meta["uid"], "resource_version": meta["resourceVersion"]}

    left = [
        await cluster.remove_owner("ConfigMap", api.namespace, meta["name"], uid, **seen)
        for uid in uids
    ]

    assert left[0] is not None
    assert [one["uid"] for one in left[0]["metadata"]["ownerReferences"]] == uids[1:]
    assert left[1] is None
    await cluster.delete(
        "ConfigMap",
        api.namespace,
        meta["name"],
        meta["uid"],
        foreground=False,
        resource_version=meta["resourceVersion"],
    )
    assert await cluster.get("ConfigMap", api.namespace, meta["name"]) is not None
    owner = meta["ownerReferences"][0]
    added = await cluster.add_owner("ConfigMap", api.namespace, meta["name"], owner, uid="another")
    assert added is None


async def test_only_the_object_that_was_meant_is_deleted(api: Api, cluster: KubeCluster) -> None:
    _, made = make_config(api)
    name, uid = made["metadata"]["name"], made["metadata"]["uid"]

    await cluster.delete("ConfigMap", api.namespace, name, "another", foreground=False)
    assert await cluster.get("ConfigMap", api.namespace, name) is not None
    for _ in range(2):
        await cluster.delete("ConfigMap", api.namespace, name, uid, foreground=False)
    assert await cluster.get("ConfigMap", api.namespace, name) is None


async def test_replacement_of_an_older_version_is_none(api: Api, cluster: KubeCluster) -> None:
    manifest = config_map(api)
    await cluster.create(manifest)
    found = await cluster.get("ConfigMap", api.namespace, manifest["metadata"]["name"])
    assert found is not None

    replaced = await cluster.replace({**found, "data": {"a": "c"}})
    assert replaced is not None
    assert replaced["data"] == {"a": "c"}
    assert await cluster.replace({**found, "data": {"a": "d"}}) is None


async def test_dry_run_creates_nothing(api: Api, cluster: KubeCluster) -> None:
    manifest = config_map(api)
    made = await cluster.dry_run(manifest)

    assert made["metadata"]["uid"]
    assert await cluster.get("ConfigMap", api.namespace, manifest["metadata"]["name"]) is None


async def test_refusals_carry_what_the_server_says(api: Api, cluster: KubeCluster) -> None:
    manifest = config_map(api)
    manifest["metadata"]["name"] = "Bad_Name"
    with pytest.raises(Refused, match="a lowercase RFC 1123 subdomain must consist of"):
        await cluster.create(manifest)


async def test_kinds_of_other_operators_are_served_or_not(cluster: KubeCluster) -> None:
    assert await cluster.served() == {"PyTorchJob"}


async def test_administrator_may_do_everything(cluster: KubeCluster) -> None:
    assert await cluster.may({"verb": "create", "group": "batch", "resource": "jobs"}) is True
