"""The number of requests over the life of one job, on an API server in this process."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.fakekube import FakeKube
from support.operator_process import OperatorProcess
from support.passes import make_claim
from support.scenario_world import ITEM, FakeWorld

from cosmos_operator.api.crd import build_crd

MAX_REQUESTS = 40
"""Most requests over the life of a job of eight stages and one inference item."""


@pytest.fixture
def world(tmp_path: Path) -> Iterator[FakeWorld]:
    images = ("cosmos-worker:test", "cosmos-worker-cpu:test")
    with FakeKube(kinds=(), images=images) as kube:
        kube.install_crd(build_crd())
        make_claim(kube)
        world = FakeWorld(tmp_path, kube)
        # intervals as the chart has them: those of other tests are short
        world._operator = OperatorProcess(
            tmp_path, kube.write_kubeconfig(tmp_path / "kubeconfig"), pollSeconds=15,
            progressSeconds=30,
        )  # fmt: skip
        world.start_operator()
        kinds = {
            "posttrainingjobs",
            "jobs",
            "pods",
            "configmaps",
            "services",
            "persistentvolumeclaims",
        }
        world.wait(
            "everything is watched",
            lambda: kinds <= {call.resource.plural for call in kube.calls("watch")},
        )
        yield world
        world.stop()


def test_requests_over_the_life_of_a_job(world: FakeWorld) -> None:
    before = len(world.kube.calls())
    world.submit("one", inference=[ITEM])
    polls = 0

    def has_succeeded() -> bool:
        nonlocal polls
        polls += 1
        return bool(world.status("one").get("state") == "Succeeded")

    world.wait("the job has succeeded", has_succeeded)

    found = Counter(
        f"{call.verb} {call.resource.plural} {call.subresource}".strip()
        for call in world.kube.calls()[before:]
        if call.resource.plural != "leases"
    )
    found -= Counter({"get posttrainingjobs": polls, "create posttrainingjobs": 1})
    assert found["create jobs"] == found["create configmaps"] == 9, "eight stages and the item"
    assert found.total() < MAX_REQUESTS, found
    assert found["create services"] == 1, found
    assert found["delete services"] == 0, found
    assert found["list events"] == found["list nodes"] == found["get pods"] == 0, found
