from __future__ import annotations

import asyncio
import json
import logging
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from support.fakekube import FakeKube
from support.jobs import make_document

from cosmos_operator.api.crd import build_crd
from cosmos_operator.controller import (
    manager,
    namespace_watch,
    watch_audit,
    watcher,
)
from cosmos_operator.controller.lease import LeaseLost
from cosmos_operator.controller.manager import (
    JsonFormatter,
    Operator,
    Parts,
    TextFormatter,
    main,
)
from cosmos_operator.errors import ClusterUnavailable
from cosmos_operator.kube.cluster import KubeCluster, connect
from cosmos_operator.kube.kinds import JobKey
from cosmos_operator.settings import Settings

MANAGED = {"app.kubernetes.io/managed-by": "cosmos"}
PTJS = "posttrainingjobs.cosmos.dev"
ONE, TWO = (JobKey("PostTrainingJob", "default", name) for name in ("one", "two"))
SETTINGS = {"healthPort": 0, "metricsPort": 0}


@pytest.fixture
def kube() -> Iterator[FakeKube]:
    with FakeKube(kinds=()) as kube:
        yield kube


class Reconcile:
    """Reconciler that records its passes; each calls ``act``."""

    def __init__(self) -> None:
        self.keys: list[JobKey] = []
        self.act: Callable[[JobKey], Awaitable[float | None]] | None = None

    def make(self, _: Parts) -> Callable[[JobKey], Awaitable[float | None]]:
        return self.reconcile

    async def reconcile(self, key: JobKey) -> float | None:
        self.keys.append(key)
        return await self.act(key) if self.act else None


class Running:
    """A running manager."""

    def __init__(self, operator: Operator, cluster: KubeCluster, reconcile: Reconcile) -> None:
        self.operator, self.cluster, self.reconcile = operator, cluster, reconcile
        self.stop = asyncio.Event()
        self.task = asyncio.create_task(operator.run(self.stop))

    async def until(self, condition: Callable[[], object]) -> None:
        for _ in range(1000):
            if condition():
                return
            if self.task.done():
                self.task.result()
            await asyncio.sleep(0.02)
        raise AssertionError("it never came true")

    async def until_ready(self) -> None:
        await self.until(lambda: not list(self.operator.obstacles()))

    async def end(self) -> None:
        self.stop.set()
        await self.task


@asynccontextmanager
async def running(kube: FakeKube, folder: Path, **settings: Any) -> AsyncIterator[Running]:
    cluster = await connect(kube.write_kubeconfig(folder / "kubeconfig"))
    reconcile = Reconcile()
    operator = Operator(cluster, Settings(**{**SETTINGS, **settings}), reconcile.make)
    found = Running(operator, cluster, reconcile)
    try:
        yield found
    finally:
        found.task.cancel()
        await asyncio.gather(found.task, return_exceptions=True)
        await cluster.close()


def make_ptj(kube: FakeKube, name: str) -> dict[str, Any]:
    job = make_document()
    job["metadata"] = {"name": name, "namespace": "default"}
    return kube.create(PTJS, job)


def owned_job(name: str, labels: dict[str, str], owner: dict[str, Any] | None) -> dict[str, Any]:
    reference = owner and {
        "apiVersion": "cosmos.dev/v1alpha1",
        "kind": "PostTrainingJob",
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
    }
    pod = {"restartPolicy": "Never", "containers": [{"name": "worker", "image": "x"}]}
    return {
        "metadata": {
            "name": name,
            "namespace": "default",
            "labels": labels,
            "ownerReferences": [reference] if reference else [],
        },
        "spec": {"suspend": True, "template": {"metadata": {"labels": labels}, "spec": pod}},
    }


async def test_jobs_and_what_they_own_lead_to_passes_and_nothing_else_is_written(kube, tmp_path):
    kube.install_crd(build_crd())
    owner = make_ptj(kube, "one")
    async with running(kube, tmp_path) as op:
        await op.until_ready()
        await op.until(lambda: ONE in op.reconcile.keys)
        await asyncio.sleep(0.2)

        for labels, parent in (({**MANAGED, "cosmos.dev/job": "one"}, None), (MANAGED, owner)):
            op.reconcile.keys.clear()
            name = f"job-{len(labels)}"
            kube.create("jobs.batch", owned_job(name, labels, parent))
            await op.until(lambda: ONE in op.reconcile.keys)
        make_ptj(kube, "two")
        await op.until(lambda: TWO in op.reconcile.keys)
        await op.end()

    writes = {
        call.resource.plural for call in kube.calls() if call.verb not in ("list", "watch", "get")
    }
    assert writes == {"leases"}
    found = kube.get(PTJS, "one")
    assert found is not None
    assert not found["metadata"].get("finalizers")
    assert not found["metadata"].get("annotations")


