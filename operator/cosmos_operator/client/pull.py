"""Results of a job → files in a local folder: each continued where it stopped, and compared by its SHA-256."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from cosmos_operator.api.pod_template_rules import WORKER
from cosmos_operator.client.jobs import title
from cosmos_operator.client.pod import (
    ROOT,
    RunningPod,
    build_workload,
    find_template,
    image_of,
    running,
)
from cosmos_operator.client.results import PARTS, Part, Result, results_of
from cosmos_operator.errors import ClusterUnavailable, InvalidSpec, Refused
from cosmos_operator.kube.cluster import KubeCluster
from cosmos_operator.kube.exec import Executor
from cosmos_operator.kube.kinds import Manifest
from cosmos_operator.plan.volumes import volume_folder

PARTIAL = ".partial"
"""End of the name of a file that is not whole yet."""
MAX_FAILURES = 5
"""Broken connections in a row, without a byte in between, after which a file is given up."""
PAUSE_S = 1.0
"""Seconds before a broken connection is made anew; they double."""
PIECE_BYTES = 1 << 22
IGNORED = ("complete-", ".")
"""Beginnings of the names of files that are the worker's own: marks of finished stages, and files that are written."""

Report = Callable[[str, int, int], None]
"""Told the path of a file, its bytes so far and all of them, whenever more of it has come."""


@dataclass(frozen=True)
class RemoteFile:
    """A file of the claim."""

    path: str
    """Path in the folder of the volume."""
    size: int


@dataclass(frozen=True)
class PulledFile:
    """A file that is whole in the local folder."""

    path: Path
    size: int
    sha256: str
    was_there: bool
    """True if the local folder had it already, with the same content."""


def chosen(job: Manifest, parts: Sequence[Part]) -> list[Result]:
    """The results of these parts that a job has.

    Raises:
        InvalidSpec: there is none yet.
    """
    found = [one for one in results_of(job) if one.part in parts]
    if not found:
        status = job.get("status") or {}
        state, message = status.get("state", "Pending"), status.get("message", "")
        wanted = ", ".join(parts)
        problem = (
            f"{title(job)}: has no {wanted} yet ({state}: {message}); cosmos wait tells its end"
        )
        raise InvalidSpec([problem])
    return found


async def pull(
    cluster: KubeCluster,
    executor: Executor,
    job: Manifest,
    target: Path,
    *,
    parts: Sequence[Part] = PARTS,
    image: str | None = None,
    report: Report = lambda path, done, size: None,
) -> list[PulledFile]:
    """Copy results of a job into a local folder, in which they have the paths that they have on the volume.

    Args:
        cluster: the API server.
        executor: commands in pods.
        job: the job.
        target: the local folder.
        parts: which results.
        image: image of the pod that reads; None = that of the job's pods.
        report: is told the progress.

    Raises:
        InvalidSpec: nothing is there yet, or the pod cannot start.
        Refused: our account may not create Jobs or run commands in pods.
        ClusterUnavailable: connections break again and again.
    """
    results = chosen(job, parts)
    template = await find_template(cluster, job)
    storage = (job.get("spec") or {}).get("storage") or {}
    claim, folder = volume_folder(storage.get("checkpoints") or {}, "checkpoints")
    workload = build_workload(job, template, image_of(job, template, image), claim, folder)
    async with running(cluster, executor, workload) as pod:
        files = await list_files(pod, [result.path for result in results])
        return [await fetch(pod, file, target, report) for file in files]


async def list_files(pod: RunningPod, paths: Sequence[str]) -> list[RemoteFile]:
    """The files at or below these paths of the volume.

    Raises:
        InvalidSpec: a path is gone, or a name cannot be one of a local file.
    """
    text = b""
    async for written in pod_output(pod, pod.command("list", ROOT, *paths)):
        text += b"" if written.is_error else written.data
    found: dict[str, RemoteFile] = {}
    for line in text.decode().splitlines():
        entry: dict[str, Any] = json.loads(line)
        if "missing" in entry:
            raise InvalidSpec([f"{entry['missing']}: is no longer on the claim"])
        file = RemoteFile(str(entry["path"]), int(entry["size"]))
        _check_name(file.path)
        if not PurePosixPath(file.path).name.startswith(IGNORED):
            found[file.path] = file
    return list(found.values())


