from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kopf
import pytest
from support.fakekube import FakeKube
from support.jobs import make_document

import cosmos_operator
from cosmos_operator.api.crd import build_crd
from cosmos_operator.controller.kopf_watch import (
    build_settings,
    register,
    watch,
)
from cosmos_operator.controller.listed_pages import ListedPage
from cosmos_operator.errors import ClusterUnavailable
from cosmos_operator.kube.client import Connection

MANAGED = {"app.kubernetes.io/managed-by": "cosmos"}


def test_settings_only_watch():
    settings = build_settings()

    assert not settings.posting.enabled
    assert settings.scanning.disabled
    assert settings.peering.standalone
    assert settings.watching.server_timeout == 300
    assert settings.watching.client_timeout == 330
    assert settings.watching.inactivity_timeout == 90


def test_kopf_copies_no_object_to_compare_it():
    body = kopf.Body({"metadata": {"name": "one"}, "spec": {"a": 1}})

    storage = build_settings().persistence.diffbase_storage

    assert storage.build(body=body) == {}
    assert storage.fetch(body=body) is None


def test_only_one_module_imports_kopf():
    package = Path(cosmos_operator.__file__).parent
    users = [path.name for path in package.rglob("*.py") if "import kopf" in path.read_text()]
    assert users == ["kopf_watch.py"]


def test_no_handler_writes():
    text = (Path(cosmos_operator.__file__).parent / "controller" / "kopf_watch.py").read_text()
    kinds = {part.split("(")[0] for part in text.split("kopf.on.")[1:]}
    assert kinds == {"event", "login"}, "other handlers write finalizers and annotations"


# With an API server.


@pytest.fixture
def kube() -> Iterator[FakeKube]:
    with FakeKube(kinds=()) as kube:
        kube.install_crd(build_crd())
        yield kube


def managed_map(name: str, labels: dict[str, str]) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": "default", "labels": labels}}


class Watching:
    """Runs ``watch`` and collects what it delivers."""

    def __init__(self, kube: FakeKube, kinds: list[str], namespaces: tuple[str, ...] = ()) -> None:
        self.kube, self.num_logins = kube, 0
        self.events: list[tuple[str, bool]] = []
        self.pages: list[ListedPage] = []
        self.task = asyncio.create_task(
            watch(kinds, namespaces, self.deliver, self.take, self.connect)
        )

    async def take(self, page: ListedPage) -> None:
        self.pages.append(page)
        for body in page.items:
            self.deliver(page.kind, "ADDED", body)

    def deliver(self, kind: str, event_type: str | None, body: dict[str, Any]) -> None:
        self.events.append((body["metadata"]["name"], event_type == "DELETED"))

    async def connect(self) -> Connection:
        self.num_logins += 1
        return Connection(
            self.kube.url, None, None, None, None, verify=True, proxy=None, trust_env=True
        )

    async def until(self, name: str, *, is_deleted: bool = False) -> None:
        for _ in range(500):
            if (name, is_deleted) in self.events:
                return
            if self.task.done():
                self.task.result()
            await asyncio.sleep(0.02)
        raise AssertionError(f"no event of {name} among {self.events}")

    async def stop(self) -> None:
        self.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await self.task


def make_job(kube: FakeKube, name: str) -> None:
    job = make_document()
    job["metadata"] = {"name": name, "namespace": "default"}
    kube.create("posttrainingjobs.cosmos.dev", job)


async def test_events_arrive_and_nothing_is_written(kube):
    make_job(kube, "before")
    watching = Watching(kube, ["PostTrainingJob", "ConfigMap"])
    await watching.until("before")

    make_job(kube, "after")
    kube.create("configmaps", managed_map("ours", MANAGED))
    kube.create("configmaps", managed_map("last", MANAGED))
    for name in ("after", "ours", "last"):
        await watching.until(name)
    kube.call(lambda: kube.store.delete("posttrainingjobs.cosmos.dev", "default", "after"))
    await watching.until("after", is_deleted=True)
    await watching.stop()

    assert {call.verb for call in kube.calls()} <= {"list", "watch"}
    job = kube.get("posttrainingjobs.cosmos.dev", "before")
    assert job is not None
    assert not job["metadata"].get("finalizers")
    assert not job["metadata"].get("annotations")


async def test_lists_are_taken_before_kopf_makes_events_of_them(kube):
    for number in range(5):
        make_job(kube, f"job-{number}")
    watching = Watching(kube, ["PostTrainingJob"])
    await watching.until("job-4")
    make_job(kube, "later")
    await watching.until("later")
    await watching.stop()

    (page,) = watching.pages
    assert (len(page.items), page.is_first, page.is_last) == (5, True, True)
    assert len(watching.events) == 6, "each job once"


async def test_only_the_given_namespaces_are_watched(kube):
    kube.create("namespaces", {"metadata": {"name": "other"}})
    kube.create(
        "configmaps", {"metadata": {"name": "far", "namespace": "other", "labels": MANAGED}}
    )
    watching = Watching(kube, ["ConfigMap"], ("default",))

    kube.create("configmaps", managed_map("near", MANAGED))
    await watching.until("near")
    await watching.stop()

    assert watching.events == [("near", False)]
    assert {call.namespace for call in kube.calls(plural="configmaps")} == {"default"}


async def test_watch_goes_on_after_the_server_dropped_it(kube):
    watching = Watching(kube, ["ConfigMap"])
    kube.create("configmaps", managed_map("one", MANAGED))
    await watching.until("one")

    kube.drop_watches(forget=True)
    kube.create("configmaps", managed_map("two", MANAGED))

    await watching.until("two")
    await watching.stop()


@pytest.mark.skipif(
    not hasattr(kopf.OperatorSettings().watching, "label_selectors"),
    reason="kopf before 1.45 goes on without a watch that failed; the audit of watches notices",
)
async def test_end_of_the_watches_is_an_error(kube):
    kube.refuse(lambda call: call.verb == "list", 404, "NotFound", "no such kind")
    watching = Watching(kube, ["ConfigMap"])

    with pytest.raises(
        ClusterUnavailable, match=r"watches ended: APINotFoundError: .*no such kind"
    ):
        await asyncio.wait_for(watching.task, 20)


async def test_watches_stopped_while_they_start(kube):
    watching = Watching(kube, ["ConfigMap"])
    await asyncio.sleep(0)

    await asyncio.wait_for(watching.stop(), 5)


def test_kopf_is_told_of_every_kind_once():
    registry = kopf.OperatorRegistry()

    async def connect() -> Connection:
        raise AssertionError

    async def take(page: ListedPage) -> None:
        raise AssertionError

    register(registry, ["Job", "Pod"], print, take, connect)

    handlers = registry._watching.get_all_handlers()
    assert sorted(handler.id for handler in handlers) == ["watch-jobs", "watch-pods"]
    assert not registry._changing.get_all_handlers()
    assert not registry._spawning.get_all_handlers()