async def test_crd_that_comes_later_is_watched(kube, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(watcher, "MISSING_POLL_S", 0.1)
    async with running(kube, tmp_path) as op:
        await op.until_ready()
        assert "has no PostTrainingJob" in caplog.text

        kube.install_crd(build_crd())
        make_ptj(kube, "one")
        await op.until(lambda: ONE in op.reconcile.keys)
        await op.end()


async def test_crd_that_goes_does_not_end_the_operator(kube, tmp_path, monkeypatch):
    monkeypatch.setattr(watcher, "MISSING_POLL_S", 0.1)
    monkeypatch.setattr(watcher, "SERVED_POLL_S", 0.5)
    kube.install_crd(build_crd())
    make_ptj(kube, "one")
    async with running(kube, tmp_path) as op:
        await op.until_ready()
        kube.call(
            lambda: kube.store.delete("customresourcedefinitions.apiextensions.k8s.io", None, PTJS)
        )
        kube.drop_watches()
        await op.until(lambda: not op.operator._watcher._watches)

        kube.install_crd(build_crd())
        make_ptj(kube, "two")
        await op.until(lambda: TWO in op.reconcile.keys)
        await op.end()


async def test_lost_events_are_made_up_for_by_the_resync(kube, tmp_path, monkeypatch):
    monkeypatch.setattr(namespace_watch.NamespaceWatch, "_deliver_job", lambda *_: None)
    kube.install_crd(build_crd())
    async with running(kube, tmp_path, resyncSeconds=0.5) as op:
        await op.until_ready()

        make_ptj(kube, "one")
        await op.until(lambda: ONE in op.reconcile.keys)
        await op.end()


async def test_dead_watch_is_reported(kube, tmp_path, monkeypatch):
    monkeypatch.setattr("cosmos_operator.controller.watch_audit.MIN_AGE_S", 0.2)
    monkeypatch.setattr(watcher, "MAX_LAG_S", 0.5)
    kube.install_crd(build_crd())
    async with running(kube, tmp_path, resyncSeconds=0.2) as op:
        await op.until_ready()
        await asyncio.sleep(1)
        assert list(op.operator.problems()) == []

        monkeypatch.setattr(watch_audit.WatchAudit, "note", lambda *_, **__: None)
        make_ptj(kube, "one")
        await op.until(lambda: list(op.operator.problems()))
        (problem,) = op.operator.problems()
        await op.end()

    assert problem.startswith("watch of PostTrainingJob: no event for a change that is ")


async def test_pass_that_hangs_is_reported(kube, tmp_path, monkeypatch):
    kube.install_crd(build_crd())
    make_ptj(kube, "one")

    async def hang(_: JobKey) -> None:
        await asyncio.Event().wait()

    async with running(kube, tmp_path) as op:
        op.reconcile.act = hang
        await op.until(lambda: op.reconcile.keys)
        assert list(op.operator.problems()) == []
        monkeypatch.setattr(manager, "MAX_PASS_S", 0.0)
        (problem,) = op.operator.problems()
        await op.end()

    assert problem.startswith("a pass over a job has run for ")


async def test_failed_passes_are_counted_and_tried_again(kube, tmp_path):
    kube.install_crd(build_crd())
    make_ptj(kube, "one")

    async def fail(_: JobKey) -> None:
        raise ClusterUnavailable("busy")

    async with running(kube, tmp_path) as op:
        op.reconcile.act = fail
        await op.until(lambda: len(op.reconcile.keys) > 1)
        text = op.operator._metrics.render().decode()
        await op.end()

    assert "cosmos_reconcile_errors_total 0.0" not in text
    assert "cosmos_leader 1.0" in text


async def test_second_operator_waits_and_takes_over_at_once(kube, tmp_path):
    kube.install_crd(build_crd())
    make_ptj(kube, "one")
    async with running(kube, tmp_path) as first, running(kube, tmp_path) as second:
        await first.until(
            lambda: any(not list(each.operator.obstacles()) for each in (first, second))
        )
        (leader,) = [each for each in (first, second) if not list(each.operator.obstacles())]
        other = second if leader is first else first
        assert list(other.operator.obstacles()) == ["the lease is not held"]
        assert list(other.operator.problems()) == []
        assert other.reconcile.keys == []

        await leader.end()
        began = time.monotonic()
        await other.until_ready()
        assert time.monotonic() - began < 6
        await other.end()


async def test_lost_lease_ends_the_operator_and_its_passes(kube, tmp_path):
    kube.install_crd(build_crd())
    make_ptj(kube, "one")
    cancelled = []

    async def hang(key: JobKey) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(key)
            raise

    async with running(kube, tmp_path) as op:
        op.reconcile.act = hang
        await op.until(lambda: op.reconcile.keys)

        def rob() -> None:
            lease = kube.store.get("leases.coordination.k8s.io", "default", "cosmos-operator")
            spec = {**lease["spec"], "holderIdentity": "robber"}
            kube.store.update("leases.coordination.k8s.io", {**lease, "spec": spec})

        kube.call(rob)
        with pytest.raises(LeaseLost, match="taken by robber"):
            await asyncio.wait_for(asyncio.shield(op.task), 10)

    assert cancelled == [ONE]


# As a program.

PROGRAM = """
import sys
from cosmos_operator.controller.manager import main

def make_handle(_):
    async def reconcile(key):
        sys.stderr.write(f"pass {key}\\n")
    return reconcile

sys.exit(main(make_handle=make_handle))
"""


def test_sigterm_ends_the_program_within_seconds(kube, tmp_path):
    kube.install_crd(build_crd())
    make_ptj(kube, "one")
    settings = tmp_path / "settings.yaml"
    settings.write_text(json.dumps(SETTINGS))
    kubeconfig = kube.write_kubeconfig(tmp_path / "kubeconfig")
    command = [
        sys.executable,
        "-W",
        "error",
        "-c",
        PROGRAM,
        "--settings",
        settings,
        "--kubeconfig",
        kubeconfig,
    ]
    with subprocess.Popen(
        [*map(str, command), "--log-format", "json"], stderr=subprocess.PIPE, text=True
    ) as process:
        lines = []
        for line in process.stderr:
            lines.append(line)
            if "delivered all existing objects" in line:
                break
        while not kube.calls("watch", "posttrainingjobs"):
            time.sleep(0.05)
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        lines += process.stderr.readlines()
        assert process.wait(10) == 0, lines
    assert time.monotonic() - began < 3

    assert "pass PostTrainingJob/default/one\n" in lines
    messages = [json.loads(line)["message"] for line in lines if line.startswith("{")]
    assert messages[-1] == "stopped"
    lease = kube.get("leases.coordination.k8s.io", "cosmos-operator")
    assert lease is not None
    assert lease["spec"]["holderIdentity"] == ""


def test_wrong_settings_are_told_with_exit_code_2(tmp_path, capsys):
    settings = tmp_path / "settings.yaml"
    settings.write_text("workerImages: x")

    with isolated_logging():
        assert main(["--settings", str(settings)]) == 2
        assert main(["--settings", str(tmp_path / "absent")]) == 2

    text = capsys.readouterr().err
    assert "workerImages" in text
    assert "absent: no such file" in text


def test_cluster_that_is_not_configured_is_told_with_exit_code_2(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)

    with isolated_logging():
        assert main(["--kubeconfig", str(tmp_path / "absent")]) == 2

    assert "absent: no such file; run in a pod, or give --kubeconfig" in capsys.readouterr().err


class isolated_logging:  # noqa: N801 - used as a function
    """Undoes what ``main`` does to the logging of the process."""

    def __enter__(self) -> None:
        root = logging.getLogger()
        self.handlers, self.level = root.handlers[:], root.level

    def __exit__(self, *_: object) -> None:
        root = logging.getLogger()
        root.handlers[:] = self.handlers
        root.setLevel(self.level)
        for name in ("cosmos_operator", *manager.LIBRARY_LOG_LEVELS):
            logging.getLogger(name).setLevel(logging.NOTSET)


def record(exception: Exception | None = None) -> logging.LogRecord:
    error = (type(exception), exception, None) if exception else None
    made = logging.LogRecord("cosmos_operator.x", logging.INFO, "f", 1, "a %s", ("b",), error)
    made.created = 1769860800.9
    return made


def test_text_lines_look_like_those_of_the_worker():
    line = TextFormatter("%(asctime)s %(levelname)s %(name)s %(message)s").format(record())

    assert line == "2026-01-31T12:00:00Z INFO cosmos_operator.x a b"


def test_json_lines_carry_everything():
    line = json.loads(JsonFormatter().format(record(ValueError("bad"))))

    assert line == {
        "time": "2026-01-31T12:00:00.900000+00:00",
        "level": "INFO",
        "logger": "cosmos_operator.x",
        "message": "a b",
        "error": "ValueError: bad",
    }


def test_import_is_light():
    script = "import sys, cosmos_operator.controller.manager; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)
