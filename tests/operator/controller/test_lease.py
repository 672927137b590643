from __future__ import annotations

import asyncio
import copy
from typing import Any

import pytest

from cosmos_operator.controller import lease as module
from cosmos_operator.controller.lease import (
    DURATION_S,
    Lease,
    LeaseLost,
    own_identity,
)
from cosmos_operator.errors import ClusterUnavailable
from cosmos_operator.settings import LeaseSettings

SETTINGS = LeaseSettings(name="cosmos", namespace="here")


class LeaseStore:
    """One Lease, with resourceVersions."""

    def __init__(self) -> None:
        self.lease: dict[str, Any] | None = None
        self.version = 0
        self.error: Exception | None = None
        self.hangs = False

    async def _arrive(self) -> None:
        if self.hangs:
            await asyncio.Event().wait()
        if self.error is not None:
            raise self.error

    def _save(self, manifest: dict[str, Any]) -> None:
        self.version += 1
        self.lease = copy.deepcopy(manifest)
        self.lease["metadata"]["resourceVersion"] = str(self.version)

    async def get(self, kind: str, namespace: str | None, name: str) -> dict[str, Any] | None:
        assert (kind, namespace, name) == ("Lease", "here", "cosmos")
        await self._arrive()
        return copy.deepcopy(self.lease)

    async def create(self, manifest: dict[str, Any]) -> dict[str, Any] | None:
        await self._arrive()
        if self.lease is not None:
            return None
        self._save(manifest)
        return self.lease

    async def replace(self, manifest: dict[str, Any]) -> bool:
        await self._arrive()
        current = self.lease and self.lease["metadata"]["resourceVersion"]
        if manifest["metadata"]["resourceVersion"] != current:
            return False
        self._save(manifest)
        return True

    @property
    def spec(self) -> dict[str, Any]:
        assert self.lease is not None
        return self.lease["spec"]


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        real_sleep = asyncio.sleep

        async def sleep(seconds: float) -> None:
            self.now += seconds
            await real_sleep(0)

        monkeypatch.setattr(module.asyncio, "sleep", sleep)
        self.pause = real_sleep

    async def settle(self) -> None:
        for _ in range(200):
            await self.pause(0)

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    return Clock(monkeypatch)


async def test_free_lease_is_taken(clock):
    store = LeaseStore()
    lease = Lease(store, SETTINGS, "me", clock)
    assert lease.age_s is None

    await lease.acquire()

    assert lease.age_s == 0
    assert store.spec["holderIdentity"] == "me"
    assert store.spec["leaseDurationSeconds"] == 15
    assert store.spec["renewTime"].endswith("Z")
    assert len(store.spec["renewTime"]) == len("2026-01-31T12:00:00.000000Z")


async def test_lease_of_another_is_taken_when_it_was_not_renewed_for_its_duration(clock):
    store = LeaseStore()
    await Lease(store, SETTINGS, "other", clock).acquire()
    clock.now = 1000.0

    await Lease(store, SETTINGS, "me", clock).acquire()

    assert clock.now >= 1000 + DURATION_S, "its age counts from when we first saw it"
    assert store.spec["holderIdentity"] == "me"
    assert store.spec["leaseTransitions"] == 1


async def test_lease_that_is_renewed_is_waited_for(clock):
    store = LeaseStore()
    other = Lease(store, SETTINGS, "other", clock)
    await other.acquire()
    waiting = asyncio.create_task(Lease(store, SETTINGS, "me", clock).acquire())

    while clock.now < 10 * DURATION_S:
        await other._acquire_or_renew()
        await clock.pause(0)

    assert not waiting.done()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


async def test_released_lease_is_free_at_once(clock):
    store = LeaseStore()
    first = Lease(store, SETTINGS, "first", clock)
    await first.acquire()
    await first.release()
    assert first.age_s is None

    await Lease(store, SETTINGS, "me", clock).acquire()

    assert (clock.now, store.spec["holderIdentity"]) == (0, "me")


async def test_next_container_of_the_same_pod_need_not_wait(clock):
    store = LeaseStore()
    await Lease(store, SETTINGS, "pod_uid", clock).acquire()

    await Lease(store, SETTINGS, "pod_uid", clock).acquire()

    assert clock.now == 0
    assert store.spec["leaseTransitions"] == 0


async def test_keeping_renews_and_ends_when_another_has_it(clock):
    store = LeaseStore()
    lease = Lease(store, SETTINGS, "me", clock)
    await lease.acquire()
    keeping = asyncio.create_task(lease.renew_until_lost())
    await clock.settle()
    assert clock.now > 3 * DURATION_S
    assert lease.age_s is not None
    assert lease.age_s <= 2
    assert not keeping.done()

    store.spec["holderIdentity"] = "other"

    with pytest.raises(LeaseLost, match="taken by other"):
        await keeping
    assert lease.age_s is None
    assert LeaseLost.exit_code == 74


async def test_lease_that_cannot_be_renewed_is_lost_before_others_may_take_it(clock):
    store = LeaseStore()
    lease = Lease(store, SETTINGS, "me", clock)
    await lease.acquire()
    store.error = ClusterUnavailable("down")

    with pytest.raises(LeaseLost, match="could not be renewed for 10 s"):
        await lease.renew_until_lost()

    assert clock.now < DURATION_S


async def test_request_that_hangs_does_not_outlast_the_lease(monkeypatch):
    monkeypatch.setattr(module, "RENEW_DEADLINE_S", 0.2)
    monkeypatch.setattr(module, "RETRY_S", 0.05)
    store = LeaseStore()
    lease = Lease(store, SETTINGS, "me")
    await lease.acquire()
    store.hangs = True

    with pytest.raises(LeaseLost):
        await asyncio.wait_for(lease.renew_until_lost(), 5)


async def test_short_outage_is_survived(clock):
    store = LeaseStore()
    lease = Lease(store, SETTINGS, "me", clock)
    await lease.acquire()
    keeping = asyncio.create_task(lease.renew_until_lost())
    store.error = ClusterUnavailable("down")
    while clock.now < 5:
        await clock.pause(0)
    store.error = None
    await clock.settle()

    assert clock.now > 30
    assert not keeping.done()
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)


async def test_acquiring_outlasts_an_outage(clock):
    store = LeaseStore()
    store.error = ClusterUnavailable("down")
    acquiring = asyncio.create_task(Lease(store, SETTINGS, "me", clock).acquire())
    await clock.settle()
    assert not acquiring.done()

    store.error = None

    await asyncio.wait_for(acquiring, 5)


async def test_release_leaves_the_lease_of_another_alone(clock):
    store = LeaseStore()
    lease = Lease(store, SETTINGS, "me", clock)
    await lease.acquire()
    store.spec["holderIdentity"] = "other"

    await lease.release()

    assert store.spec["holderIdentity"] == "other"


def test_identity_is_that_of_the_pod_or_of_the_process(monkeypatch):
    monkeypatch.delenv("POD_NAME", raising=False)
    assert own_identity() != own_identity()

    monkeypatch.setenv("POD_NAME", "operator-1")
    monkeypatch.setenv("POD_UID", "u")
    assert own_identity() == "operator-1_u"
