"""A CustomResourceDefinition that is older than the operator: the status is written without what it lacks, and told."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.fakekube import FakeKube
from support.passes import PTJS, make_claim, make_ptj, passes

from cosmos_operator.api.base import KIND
from cosmos_operator.api.crd import build_crd
from cosmos_operator.controller.served_crd import PERIOD_S, ServedCrd, own_schemas
from cosmos_operator.errors import ClusterUnavailable


def older(schema: Any) -> Any:
    """A schema without the field ``stages``, and with a closed set of conditions."""
    found = copy.deepcopy(schema)
    status = found["properties"]["status"]["properties"]
    del status["stages"]
    status["conditions"]["items"]["properties"]["type"]["enum"] = [
        "Accepted",
        "Succeeded",
        "Failed",
    ]
    return found


class Source:
    """Has the schema of PostTrainingJobs that the test gives it, and that of this version for other kinds."""

    def __init__(self, schema: Any) -> None:
        self.schema, self.num_asked = schema, 0
        self.error: Exception | None = None

    async def served_schema(self, kind: str) -> Any:
        if kind != KIND:
            return own_schemas()[kind]
        self.num_asked += 1
        if self.error is not None:
            raise self.error
        return self.schema


STATUS = {
    "stages": [{"name": "train"}],
    "conditions": [{"type": kind, "status": "True"} for kind in ("Accepted", "ModelReady")],
}


async def test_same_schema_changes_nothing() -> None:
    crd = ServedCrd(Source(own_schemas()[KIND]))
    await crd.refresh()

    assert crd.fit(KIND, STATUS) is STATUS
    assert list(crd.problems()) == []
    assert crd.num_lacking() == 0


async def test_older_schema_is_told_and_fitted() -> None:
    crd = ServedCrd(Source(older(own_schemas()[KIND])))
    await crd.refresh()

    assert crd.fit(KIND, STATUS) == {"conditions": STATUS["conditions"][:1]}
    assert "status.stages" in crd.problem(KIND)
    assert "cosmos crd | kubectl apply" in crd.problem(KIND)
    assert crd.num_lacking() == 2


async def test_schema_is_asked_for_now_and_then_and_kept_where_there_is_no_answer() -> None:
    source, now = Source(older(own_schemas()[KIND])), [0.0]
    crd = ServedCrd(source, lambda: now[0])
    await crd.refresh()
    asked = source.num_asked
    await crd.refresh()
    assert source.num_asked == asked

    source.error = ClusterUnavailable("gone")
    now[0] += PERIOD_S + 1
    await crd.refresh()
    assert crd.problem(KIND)

    source.error, source.schema = None, own_schemas()[KIND]
    await crd.refresh(at_once=True)
    assert not crd.problem(KIND)


async def test_server_that_does_not_tell_gets_the_whole_status() -> None:
    crd = ServedCrd(Source(None))
    await crd.refresh()

    assert crd.fit(KIND, STATUS) is STATUS


@pytest.fixture
def kube() -> Iterator[FakeKube]:
    with FakeKube() as kube:
        kube.install_crd(build_crd())
        make_claim(kube)
        yield kube


async def test_refused_status_is_told_by_one_event(kube: FakeKube, tmp_path: Path) -> None:
    kube.refuse(
        lambda call: call.subresource == "status" and call.resource.key == PTJS,
        422,
        "Invalid",
        "status.state: Unsupported value",
    )
    async with passes(kube, tmp_path) as rig:
        make_ptj(kube, "one")
        await rig.sync()
        for _ in range(4):
            again_s, _ = await rig.reconcile("one")
        assert again_s, "it tries again later"

    events = [one for one in kube.find("events") if one["reason"] == "StatusRefused"]
    assert len(events) == 1
    assert "Unsupported value" in events[0]["message"]
