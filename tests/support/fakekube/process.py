"""The main process of a container: its signals, its log, the files that it sees, the faults that hit it."""

from __future__ import annotations

import asyncio
import json
import posixpath
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from cosmos_operator.api.labels import ATTEMPT_LABEL, JOB_LABEL, STAGE_LABEL
from support.fakekube.logs import Log
from support.fakekube.resources import Object
from support.fakekube.store import utc_now
from support.fakekube.world import Disk, Fault, World


@dataclass(frozen=True)
class Exit:
    """The end of a container."""

    code: int
    message: str = ""
    """Termination message."""
    reason: str = ""
    """Reason of the container's state; empty = Completed or Error."""


class Stop(Exception):  # noqa: N818
    """The stage ends now."""

    def __init__(self, code: int, reason: str, message: str, **details: Any) -> None:
        super().__init__(message)
        self.code, self.reason, self.details = code, reason, details


Program = Callable[["Process"], Awaitable[None]]
"""The coroutine function that a container runs; it may raise Stop."""


@dataclass
class Gang:
    """The pods of one training, and what they know of each other."""

    members: dict[int, Process] = field(default_factory=dict)
    """By node rank."""
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    stop: bool = False
    """A rank was asked to stop: all save and end together."""
    lost: str = ""
    """Name of the first peer that was lost; empty while all are there."""
    result: Stop | None = None
    """Result of the first rank, with which all ranks end; None while it runs."""

    def wake_members(self) -> None:
        """Wake all members, because the state has changed."""
        self.changed.set()
        self.changed = asyncio.Event()


class Process:
    """The main process of one container."""

    def __init__(
        self, world: World, pod: Object, container: Object, log: Log, program: Program
    ) -> None:
        self.world, self.pod, self.container, self.log = world, pod, container, log
        self._program = program
        meta = pod["metadata"]
        self.namespace = meta["namespace"]
        self.labels = meta.get("labels", {})
        self.command = [*container.get("command", []), *container.get("args", [])]
        self.environment = dict(self._read_environment())
        self.files = Files(world, pod, container, self.environment)
        self.rank = int(self.environment.get("PET_NODE_RANK", "0"))
        self.stop = asyncio.Event()
        self.killed: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        self.gang: Gang | None = None
        self.position: dict[str, int] = {}
        self.stage = self.labels.get(STAGE_LABEL, "")
        self.attempt = self._attempt()

    def terminate(self) -> None:
        """SIGTERM."""
        self.stop.set()
        if self.gang is not None:
            self.gang.stop = True
            self.gang.wake_members()

    def kill(self, result: Exit) -> None:
        """End at once, such as by SIGKILL."""
        if not self.killed.done():
            self.killed.set_result(result)

    def say(self, logger: str, text: str, level: str = "INFO") -> None:
        """Write a log line; ranks other than the first only warn."""
        processes = int(self.environment.get("PET_NPROC_PER_NODE", "1") or 1)
        rank = self.rank * processes
        if rank == 0 or level != "INFO":
            self.log.write(f"{utc_now()} {level} rank={rank} cosmos_worker.{logger} {text}")

    def say_end(self, text: str, level: str) -> None:
        """Write the last log line: in the training it is the launcher's."""
        if self.command[1:2] == ["train"]:
            self.log.write(f"{utc_now()} {level} launcher cosmos_worker.runtime.launch {text}")
        else:
            self.say("runtime.stage_process", text, level)

    async def run(self) -> Exit:
        """Run to the end."""
        main = asyncio.ensure_future(self._main())
        try:
            await asyncio.wait({main, self.killed}, return_when=asyncio.FIRST_COMPLETED)
            if self.killed.done():
                return self.killed.result()
            return main.result()
        finally:
            main.cancel()
            self.leave()

    def leave(self) -> None:
        """Release the process's lock, and remove it from its gang, whose other members notice."""
        for folder, holder in list(self.world.locks.items()):
            if holder == self.pod["metadata"]["uid"]:
                del self.world.locks[folder]
        gang, self.gang = self.gang, None
        if gang is not None:
            gang.members.pop(self.rank, None)
            if gang.result is None and not gang.lost:
                gang.lost = f"node rank {self.rank}"
            gang.wake_members()

    async def _main(self) -> Exit:
        try:
            await self._program(self)
        except Stop as stop:
            return self._exit(stop)
        return Exit(0)

    def _exit(self, stop: Stop) -> Exit:
        if stop.code:
            self.say_end(f"{stop.reason}: {stop}", "INFO" if stop.code == 75 else "ERROR")
        record = {"reason": stop.reason, "message": str(stop), **self.position, **stop.details}
        if "--nproc-per-node" not in self.command:  # a launcher has only its own lines
            record["lines"] = [line for _, line in self.log.lines[-3:]]
        return Exit(stop.code, json.dumps(record))

    def _attempt(self) -> int:
        key = (self.namespace, self.labels.get(JOB_LABEL, ""), self.stage)
        self.world.starts[key] = self.world.starts.get(key, 0) + 1
        return int(self.labels.get(ATTEMPT_LABEL, self.world.starts[key]))

    def _read_environment(self) -> Iterator[tuple[str, str]]:
        for entry in self.container.get("env", ()):
            if "value" in entry:
                yield entry["name"], entry["value"]
            path = entry.get("valueFrom", {}).get("fieldRef", {}).get("fieldPath", "")
            if path.startswith(("metadata.annotations[", "metadata.labels[")):
                kind, _, name = path.removeprefix("metadata.").partition("[")
                yield entry["name"], self.pod["metadata"].get(kind, {}).get(name.strip("]'"), "")

    # --- faults --------------------------------------------------------------------------------

    async def check_fault(self, step: int) -> None:
        """Let a scripted fault happen that is due in this pod."""
        fault = self._due(step)
        if fault is None:
            return
        fault.times -= 1
        if fault.kind == "hang":
            await asyncio.get_running_loop().create_future()
        if fault.kind == "oom":
            self.kill(Exit(137, "", "OOMKilled"))
            await asyncio.sleep(3600)
        raise Stop(
            fault.exit_code,
            fault.reason,
            fault.message,
            rank=self.rank,
            node=self.pod["spec"]["nodeName"],
        )

    def _due(self, step: int) -> Fault | None:
        for fault in self.world.faults:
            is_here = (
                fault.times > 0
                and fault.stage == self.stage
                and fault.job in (None, self.labels.get(JOB_LABEL))
                and fault.attempt in (None, self.attempt)
                and fault.rank == self.rank
            )
            if is_here and step >= fault.step:
                return fault
        return None


