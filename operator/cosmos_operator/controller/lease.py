"""The Lease that keeps a second operator from acting: acquired before anything is done; its loss ends the process.

The leader election of the Kubernetes client library is not used: it writes local time as if it were UTC, ends at a
refused connection, and lets a request hang for longer than the lease lasts.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol

from cosmos_operator.errors import ClusterUnavailable, OperatorError
from cosmos_operator.kube.kinds import KINDS, Manifest
from cosmos_operator.settings import LeaseSettings
from cosmos_worker.errors import EXIT_RETRY

DURATION_S = 15.0
"""Seconds without a renewal after which others may take the lease."""
RENEW_DEADLINE_S = 10.0
"""Seconds without a renewal after which we stop, well before others may take the lease."""
RETRY_S = 2.0
"""Seconds between two tries to acquire or renew the lease."""

logger = logging.getLogger(__name__)


class LeaseLost(OperatorError):  # noqa: N818 - it is a state, not a mistake
    """The lease is lost: another operator may act from now on."""

    exit_code = EXIT_RETRY


class LeaseStore(Protocol):
    """The requests that a lease needs."""

    async def get(self, kind: str, namespace: str | None, name: str) -> Manifest | None:
        """An object, or None if it is absent."""

    async def create(self, manifest: Manifest) -> Manifest | None:
        """Create an object; None if one of that name exists already."""

    async def replace(self, manifest: Manifest) -> bool:
        """Replace an object; False if it is gone or is no longer at this resourceVersion."""


def own_identity() -> str:
    """A name that no other running operator has.

    In a pod that knows its name and uid, a restarted container has the same identity as the one before it, which has
    certainly ended, and need not wait.
    """
    pod, uid = os.environ.get("POD_NAME"), os.environ.get("POD_UID")
    if pod and uid:
        return f"{pod}_{uid}"
    return f"{socket.gethostname()}_{uuid.uuid4()}"


class Lease:
    """The Lease of an installation, as one operator acquires, renews and releases it.

    Args:
        store: the API server.
        settings: name and namespace of the Lease.
        identity: name of this operator.
        clock: a clock that never goes back, in seconds.
    """

    def __init__(
        self,
        store: LeaseStore,
        settings: LeaseSettings,
        identity: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._settings = settings
        self._identity = identity
        self._clock = clock
        self._renewed_at: float | None = None
        self._seen: tuple[str, str] = ("", "")
        self._seen_at = clock()

    @property
    def age_s(self) -> float | None:
        """Seconds since the last renewal; None while the lease is not ours."""
        return None if self._renewed_at is None else self._clock() - self._renewed_at

    async def acquire(self) -> None:
        """Wait until the lease is ours."""
        holder = ""
        while True:
            try:
                found = await self._acquire_or_renew()
            except ClusterUnavailable as error:
                logger.warning("cannot read or renew the lease: %s", error)
            else:
                if self._renewed_at is not None:
                    logger.info("lease %s acquired by %s", self._settings.name, self._identity)
                    return
                if found != holder:
                    holder = found
                    logger.info("lease %s is held by %s; waiting", self._settings.name, holder)
            await asyncio.sleep(RETRY_S)

    async def renew_until_lost(self) -> None:
        """Renew the lease for ever.

        Raises:
            LeaseLost: another operator has it, or it could not be renewed in time.
        """
        while True:
            await asyncio.sleep(RETRY_S)
            age_s = self.age_s
            if age_s is None or age_s >= RENEW_DEADLINE_S:
                self._renewed_at = None
                raise LeaseLost(f"the lease could not be renewed for {RENEW_DEADLINE_S:g} s")
            try:
                holder = await self._acquire_or_renew_within(RENEW_DEADLINE_S - age_s)
            except ClusterUnavailable as error:
                logger.warning("cannot read or renew the lease: %s", error)
                continue
            if holder != self._identity:
                self._renewed_at = None
                raise LeaseLost(f"the lease was taken by {holder or 'another operator'}")

    async def release(self) -> None:
        """Release the lease, so that the next operator need not wait for its expiry."""
        if self._renewed_at is None:
            return
        self._renewed_at = None
        lease = await self._store.get("Lease", self._settings.namespace, self._settings.name)
        if lease is not None and lease["spec"].get("holderIdentity") == self._identity:
            lease["spec"] |= {"holderIdentity": "", "leaseDurationSeconds": 1}
            await self._store.replace(lease)

    async def _acquire_or_renew_within(self, seconds: float) -> str:
        """Acquire or renew within a time. Not by wait_for, which may swallow a cancellation before Python 3.12."""
        attempt = asyncio.ensure_future(self._acquire_or_renew())
        try:
            await asyncio.wait((attempt,), timeout=seconds)
        finally:
            attempt.cancel()
        if not attempt.done():
            raise ClusterUnavailable(f"no answer within {seconds:.1f} s")
        return attempt.result()

    async def _acquire_or_renew(self) -> str:
        """Acquire or renew the lease if it is free or ours; returns the identity that holds it."""
        asked_at = self._clock()
        lease = await self._store.get("Lease", self._settings.namespace, self._settings.name)
        if lease is None:
            is_ours = await self._store.create(self._new_manifest()) is not None
            return self._note_renewal(asked_at) if is_ours else ""
        spec = lease.setdefault("spec", {})
        holder = spec.get("holderIdentity") or ""
        if holder not in ("", self._identity) and not self._is_expired(lease):
            return str(holder)
        now = _now()
        if holder != self._identity:
            spec["leaseTransitions"] = spec.get("leaseTransitions", 0) + 1
            spec["acquireTime"] = now
        spec |= {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": int(DURATION_S),
            "renewTime": now,
        }
        return self._note_renewal(asked_at) if await self._store.replace(lease) else str(holder)

    def _note_renewal(self, since: float) -> str:
        self._renewed_at = since
        return self._identity

    def _is_expired(self, lease: Manifest) -> bool:
        """True if the lease has not changed for its duration, on our own clock: those of others may differ."""
        spec = lease["spec"]
        seen = (spec["holderIdentity"], spec.get("renewTime", ""))
        if seen != self._seen:
            self._seen, self._seen_at = seen, self._clock()
        return self._clock() - self._seen_at >= float(spec.get("leaseDurationSeconds", DURATION_S))

    def _new_manifest(self) -> Manifest:
        now = _now()
        return {
            "apiVersion": KINDS["Lease"].api_version,
            "kind": "Lease",
            "metadata": {"name": self._settings.name, "namespace": self._settings.namespace},
            "spec": {
                "holderIdentity": self._identity,
                "leaseDurationSeconds": int(DURATION_S),
                "acquireTime": now,
                "renewTime": now,
                "leaseTransitions": 0,
            },
        }


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
