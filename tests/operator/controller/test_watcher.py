"""The watches of several namespaces, on an API server in this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from support.fakekube import Call, FakeKube
from support.jobs import make_document
from support.passes import PTJS

from cosmos_operator.api.crd import build_crd
from cosmos_operator.controller import informer, namespace_watch, watcher
from cosmos_operator.controller.cache import Cache
from cosmos_operator.controller.listed_pages import ListedPage
from cosmos_operator.controller.metrics import Metrics
from cosmos_operator.controller.router import Router
from cosmos_operator.controller.watcher import Watcher
from cosmos_operator.controller.work_queue import WorkQueue
from cosmos_operator.kube.cluster import connect
from cosmos_operator.kube.kinds import JobKey
from cosmos_operator.settings import Settings

FORBIDDEN = (
    'pods is forbidden: User "operator" cannot list resource "pods" in the namespace "team-b"'
)


@pytest.fixture
def kube() -> Iterator[FakeKube]:
    with FakeKube(kinds=()) as kube:
        kube.install_crd(build_crd())
        for name in ("team-a", "team-b"):
            kube.call(
                lambda name=name: kube.store.create("namespaces", {"metadata": {"name": name}})
            )
        yield kube


@pytest.fixture(autouse=True)
def short_times(monkeypatch) -> None:
    monkeypatch.setattr(namespace_watch, "LEFT_OUT_S", 0.3)
    monkeypatch.setattr(namespace_watch, "RETRY_S", 0.1)


def make_ptj(kube: FakeKube, namespace: str, name: str) -> JobKey:
    job = make_document()
    job["metadata"] = {"name": name, "namespace": namespace}
    kube.create(PTJS, job)
    return JobKey("PostTrainingJob", namespace, name)


class Running:
    """A running watcher, and the jobs that it has queued."""

    def __init__(self, cluster: Any, settings: Settings) -> None:
        self.keys: list[JobKey] = []
        self.metrics, self.cache = Metrics(), Cache()
        self.queue = WorkQueue(self.handle)
        self.watcher = Watcher(
            cluster, settings, self.cache, Router(self.cache), self.queue, self.metrics
        )
        self.tasks = [
            asyncio.create_task(self.queue.run()),
            asyncio.create_task(self.watcher.watch()),
        ]

    async def handle(self, key: JobKey) -> None:
        self.keys.append(key)

    async def until(self, condition: Callable[[], object]) -> None:
        for _ in range(500):
            if condition():
                return
            for task in self.tasks:
                if task.done():
                    task.result()
            await asyncio.sleep(0.02)
        raise AssertionError("it never came true")

    def metric(self, line: str) -> bool:
        return line in self.metrics.render().decode().splitlines()


@asynccontextmanager
async def watching(kube: FakeKube, folder: Any, *namespaces: str) -> AsyncIterator[Running]:
    cluster = await connect(kube.write_kubeconfig(folder / "kubeconfig"))
    running = Running(cluster, Settings(watchNamespaces=namespaces))
    try:
        yield running
        synced = [each for each in running.watcher._watches if each.is_synced]
        await running.until(lambda: len(kube.calls("watch", "posttrainingjobs")) >= len(synced))
    finally:
        for task in running.tasks:
            task.cancel()
        await asyncio.gather(*running.tasks, return_exceptions=True)
        await cluster.close()


def in_team_b(call: Call) -> bool:
    return call.namespace == "team-b"


async def test_namespace_that_may_not_be_read_is_left_out_and_the_other_goes_on(kube, tmp_path):
    a, b = make_ptj(kube, "team-a", "one"), make_ptj(kube, "team-b", "one")
    rule = kube.refuse(in_team_b, 403, "Forbidden", FORBIDDEN)
    async with watching(kube, tmp_path, "team-a", "team-b") as op:
        await op.until(lambda: op.watcher.is_caught_up and op.keys == [a])

        (line,) = op.watcher.left_out()
        assert line.startswith("namespace team-b is left out: ")
        assert FORBIDDEN in line
        assert op.metric('cosmos_namespace_left_out{namespace="team-b"} 1.0')
        assert op.metric('cosmos_namespace_left_out{namespace="team-a"} 0.0')
        assert not op.watcher.watches("team-b")
        assert list(op.watcher.problems()) == []

        kube.forgive(rule)
        await op.until(lambda: b in op.keys)
        assert list(op.watcher.left_out()) == []
        assert op.metric('cosmos_namespace_left_out{namespace="team-b"} 0.0')


async def test_namespace_whose_role_goes_later_is_left_out_and_taken_back(kube, tmp_path):
    a, b = make_ptj(kube, "team-a", "one"), make_ptj(kube, "team-b", "one")
    async with watching(kube, tmp_path, "team-a", "team-b") as op:
        await op.until(lambda: {a, b} <= set(op.keys))
        await op.until(lambda: len(kube.calls("watch", "posttrainingjobs")) == 2)
        lists = len([c for c in kube.calls("list") if c.namespace == "team-a"])

        rule = kube.refuse(in_team_b, 403, "Forbidden", FORBIDDEN)
        kube.call(lambda: [  # as at their end, after which a watch is asked for anew
            queue.put_nowait(None) for queue, call in kube.api.watches._queues.items()
            if call.namespace == "team-b"
        ])  # fmt: skip
        await op.until(lambda: list(op.watcher.left_out()))
        two = make_ptj(kube, "team-a", "two")
        await op.until(lambda: two in op.keys)

        op.keys.clear()
        kube.forgive(rule)
        await op.until(lambda: b in op.keys)
        assert a not in op.keys
        again = len([c for c in kube.calls("list") if c.namespace == "team-a"])
        assert again == lists, "the watches of the other namespace were not begun anew"


async def test_operator_waits_while_no_namespace_can_be_read(kube, tmp_path):
    one = make_ptj(kube, "team-b", "one")
    rule = kube.refuse(in_team_b, 403, "Forbidden", FORBIDDEN)
    async with watching(kube, tmp_path, "team-b") as op:
        await op.until(lambda: list(op.watcher.left_out()))
        assert not op.watcher.is_caught_up

        kube.forgive(rule)
        await op.until(lambda: op.watcher.is_caught_up and one in op.keys)


async def test_server_that_does_not_answer_for_a_while_is_waited_for(kube, tmp_path):
    one = make_ptj(kube, "team-a", "one")
    rule = kube.refuse(lambda call: call.verb == "list")
    async with watching(kube, tmp_path) as op:
        await op.until(lambda: list(op.watcher.left_out()))
        kube.forgive(rule)
        await op.until(lambda: one in op.keys)


async def test_watch_that_the_server_dropped_goes_on_where_it_ended(kube, tmp_path):
    async with watching(kube, tmp_path) as op:
        await op.until(lambda: len(kube.calls("watch")) >= len(informer.INFORMED) - 4)
        lists = len(kube.calls("list", "configmaps"))
        kube.drop_watches()
        labels = {"app.kubernetes.io/managed-by": "cosmos", "cosmos.dev/job": "one"}
        meta = {"name": "c", "namespace": "team-a", "labels": labels}
        kube.create("configmaps", {"metadata": meta})

        await op.until(lambda: JobKey("PostTrainingJob", "team-a", "one") in op.keys)
        assert len(kube.calls("list", "configmaps")) == lists

        kube.drop_watches(forget=True)
        kube.call(lambda: kube.store.delete("configmaps", "team-a", "c"))
        await op.until(lambda: op.cache.get("ConfigMap", "team-a", "c") is None)


async def test_objects_of_others_are_not_kept(kube, tmp_path):
    async with watching(kube, tmp_path) as op:
        await op.until(lambda: op.watcher.is_caught_up)
        await op.until(lambda: kube.calls("watch", "configmaps"))
        kube.create("configmaps", {"metadata": {"name": "theirs", "namespace": "team-a"}})
        make_ptj(kube, "team-a", "one")
        await op.until(lambda: op.keys)

        assert op.cache.names("ConfigMap", "team-a") == ()


async def test_jobs_that_have_ended_get_no_pass_but_for_their_deletion(kube, tmp_path):
    done = {"type": "Succeeded", "status": "True", "reason": "Finished", "observedGeneration": 1}
    due = make_ptj(kube, "team-a", "due")
    job = kube.get(PTJS, "due", "team-a")
    job["spec"]["runPolicy"] = {"ttlSecondsAfterFinished": 1}
    kube.call(lambda: kube.store.update(PTJS, job))
    for name, generation in (("due", 2), ("stays", 1)):
        found = kube.get(PTJS, name, "team-a")
        if found is None:
            make_ptj(kube, "team-a", name)
            found = kube.get(PTJS, name, "team-a")
        status = {"state": "Succeeded", "completionTime": "2026-01-01T00:00:00Z"}
        conditions = [{**done, "observedGeneration": generation}]
        kube.call(lambda found=found, conditions=conditions, status=status: kube.store.patch_status(
            PTJS, found, conditions=conditions, **status))  # fmt: skip
    async with watching(kube, tmp_path) as op:
        await op.until(lambda: op.keys)
        await asyncio.sleep(0.5)

        assert op.keys == [due]
        assert op.metric('cosmos_jobs{kind="PostTrainingJob",state="Succeeded"} 2.0')


async def test_jobs_are_listed_once(kube, tmp_path):
    keys = [make_ptj(kube, "team-a", f"job-{number}") for number in range(5)]
    async with watching(kube, tmp_path) as op:
        await op.until(lambda: op.watcher.is_caught_up)
        await op.until(lambda: set(keys) <= set(op.keys))

    whole = [c for c in kube.calls("list", "posttrainingjobs") if c.query.get("continue")]
    assert not whole
    assert len(kube.calls("list", "posttrainingjobs")) == 2, "a page to see that we may, and kopf's"


async def test_jobs_are_listed_if_kopf_delivers_none(kube, tmp_path, monkeypatch):
    async def watch_nothing(*_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(namespace_watch, "watch", watch_nothing)
    monkeypatch.setattr(namespace_watch, "QUIET_S", 0.3)
    one = make_ptj(kube, "team-a", "one")
    cluster = await connect(kube.write_kubeconfig(tmp_path / "kubeconfig"))
    running = Running(cluster, Settings())
    await running.until(lambda: running.watcher.is_caught_up and one in running.keys)

    for task in running.tasks:
        task.cancel()
    await asyncio.gather(*running.tasks, return_exceptions=True)
    await cluster.close()


async def test_job_whose_deletion_was_missed_leaves_the_cache(kube, tmp_path):
    one = make_ptj(kube, "team-a", "one")
    async with watching(kube, tmp_path) as op:
        await op.until(lambda: one in op.keys)
        gone = kube.get("posttrainingjobs.cosmos.dev", "one", "team-a")
        gone["metadata"] |= {"name": "gone", "uid": "gone"}
        op.cache.put("PostTrainingJob", gone)
        assert {key.name for key, _ in op.cache.jobs()} == {"one", "gone"}

        (watch,) = op.watcher._watches
        await watch._make_up("PostTrainingJob", [])  # a list from before "one" was created
        assert {key.name for key, _ in op.cache.jobs()} == {"one"}


async def test_kind_that_a_job_needs_is_noticed_soon(kube, tmp_path, monkeypatch):
    monkeypatch.setattr(watcher, "MISSING_POLL_S", 0.1)
    key = make_ptj(kube, "team-a", "one")
    async with watching(kube, tmp_path) as op:
        await op.until(lambda: op.watcher.is_caught_up and key in op.keys)
        kube.install("PyTorchJob")
        await asyncio.sleep(0.5)
        assert "PyTorchJob" not in op.watcher._cache.served, "nobody needs it"

        op.watcher._cache.awaiting_kinds.add(key)
        await op.until(lambda: "PyTorchJob" in op.watcher._cache.served)


async def test_jobs_that_a_new_list_lacks_leave_the_cache(kube, tmp_path):
    keys = [make_ptj(kube, "team-a", name) for name in ("one", "two", "three")]
    async with watching(kube, tmp_path) as op:
        await op.until(lambda: set(keys) <= set(op.keys))
        two = kube.get(PTJS, "two", "team-a")
        version = two["metadata"]["resourceVersion"]  # "three" is newer
        (watch,) = op.watcher._watches

        page = ListedPage("PostTrainingJob", [two], version, is_first=True, is_last=False)
        await watch._take_page(page)
        assert {key.name for key, _ in op.cache.jobs()} == {"one", "two", "three"}

        await watch._take_page(replace(page, items=[], is_first=False, is_last=True))
        assert {key.name for key, _ in op.cache.jobs()} == {"two", "three"}