class Files:
    """File system of a container: mounted claims, and files of its own."""

    def __init__(self, world: World, pod: Object, container: Object, env: dict[str, str]) -> None:
        self._world, self._pod, self._env = world, pod, env
        self._own = Disk()
        volumes = {volume["name"]: volume for volume in pod["spec"].get("volumes", ())}
        mounts = container.get("volumeMounts", ())
        self._mounts = sorted(
            ((mount["mountPath"].rstrip("/"), mount, volumes[mount["name"]]) for mount in mounts),
            key=lambda entry: -len(entry[0]),
        )

    def config_files(self) -> dict[str, str]:
        """The stage document, and what lies beside it: name → text."""
        for path, _, volume in self._mounts:
            if path == "/etc/cosmos" and "configMap" in volume:
                name = volume["configMap"]["name"]
                found = self._world.store.get(
                    "configmaps", self._pod["metadata"]["namespace"], name
                )
                return dict(found["data"])
        raise Stop(2, "ConfigError", "/etc/cosmos/stage.yaml: no such file")

    def path(self, address: str) -> str:
        """Path of a volume address in this container."""
        volume, separator, rest = address.partition("://")
        if not separator:
            return address
        root = self._env.get(f"COSMOS_{volume.upper()}")
        if root is None:
            text = f"{address}: volume {volume!r} is not mounted; set COSMOS_{volume.upper()} to its folder"
            raise Stop(2, "ConfigError", text)
        return posixpath.normpath(f"{root}/{rest}")

    def locate(self, path: str) -> tuple[Disk, str, bool]:
        """(disk, path on it, whether it can be written)."""
        for mount_path, mount, volume in self._mounts:
            if path == mount_path or path.startswith(mount_path + "/"):
                claim = volume.get("persistentVolumeClaim")
                if claim is None:
                    return self._own, path, True
                disk = self._world.disk(self._pod["metadata"]["namespace"], claim["claimName"])
                inner = path[len(mount_path) :].lstrip("/")
                file = posixpath.normpath(posixpath.join(mount.get("subPath", ""), inner))
                return disk, file, not mount.get("readOnly", False)
        return self._own, path, path.startswith("/tmp")

    def read(self, address: str) -> Any:
        """A file's content, or None."""
        disk, file, _ = self.locate(self.path(address))
        return disk.get(file)

    def write(self, address: str, content: Any) -> None:
        """Write a file."""
        path = self.path(address)
        disk, file, is_writable = self.locate(path)
        if not is_writable:
            raise Stop(74, "OSError", f"[Errno 30] Read-only file system: '{path}'")
        disk[file] = content

    def need(self, address: str, reason: str) -> None:
        """Fail if neither a file nor a folder is there; paths in the image are not checked."""
        path = self.path(address)
        disk, file, _ = self.locate(path)
        if disk is not self._own and file not in disk and not disk.below(file):
            raise Stop(2, reason, f"{path}: no such file")