def _check_name(path: str) -> None:
    """Check that a path stays in the folder that it is put into.

    Raises:
        InvalidSpec: it does not.
    """
    parts = PurePosixPath(path).parts
    if PurePosixPath(path).is_absolute() or ".." in parts or "\0" in path or not parts:
        raise InvalidSpec(
            [f"{path!r}: a name on the claim that leaves the folder; rename it there"]
        )


def pod_output(pod: RunningPod, command: Sequence[str]) -> AsyncGenerator[Any, None]:
    """The output of a command in the pod's container."""
    return pod.executor.run(pod.namespace, pod.name, WORKER, command)


async def fetch(pod: RunningPod, file: RemoteFile, target: Path, report: Report) -> PulledFile:
    """Bring one file into the local folder; what is there of it is read again, not sent again.

    Raises:
        ClusterUnavailable: the connection breaks again and again, or the file has changed twice meanwhile.
    """
    final = target / file.path
    final.parent.mkdir(parents=True, exist_ok=True)
    if final.is_file() and final.stat().st_size == file.size:
        digest = await _remote_digest(pod, file)
        if digest == await asyncio.to_thread(_sha256, final):
            report(file.path, file.size, file.size)
            return PulledFile(final, file.size, digest, was_there=True)
    partial = final.with_name(f"{final.name}{PARTIAL}")
    for _ in range(2):
        size, digest = await _receive(pod, file, partial, report)
        if size == partial.stat().st_size and digest == await asyncio.to_thread(_sha256, partial):
            partial.replace(final)
            return PulledFile(final, size, digest, was_there=False)
        partial.unlink()  # what was there before is of another file, or the file has changed meanwhile
    raise ClusterUnavailable(
        f"{file.path}: its SHA-256 differs from that on the claim, twice; try again when nothing writes it any more"
    )


async def _remote_digest(pod: RunningPod, file: RemoteFile) -> str:
    """SHA-256 of a file on the claim, of which nothing is sent."""
    summary = b""
    async for written in pod_output(
        pod, pod.command("read", f"{ROOT}/{file.path}", str(file.size))
    ):
        summary += written.data if written.is_error else b""
    return str(json.loads(summary)["sha256"])


async def _receive(
    pod: RunningPod, file: RemoteFile, partial: Path, report: Report
) -> tuple[int, str]:
    """Add to a partial file what it lacks; returns size and SHA-256 of the file on the claim."""
    failures = 0
    while True:
        begin = partial.stat().st_size if partial.exists() else 0
        if begin > file.size:
            partial.unlink()
            begin = 0
        command = pod.command("read", f"{ROOT}/{file.path}", str(begin))
        summary, done = b"", begin
        try:
            with partial.open("ab") as stream:
                async for written in pod_output(pod, command):
                    if written.is_error:
                        summary += written.data
                        continue
                    stream.write(written.data)
                    done += len(written.data)
                    report(file.path, done, file.size)
            said = json.loads(summary)
            return int(said["size"]), str(said["sha256"])
        except (ClusterUnavailable, ValueError) as error:
            failures = 1 if done > begin else failures + 1
            if failures >= MAX_FAILURES:
                raise ClusterUnavailable(
                    f"{file.path}: {error}; the same command continues from byte {done}"
                ) from error
            await asyncio.sleep(PAUSE_S * 2**failures)
        except Refused as error:
            raise ClusterUnavailable(
                f"{file.path}: {error.message}; the same command continues from byte {done}"
            ) from error


def _sha256(path: Path) -> str:
    """SHA-256 of a local file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
