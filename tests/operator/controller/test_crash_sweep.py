"""The operator under random schedules of crashes and faults: no rule is broken, and planted regressions are found.

``make operator-sweep SCHEDULES=5000 SEED=1`` runs more; what was run: docs/reliability.md.
"""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from support.crash_sweep.machine import CrashSweep
from support.crash_sweep.sweep import run_sweep

from cosmos_operator.api.base import KIND
from cosmos_operator.api.labels import ATTEMPT_LABEL, JOB_LABEL
from cosmos_operator.controller.carry_out import Executor
from cosmos_operator.controller.lease import RETRY_S, Lease
from cosmos_operator.decide.training import attempts
from cosmos_operator.errors import ClusterUnavailable
from cosmos_operator.kube.objects import labels_of, owner_uids
from cosmos_operator.kube.server_clock import ServerClock

TESTS = Path(__file__).parents[2]
SEED = 16
SCHEDULES = 20
"""Schedules without a planted regression; about half a second of one core each."""
ENOUGH = 40
"""Schedules within which a planted regression is found."""


def found_with_plant(seed: int = SEED) -> str:
    with pytest.raises(AssertionError) as error:
        run_sweep(ENOUGH, seed)
    return str(error.value)


def test_no_rule_is_broken():
    """In a process whose sets have a fixed order, so that the schedules are the same every time."""
    program = ["-m", "support.crash_sweep", "--schedules", str(SCHEDULES), "--seed", str(SEED)]
    ended = subprocess.run(
        [sys.executable, *program],
        env=os.environ | {"PYTHONHASHSEED": "0", "PYTHONPATH": str(TESTS)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert ended.returncode == 0, ended.stdout + ended.stderr
    *_, told, verdict = ended.stdout.splitlines()
    totals = {name: int(number) for name, number in re.findall(r"([^;]+): (\d+)(?:; |$)", told)}
    assert verdict.startswith("no rule was broken")
    assert totals["schedules"] >= SCHEDULES  # hypothesis may run one more, which it does not count
    assert totals.get("jobs Succeeded", 0) + totals.get("jobs Failed", 0) == 2 * totals["schedules"]
    assert len([name for name in totals if name.startswith("fault: ")]) >= 15, totals


def test_seed_gives_the_same_schedules():
    assert run_sweep(2, SEED + 1) == run_sweep(2, SEED + 1)


def test_operator_that_does_not_notice_the_loss_of_its_lease_is_found(monkeypatch):
    async def renew(self):
        while True:
            await asyncio.sleep(RETRY_S)
            try:
                await self._acquire_or_renew()
            except ClusterUnavailable:
                continue

    monkeypatch.setattr(Lease, "renew_until_lost", renew)

    assert "but the Lease is held by" in found_with_plant()


def test_owner_reference_of_another_job_that_is_taken_away_is_found(monkeypatch):
    original = Executor._give_up

    async def give_up(self, key, action):
        found = await self._cluster.get(action.kind, key.namespace, action.name)
        others = sorted(owner_uids(found) - {action.owner_uid}) if found is not None else []
        await original(self, key, replace(action, owner_uid=others[0]) if others else action)

    monkeypatch.setattr(Executor, "_give_up", give_up)

    assert "changes the owner" in found_with_plant()


def test_attempt_that_is_begun_twice_is_found(monkeypatch):
    original = attempts.recall_attempts

    def recall(pass_, backend):
        original(pass_, backend)
        if pass_.attempts and pass_.attempts[-1].outcome not in ("Running", "Succeeded"):
            pass_.attempts = ()

    monkeypatch.setattr(attempts, "recall_attempts", recall)

    assert "is begun twice" in found_with_plant()


def test_pass_that_raises_an_error_is_found(monkeypatch):
    original = attempts.count_gpu_hours

    def count(pass_, stage, gang, number):
        next(one for one in pass_.attempts if one.number == number)  # as it once was
        original(pass_, stage, gang, number)

    monkeypatch.setattr(attempts, "count_gpu_hours", count)

    assert "raised RuntimeError: coroutine raised StopIteration" in found_with_plant()


def outcomes_with_clock(seconds: float) -> list[str]:
    """Outcomes of the attempts of a training that is evicted once, with a machine's clock that is wrong."""
    sweep = CrashSweep()
    sweep.begin(seed=0, delay_s=0.0)
    for replica in sweep.replicas:
        replica.clock_s = seconds
    while not any(ATTEMPT_LABEL in labels_of(one) for one in sweep.workloads.running()):
        sweep.loop.run_for(5)
    training = next(one for one in sweep.workloads.running() if ATTEMPT_LABEL in labels_of(one))
    sweep.workloads.evict(training)
    sweep.loop.run_for(30)
    sweep.teardown()
    job = sweep.server.get(KIND, labels_of(training)[JOB_LABEL])
    return [one["outcome"] for one in job["status"]["attempts"]]


@pytest.mark.parametrize("seconds", [-3600, 3600])
def test_wrong_clock_of_the_machine_neither_ends_attempts_nor_begins_them(seconds):
    assert outcomes_with_clock(seconds) == ["Evicted", "Succeeded"]


def test_clock_of_the_machine_that_is_believed_is_found(monkeypatch):
    monkeypatch.setattr(ServerClock, "note", lambda self, date: None)

    with pytest.raises(AssertionError, match="two attempts run"):
        outcomes_with_clock(3600)
