"""Kinds that a queue does not manage are found by a dry run, on an API server in this process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.fakekube import FakeKube
from support.jobs import make_document

from cosmos_operator.controller.queue_check import QueueCheck
from cosmos_operator.kube.cluster import KubeCluster, connect
from cosmos_operator.plan.backend import choose_backend
from cosmos_operator.plan.job_plan import JobPlan, plan_job
from cosmos_operator.settings import Settings

SERVED = frozenset({"PyTorchJob", "LocalQueue", "Workload"})
PYTORCHJOBS = "pytorchjobs.kubeflow.org"
QUEUED = {"scheduling.queueName": "team"}


@pytest.fixture
def kube() -> Iterator[FakeKube]:
    with FakeKube(kinds=("PyTorchJob", "Kueue")) as kube:
        yield kube


@pytest.fixture
async def cluster(kube: FakeKube, tmp_path: Path) -> AsyncIterator[KubeCluster]:
    found = await connect(kube.write_kubeconfig(tmp_path / "kubeconfig"))
    yield found
    await found.close()


def plan(changes: dict[str, Any]) -> JobPlan:
    document = make_document(changes)
    document["metadata"] |= {"namespace": "default", "uid": "u"}
    return plan_job(document)


async def unmanaged(cluster: KubeCluster, changes: dict[str, Any]) -> frozenset[str]:
    return await QueueCheck(cluster, Settings()).unmanaged_kinds(plan(changes), SERVED)


async def test_kind_that_nobody_suspends_is_not_managed(
    kube: FakeKube, cluster: KubeCluster
) -> None:
    found = await unmanaged(cluster, QUEUED)

    assert found == {"PyTorchJob"}
    assert choose_backend("Auto", SERVED, found).kind == "Job"
    assert kube.find(PYTORCHJOBS) == [], "nothing was stored"


async def test_kind_that_kueue_suspends_is_managed(kube: FakeKube, cluster: KubeCluster) -> None:
    kube.manage(PYTORCHJOBS)

    assert await unmanaged(cluster, QUEUED) == frozenset()


@pytest.mark.parametrize("changes", [{}, {**QUEUED, "backend.type": "PyTorchJob"}])
async def test_nothing_is_asked_without_a_queue_or_with_a_chosen_backend(
    kube: FakeKube, cluster: KubeCluster, changes: dict[str, Any]
) -> None:
    kube.refuse(lambda call: call.verb == "create", 500, "InternalError", "must not be asked")

    assert await unmanaged(cluster, changes) == frozenset()


async def test_refused_dry_run_leaves_the_choice_as_it_is(
    kube: FakeKube, cluster: KubeCluster
) -> None:
    kube.refuse(lambda call: call.verb == "create", 403, "Forbidden", "no")

    assert await unmanaged(cluster, QUEUED) == frozenset()


async def test_answer_is_remembered_for_a_while_and_only_where_one_was_given(
    kube: FakeKube, cluster: KubeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    check, num_calls = QueueCheck(cluster, Settings()), len(kube.calls())
    chosen = plan({**QUEUED, "backend.type": "PyTorchJob"})
    assert await check.unmanaged_kinds(chosen, SERVED) == frozenset(), "asks nothing"

    assert await check.unmanaged_kinds(plan(QUEUED), SERVED) == {"PyTorchJob"}
    assert await check.unmanaged_kinds(plan(QUEUED), SERVED) == {"PyTorchJob"}
    assert len(kube.calls()) == num_calls + 1

    monkeypatch.setattr("cosmos_operator.controller.queue_check.REMEMBERED_S", 0.0)
    check = QueueCheck(cluster, Settings())
    assert await check.unmanaged_kinds(plan(QUEUED), SERVED) == {"PyTorchJob"}
    kube.manage(PYTORCHJOBS)  # Kueue was configured anew
    assert await check.unmanaged_kinds(plan(QUEUED), SERVED) == frozenset()
