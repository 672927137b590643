"""Jobs of a namespace: found by name, created, changed, and followed to their end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cosmos_operator.api.base import INFERENCE_KIND, KIND
from cosmos_operator.api.crd import RESOURCE_KINDS
from cosmos_operator.api.parse import load_file
from cosmos_operator.errors import ClusterUnavailable, InvalidSpec
from cosmos_operator.kube.cluster import KubeCluster
from cosmos_operator.kube.kinds import JOB_KINDS, JobKey, Manifest

Outcome = Literal["Succeeded", "Failed"]
POLL_S = 2.0
"""Seconds between two looks at a job that is waited for."""
SHORT = {INFERENCE_KIND: "ij", KIND: "ptj"}
WORDS = {
    word: resource.kind
    for resource in RESOURCE_KINDS
    for word in (resource.kind.lower(), resource.plural, resource.short_name)
}
"""Words for a kind before the slash of KIND/NAME, as kubectl takes them."""


@dataclass(frozen=True)
class Progress:
    """A job at one moment, for people."""

    state: str
    message: str
    outcome: Outcome | None
    """The end of the job; None while it has not ended."""

    @property
    def line(self) -> str:
        """State and message in one line."""
        return f"{self.state}: {self.message}" if self.message else self.state


def title(job: Manifest) -> str:
    """Kind and name of a job, for messages."""
    return f"{job['kind']} {job['metadata']['namespace']}/{job['metadata']['name']}"


def outcome_of(job: Manifest) -> Outcome | None:
    """The end of a job; None if it has not ended, or the operator has not seen its last change yet."""
    status = job.get("status") or {}
    if status.get("observedGeneration") != job["metadata"].get("generation"):
        return None
    for condition in status.get("conditions") or ():
        if condition["type"] in ("Succeeded", "Failed") and condition["status"] == "True":
            outcome: Outcome = condition["type"]
            return outcome
    return None


def progress_of(job: Manifest) -> Progress:
    """State, message and outcome of a job."""
    status = job.get("status") or {}
    state, message = str(status.get("state") or "Pending"), str(status.get("message") or "")
    return Progress(state, message, outcome_of(job))


async def find(cluster: KubeCluster, namespace: str, name: str) -> Manifest:
    """The job of this name.

    Args:
        cluster: the API server.
        namespace: namespace of the job.
        name: name of the job, or KIND/NAME, such as ptj/my-job, inferencejob/my-videos.

    Raises:
        InvalidSpec: no such job, jobs of both kinds, or an unknown kind.
    """
    word, slash, rest = name.rpartition("/")
    if slash and word.lower() not in WORDS:
        known = ", ".join(sorted(WORDS))
        raise InvalidSpec([f"{name}: {word!r} is no kind of job; give NAME or one of {known}"])
    kinds: Sequence[str] = (WORDS[word.lower()],) if slash else JOB_KINDS
    found = [job for kind in kinds if (job := await cluster.get(kind, namespace, rest))]
    if not found:
        names = " or ".join(kinds)
        problem = (
            f"{namespace}/{rest}: no {names} of that name; cosmos ls lists those of a namespace"
        )
        raise InvalidSpec([problem])
    if len(found) > 1:
        problem = f"{namespace}/{rest}: there are jobs of both kinds; write ptj/{rest} or ij/{rest}"
        raise InvalidSpec([problem])
    return found[0]


async def submit(cluster: KubeCluster, namespace: str, file: Path) -> list[Manifest]:
    """Create the jobs of a YAML file, after the checks of ``cosmos validate``; objects of other kinds are left out.

    Returns:
        The jobs as the API server has stored them.

    Raises:
        InvalidSpec: the file is wrong, or a job of that name exists; those before it in the file were created.
        Refused: the API server rejects a job.
    """
    documents = load_file(file).documents
    if problems := [one for document in documents if (one := _wrong_place(document, namespace))]:
        raise InvalidSpec([f"{file}: {one}" for one in problems])
    created = []
    for document in documents:
        metadata = {**document["metadata"], "namespace": namespace}
        job = await cluster.create({**document, "metadata": metadata})
        if job is None:
            name, where = metadata.get("name"), metadata["namespace"]
            short = SHORT[document["kind"]]
            raise InvalidSpec(
                [
                    f"{file}: {document['kind']} {where}/{name} exists already; choose another metadata.name, or "
                    f"remove that job: kubectl delete -n {where} {short} {name}"
                ]
            )
        created.append(job)
    return created


def _wrong_place(document: Mapping[str, Any], namespace: str) -> str:
    """The problem of a job whose file names another namespace; empty if it names none or this one."""
    named = document["metadata"].get("namespace") or namespace
    if named == namespace:
        return ""
    return (
        f"metadata.namespace: {named!r} is not {namespace!r}, to which the job is submitted; give --namespace {named}, "
        "or remove the field"
    )


async def set_suspended(cluster: KubeCluster, job: Manifest, *, suspended: bool) -> bool:
    """Set spec.runPolicy.suspend of a job; False if it was so already.

    Raises:
        InvalidSpec: the job has ended, or is gone.
    """
    outcome = outcome_of(job)
    if outcome is not None:
        verb = "stop" if suspended else "resume"
        raise InvalidSpec([f"{title(job)}: has ended ({outcome}); there is nothing to {verb}"])
    policy = (job.get("spec") or {}).get("runPolicy") or {}
    if bool(policy.get("suspend", False)) is suspended:
        return False
    metadata = job["metadata"]
    changed = await cluster.merge(
        job["kind"],
        metadata["namespace"],
        metadata["name"],
        {"metadata": {"uid": metadata["uid"]}, "spec": {"runPolicy": {"suspend": suspended}}},
    )
    if changed is None:
        raise InvalidSpec([f"{title(job)}: was deleted meanwhile"])
    return True


async def follow(
    cluster: KubeCluster, job: Manifest, poll_s: float = POLL_S
) -> AsyncGenerator[Progress, None]:
    """A job whenever its state or message has changed, until it has ended; short outages are waited for.

    Raises:
        InvalidSpec: the job was deleted.
        ClusterUnavailable: the API server did not answer ten times in a row.
    """
    key = JobKey(job["kind"], job["metadata"]["namespace"], job["metadata"]["name"])
    uid, last, failures = job["metadata"]["uid"], None, 0
    while True:
        try:
            found = await cluster.get(*key)
        except ClusterUnavailable:
            failures += 1
            if failures >= MAX_FAILURES:
                raise
        else:
            failures = 0
            if found is None or found["metadata"]["uid"] != uid:
                raise InvalidSpec([f"{title(job)}: was deleted before it had ended"])
            progress = progress_of(found)
            if progress != last:
                yield progress
            if progress.outcome is not None:
                return
            last = progress
        await asyncio.sleep(poll_s)


MAX_FAILURES = 10
"""Looks at a job in a row that may fail for want of an API server."""
