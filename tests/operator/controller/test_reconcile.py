"""One pass over a job, on an API server in this process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.fakekube import FakeKube
from support.jobs import make_document

import cosmos_operator
from cosmos_operator.api.crd import build_crd
from cosmos_operator.controller import reconcile
from cosmos_operator.controller.metrics import Metrics
from cosmos_operator.controller.reconcile import Reconciler
from cosmos_operator.kube.cluster import connect
from cosmos_operator.kube.kinds import JobKey
from cosmos_operator.plan import job_plan
from cosmos_operator.settings import Settings

PTJS = "posttrainingjobs.cosmos.dev"
KEY = JobKey("PostTrainingJob", "default", "one")


@pytest.fixture
def kube() -> Iterator[FakeKube]:
    with FakeKube() as kube:
        kube.install_crd(build_crd())
        yield kube


@pytest.fixture
async def reconciler(kube, tmp_path) -> AsyncIterator[Reconciler]:
    cluster = await connect(kube.write_kubeconfig(tmp_path / "kubeconfig"))
    yield Reconciler(cluster, Settings(), Metrics())
    await cluster.close()


@pytest.fixture
def calls(monkeypatch) -> list[str]:
    """Names of the functions that plan, in the order of their calls."""
    calls: list[str] = []

    def count(module: Any, name: str) -> None:
        original: Callable[..., Any] = getattr(module, name)

        def counted(*arguments: Any, **options: Any) -> Any:
            calls.append(name)
            return original(*arguments, **options)

        monkeypatch.setattr(module, name, counted)

    count(reconcile, "plan_job")
    count(job_plan, "parse_job")
    count(job_plan, "plan_stages")
    return calls


def make_ptj(kube: FakeKube, changes: dict[str, Any] | None = None) -> None:
    job = make_document(changes)
    job["metadata"] = {"name": "one", "namespace": "default"}
    kube.create(PTJS, job)


async def test_job_is_planned_once_a_pass(kube, reconciler, calls):
    make_ptj(kube)

    await reconciler.reconcile(KEY)
    assert calls == ["plan_job", "parse_job", "plan_stages"]

    await reconciler.reconcile(KEY)
    assert calls == ["plan_job", "parse_job", "plan_stages"] * 2


async def test_invalid_job_is_planned_once_a_pass(kube, reconciler, calls):
    make_ptj(kube, {"training.experiment": "unknown"})

    await reconciler.reconcile(KEY)

    assert calls == ["plan_job", "parse_job"]


async def test_deleted_job_is_not_planned(reconciler, calls):
    assert await reconciler.reconcile(KEY) is None
    assert calls == []


def test_only_the_pass_plans():
    package = Path(cosmos_operator.__file__).parent
    users = {
        path.relative_to(package).as_posix()
        for folder in ("controller", "decide")
        for path in (package / folder).rglob("*.py")
        if "plan_job(" in path.read_text() or "plan_stages" in path.read_text()
    }
    assert users == {"controller/reconcile.py"}
