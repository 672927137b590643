"""Shares of objects are given up in the version that the API server has now, whatever a pass has seen."""

from __future__ import annotations

from typing import Any

import pytest

from cosmos_operator.controller.cache import Cache
from cosmos_operator.controller.carry_out import Executor, Memory
from cosmos_operator.controller.router import Router
from cosmos_operator.decide.decision import GiveUp
from cosmos_operator.kube.kinds import JobKey

GIVE_UP = GiveUp("Job", "cosmos-fetch-model-1", "u-1", "a", "suspended")


class Cluster:
    """Has one object, and notes what is written."""

    def __init__(self, *owners: str, uid: str = "u-1", **metadata: Any) -> None:
        kind = {"apiVersion": "cosmos.dev/v1alpha1", "kind": "PostTrainingJob"}
        references = [{**kind, "name": owner, "uid": owner} for owner in owners]
        identity = {
            "name": "cosmos-fetch-model-1",
            "uid": uid,
            "namespace": "lab",
            "resourceVersion": "7",
        }
        self.found = {"metadata": {**identity, "ownerReferences": references, **metadata}}
        self.written: list[tuple[Any, ...]] = []

    async def get(self, *_: str) -> dict[str, Any]:
        return self.found

    async def remove_owner(self, *identity, uid, resource_version):
        self.written.append(("leave", identity[-1], uid, resource_version))

    async def delete(self, *identity, foreground, resource_version=""):
        self.written.append(("delete", identity[-1], resource_version))


async def give_up(cluster: Cluster, action: GiveUp = GIVE_UP) -> list[tuple[Any, ...]]:
    cache = Cache()
    executor = Executor(cluster, cache, Router(cache), lambda _: None)  # type: ignore[arg-type]
    await executor.carry_out(JobKey("PostTrainingJob", "lab", "push"), (action,), Memory())
    return cluster.written


async def test_one_of_several_owners_leaves():
    assert await give_up(Cluster("a", "b")) == [("leave", "a", "u-1", "7")]


async def test_last_owner_deletes_the_version_that_it_has_seen():
    assert await give_up(Cluster("a")) == [("delete", "u-1", "7")]


async def test_what_others_use_without_owning_it_stays():
    action = GiveUp("ConfigMap", "cosmos-fetch-model-1", "u-1", "a", "suspended", deletes=False)
    assert await give_up(Cluster("a"), action) == []
    assert await give_up(Cluster("a", "b"), action) == [("leave", "a", "u-1", "7")]


@pytest.mark.parametrize(
    "cluster",
    [
        Cluster("b"),
        Cluster("a", uid="another"),
        Cluster("a", deletionTimestamp="2026-01-31T12:00:00Z"),
    ],
)
async def test_what_is_not_ours_any_more_stays(cluster):
    assert await give_up(cluster) == []
