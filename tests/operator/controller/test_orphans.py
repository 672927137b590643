"""Objects of shared stages that nobody owns are collected, and nothing else is."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from cosmos_operator.api.labels import JOB_LABEL, MANAGED_BY, MANAGED_LABEL, STAGE_LABEL
from cosmos_operator.controller.orphans import OrphanCollector
from cosmos_operator.settings import Settings

NOW = datetime(2026, 1, 31, 13, 0, 0, tzinfo=UTC)
SHARED = {MANAGED_LABEL: MANAGED_BY, STAGE_LABEL: "fetch-model"}


class Store:
    """Lists one object, and notes what is deleted."""

    def __init__(self, **metadata) -> None:
        whole = {"name": "cosmos-fetch-model-1", "namespace": "lab", "uid": "u", "labels": SHARED}
        old = {"resourceVersion": "7", "creationTimestamp": "2026-01-31T12:00:00Z"}
        self.item = {"kind": "Job", "metadata": {**whole, **old, **metadata}}
        self.deleted = []

    async def list_metadata(self, kind, namespace, labels=None):
        assert (kind, namespace, labels) == ("Job", None, {MANAGED_LABEL: MANAGED_BY})
        return [self.item]

    async def delete(self, *identity, foreground, resource_version=""):
        self.deleted.append((*identity, resource_version))


async def collect(store) -> list[tuple[str, ...]]:
    await OrphanCollector(store, Settings(), lambda: NOW).collect("Job", None)
    return store.deleted


async def test_object_without_owners_is_deleted_in_the_version_that_was_listed():
    assert await collect(Store()) == [("Job", "lab", "cosmos-fetch-model-1", "u", "7")]


@pytest.mark.parametrize(
    "metadata",
    [
        {"ownerReferences": [{"uid": "a"}]},
        {"labels": SHARED | {JOB_LABEL: "push"}},
        {"labels": {MANAGED_LABEL: MANAGED_BY}},
        {"creationTimestamp": "2026-01-31T12:55:00Z"},
        {"deletionTimestamp": "2026-01-31T12:55:00Z"},
    ],
)
async def test_everything_else_stays(metadata):
    assert await collect(Store(**metadata)) == []
