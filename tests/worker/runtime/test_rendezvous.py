"""Rendezvous of nodes: environments of the backends, torchrun's options, a host name that resolves late."""

from __future__ import annotations

import logging
import time

import pytest

from cosmos_worker.errors import ConfigError, RetryableError
from cosmos_worker.runtime import rendezvous as module
from cosmos_worker.runtime.rendezvous import (
    Rendezvous,
    wait_for_address,
)

PYTORCHJOB = {
    "PET_NNODES": "2",
    "PET_NODE_RANK": "1",
    "PET_MASTER_ADDR": "job-master-0",
    "PET_MASTER_PORT": "23456",
    "MASTER_ADDR": "job-master-0",
    "MASTER_PORT": "23456",
    "WORLD_SIZE": "4",
    "RANK": "1",
}
TRAINJOB = {
    "PET_NNODES": "2",
    "PET_NODE_RANK": "1",
    "PET_MASTER_ADDR": "job-node-0-0.job",
    "PET_MASTER_PORT": "29500",
}
INDEXED_JOB = {
    "PET_NNODES": "2",
    "PET_NODE_RANK": "1",
    "MASTER_ADDR": "job-0.job",
    "MASTER_PORT": "29500",
}


@pytest.mark.parametrize(
    ("environment", "address", "port"),
    [
        (PYTORCHJOB, "job-master-0", 23456),
        (TRAINJOB, "job-node-0-0.job", 29500),
        (INDEXED_JOB, "job-0.job", 29500),
    ],
)
def test_back_ends_are_understood(environment: dict[str, str], address: str, port: int) -> None:
    assert Rendezvous.from_environment(environment) == Rendezvous(2, 1, address, port, 600)


def test_group_of_several_nodes_is_fixed() -> None:
    assert Rendezvous.from_environment(TRAINJOB).torchrun_arguments(8) == [
        "--nnodes=2",
        "--node-rank=1",
        "--master-addr=job-node-0-0.job",
        "--master-port=29500",
        "--rdzv-conf=timeout=600",
        "--nproc-per-node=8",
        "--max-restarts=0",
    ]


def test_one_node_meets_nobody() -> None:
    one = Rendezvous.from_environment({"PET_NNODES": "1", "MASTER_ADDR": "job-master-0"})

    assert one.torchrun_arguments(2) == ["--standalone", "--nproc-per-node=2", "--max-restarts=0"]


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"PET_NNODES": "2"}, r"MASTER_ADDR: not set, and PET_NNODES is 2; set it"),
        ({"PET_NNODES": "1:4"}, r"PET_NNODES: got '1:4'; give a whole number"),
        ({"COSMOS_RENDEZVOUS_SECONDS": "soon"}, r"COSMOS_RENDEZVOUS_SECONDS: got 'soon'; give"),
        ({"COSMOS_RENDEZVOUS_SECONDS": "0"}, r"at least 1"),
    ],
)
def test_wrong_environment_is_explained(environment: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Rendezvous.from_environment(environment)


def test_name_that_comes_late_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "ATTEMPT_INTERVAL_S", 0.01)
    monkeypatch.setattr(module, "LOG_INTERVAL_S", 0.05)
    caplog.set_level(logging.INFO)
    there_at = time.monotonic() + 0.5

    assert wait_for_address(
        Rendezvous(2, 1, "late", 1, 30), lambda: False, lambda address: time.monotonic() > there_at
    )
    assert "waiting for the first node address=late waited_s=0 of_s=30" in caplog.text


def test_name_that_never_comes_is_given_up() -> None:
    with pytest.raises(RetryableError, match="'never' has no address after 1 s; is the pod"):
        wait_for_address(Rendezvous(2, 1, "never", 1, 1), lambda: False, lambda address: False)


def test_stop_ends_the_wait_though_the_resolver_blocks() -> None:
    started = time.monotonic()

    assert not wait_for_address(
        Rendezvous(2, 1, "slow", 1, 30), lambda: True, lambda address: bool(time.sleep(5))
    )
    assert time.monotonic() - started < 2
