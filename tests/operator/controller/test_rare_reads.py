from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from typing import Any

from cosmos_operator.controller.rare_reads import CLASSES_S, NODES_S, RareReads
from cosmos_operator.kube.kinds import JobKey
from cosmos_operator.kube.objects import format_time
from cosmos_operator.settings import Settings

JOB = JobKey("PostTrainingJob", "n", "one")
START = datetime(2026, 1, 31, 12, tzinfo=UTC)
POLL_S, STALL_S = 15, 600


class Rig:
    """Reads with a clock that the test moves, and an API server that counts."""

    def __init__(self) -> None:
        self.now, self.calls = 1000.0, []
        self.log: str | None = "line"
        self.reads = RareReads(self, Settings(), lambda: self.now)

    async def read_log(self, *arguments: Any) -> str | None:
        self.calls.append(("log", arguments[1]))
        return self.log

    async def get(self, kind: str, _: None, name: str) -> dict[str, Any] | None:
        self.calls.append((kind, name))
        return {"metadata": {"name": name}} if name == "there" else None

    async def list(self, kind: str, *_: Any, **more: Any) -> list[dict[str, Any]]:
        self.calls.append((kind, more.get("fields", "")))
        if kind == "Node":
            return [{"metadata": {"name": "a", "managedFields": [1]}, "status": {"images": [1]}}]
        return [{"metadata": {}, "message": "quota  is used", "lastTimestamp": "t"}]

    def at(self) -> datetime:
        return START + timedelta(seconds=self.now - 1000)

    async def logs(self, *pods: dict[str, Any], stall_s: float = STALL_S) -> dict[str, str]:
        return await self.reads.logs(JOB, pods, self.at(), stall_s)

    async def times_of_reads(self, seconds: int, stall_s: float = STALL_S) -> list[int]:
        """Seconds since the pod's start at which its log is read, with a pass every second."""
        found = []
        for second in range(seconds):
            self.now, before = 1000.0 + second, len(self.calls)
            await self.logs(pod(), stall_s=stall_s)
            if len(self.calls) > before:
                found.append(second)
        return found


def pod(name: str = "p", phase: str = "Running") -> dict[str, Any]:
    return {
        "metadata": {"name": name, "uid": f"u-{name}"},
        "spec": {"containers": [{"name": "worker"}]},
        "status": {"phase": phase, "startTime": format_time(START)},
    }


async def test_log_is_read_less_often_the_longer_a_pod_runs():
    times = await Rig().times_of_reads(400)

    gaps = [after - before for before, after in itertools.pairwise(times)]
    assert times[0] >= POLL_S * 0.75
    assert gaps == sorted(gaps)
    assert gaps[-1] <= 4 * POLL_S
    assert len(times) < 12


async def test_log_that_stands_still_is_read_at_every_pass_before_it_counts_as_stalled():
    times = await Rig().times_of_reads(300, stall_s=300)

    assert times[-10:] == list(range(290, 300))


async def test_log_of_a_pod_that_has_long_been_running_is_read_at_once():
    """As after a restart of the operator: the last step may be younger than the status says."""
    rig = Rig()
    rig.now += 3600

    assert await rig.logs(pod()) == {"p": "line"}


async def test_log_is_empty_before_it_is_due_and_absent_where_there_is_none():
    rig = Rig()
    assert await rig.logs(pod()) == {"p": ""}

    rig.now, rig.log = 1100.0, None
    assert await rig.logs(pod()) == {}
    rig.now += 1
    assert await rig.logs(pod()) == {}, "until the next try"
    rig.now, rig.log = 1300.0, "back"
    assert await rig.logs(pod()) == {"p": "back"}


async def test_log_is_read_once_more_at_the_end_of_its_pod():
    rig = Rig()
    await rig.logs(pod())

    for _ in range(3):
        assert await rig.logs(pod(phase="Succeeded")) == {"p": "line"}

    assert rig.calls == [("log", "p")]


async def test_logs_of_pods_that_are_gone_are_forgotten():
    rig = Rig()
    rig.now += 3600
    await rig.logs(pod("a"))
    await rig.logs(pod("b"))
    rig.calls.clear()

    await rig.logs(pod("a"))

    assert rig.calls == [("log", "a")]


async def test_nodes_are_shared_for_a_while_and_trimmed():
    rig = Rig()
    (node,) = await rig.reads.nodes()
    await rig.reads.nodes()
    assert (node["metadata"], node["status"]) == ({"name": "a"}, {})
    assert len(rig.calls) == 1

    rig.now += NODES_S
    await rig.reads.nodes()
    assert len(rig.calls) == 2


async def test_storage_classes_are_shared_for_a_while_even_absent_ones():
    rig = Rig()
    for _ in range(2):
        found = await rig.reads.storage_classes(["there", "absent"])
        assert set(found) == {"there"}
    assert len(rig.calls) == 2

    rig.now += CLASSES_S
    await rig.reads.storage_classes(["there"])
    assert len(rig.calls) == 3


async def test_events_of_an_object_are_read_once_a_poll_interval():
    rig = Rig()
    for _ in range(2):
        found = await rig.reads.warnings(JOB, [("Pod", pod())])
        assert found == {("Pod", "p"): "quota is used"}
    assert rig.calls == [("Event", "involvedObject.kind=Pod,involvedObject.name=p,type=Warning")]

    rig.now += POLL_S
    await rig.reads.warnings(JOB, [("Pod", pod())])
    assert len(rig.calls) == 2
