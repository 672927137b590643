"""Rules that no sequence of faults may break, checked at every request and at every change of an object."""

from __future__ import annotations

from collections import Counter

from cosmos_operator.api.labels import (
    ATTEMPT_LABEL,
    JOB_LABEL,
    KEY_LABEL,
    MANAGED_BY,
    MANAGED_LABEL,
    STAGE_LABEL,
)
from cosmos_operator.controller.lease import DURATION_S
from cosmos_operator.controller.trim import has_ended
from cosmos_operator.kube.client import Answer
from cosmos_operator.kube.kinds import JOB_KINDS, Manifest
from cosmos_operator.kube.objects import labels_of, owner_uids
from cosmos_operator.kube.pods import is_over
from support.crash_sweep.clock import SimulatedLoop
from support.crash_sweep.model_client import PASS, ModelClient, is_write
from support.crash_sweep.model_server import Change, ModelServer, Request

DELETED_KINDS = ("Job", "ConfigMap", "Service")
"""Kinds of which the operator may delete objects when nobody has asked for the deletion of a job."""


class Invariants:
    """The rules, and what has broken them."""

    def __init__(self, loop: SimulatedLoop, server: ModelServer) -> None:
        self.loop, self.server = loop, server
        self.violations: list[str] = []
        self.requests: Counter[str] = Counter()
        """Job → requests of the passes over it."""
        self.deleted_by_people: set[str] = set()
        """Names of workloads that others than the operator have deleted."""
        self._ends: dict[str, str] = {}
        self._holder: tuple[str, float] = ("", 0.0)
        self._begun: set[str] = set()
        server.listeners.append(self.notice)

    def broken(self, text: str) -> None:
        """Take down that a rule is broken."""
        self.violations.append(f"after {self.loop.time():.1f} s: {text}")

    # --- requests ------------------------------------------------------------------------------

    def sent(self, client: ModelClient, request: Request) -> None:
        """Check a request when it is sent."""
        key = PASS.get()
        if key is not None:
            self.requests[key.name] += 1
        if not is_write(request):
            return
        holder, renewed_s = self._holder
        if holder != client.name or self.loop.time() - renewed_s > DURATION_S:
            self.broken(
                f"{client.name} sends {request.verb} {request.name}, but the Lease is held by {holder!r}"
            )
        found = self.server.get(request.kind, request.name)
        if request.method == "DELETE" and found is not None:
            self._check_deletion(request, found)
        if request.method == "PATCH" and "ownerReferences" in request.body.get("metadata", {}):
            self._check_owners(request)

    def _check_deletion(self, request: Request, found: Manifest) -> None:
        if request.kind not in DELETED_KINDS or labels_of(found).get(MANAGED_LABEL) != MANAGED_BY:
            self.broken(f"{request.kind} {request.name} is deleted, and nobody asked for it")
        seen = (request.body.get("preconditions") or {}).get("uid")
        if not seen:
            self.broken(f"{request.kind} {request.name} is deleted whatever its uid is")

    def _check_owners(self, request: Request) -> None:
        key = PASS.get()
        job = self.server.get(key.kind, key.name) if key is not None else None
        for owner in request.body["metadata"]["ownerReferences"]:
            if job is not None and owner.get("uid") != job["metadata"]["uid"]:
                self.broken(
                    f"a pass over {key} changes the owner {owner.get('uid')} of {request.kind} {request.name}"
                )

    def answered(self, client: ModelClient, request: Request, answer: Answer) -> None:
        """Check what a request has done."""
        if request.kind == "Lease" and request.method in ("POST", "PUT") and answer.is_success:
            spec = request.body["spec"]
            self._holder = (spec["holderIdentity"], self.loop.time())

    # --- changes -------------------------------------------------------------------------------

    def notice(self, change: Change) -> None:
        """Check a change of an object."""
        if change.kind in JOB_KINDS:
            self._check_end(change.body)
        elif change.kind == "Pod" and change.type != "DELETED":
            self._check_pods(change.body)
        elif change.kind == "Job":
            self._check_job(change)

    def _check_end(self, job: Manifest) -> None:
        name, status = job["metadata"]["name"], job.get("status") or {}
        facts = f"{status.get('state')} {[(one['number'], one['outcome']) for one in status.get('attempts', ())]}"
        before = (
            self._ends.setdefault(name, facts) if has_ended(job) else self._ends.get(name, facts)
        )
        if before != facts:
            self.broken(f"{name} had ended as {before}, and is now {facts}")

    def _check_pods(self, pod: Manifest) -> None:
        if pod["status"]["phase"] != "Running":
            return
        labels = labels_of(pod)
        names = (JOB_LABEL,) if ATTEMPT_LABEL in labels else (STAGE_LABEL, KEY_LABEL)
        if ATTEMPT_LABEL not in labels and JOB_LABEL in labels:
            return
        for other in self.server.all("Pod"):
            found = labels_of(other)
            is_same_work = all(found.get(name) == labels.get(name) for name in names)
            is_same_kind = (ATTEMPT_LABEL in found) == (ATTEMPT_LABEL in labels)
            is_other = other["metadata"]["uid"] != pod["metadata"]["uid"]
            if is_other and is_same_work and is_same_kind and other["status"]["phase"] == "Running":
                what = "attempts" if ATTEMPT_LABEL in labels else "preparations of the same content"
                self.broken(
                    f"two {what} run: {other['metadata']['name']} and {pod['metadata']['name']}"
                )

    def _check_job(self, change: Change) -> None:
        job, before = change.body, change.before
        name = job["metadata"]["name"]
        if change.type == "ADDED" and ATTEMPT_LABEL in labels_of(job):
            if name in self._begun and name not in self.deleted_by_people:
                self.broken(f"attempt {name} is begun twice")
            self._begun.add(name)
        is_deletion = "deletionTimestamp" in job["metadata"] or change.type == "DELETED"
        was_deletion = before is not None and "deletionTimestamp" in before["metadata"]
        if is_deletion and not was_deletion and name not in self.deleted_by_people:
            self._check_users(job)

    def _check_users(self, job: Manifest) -> None:
        """A Job with a running pod goes, which another job than that of the pass still uses."""
        key = PASS.get()
        uid = job["metadata"]["uid"]
        active = [
            one for one in self.server.all("Pod") if uid in owner_uids(one) and not is_over(one)
        ]
        users = [
            one["metadata"]["name"]
            for kind in JOB_KINDS
            for one in self.server.all(kind)
            if one["metadata"]["uid"] in owner_uids(job) and not has_ended(one)
        ]
        others = [name for name in users if key is None or name != key.name]
        if active and others and key is not None:
            self.broken(
                f"a pass over {key.name} deletes Job {job['metadata']['name']}, which {others} use"
            )
