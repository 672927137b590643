"""Commands in running containers: pods/exec, by real processes of this machine that see copies of the pod's claims."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiohttp import web

from support.fakekube.errors import ApiError
from support.fakekube.resources import Object
from support.fakekube.world import World

if TYPE_CHECKING:
    from support.fakekube.server import Call

PROTOCOL = "v4.channel.k8s.io"
STDOUT, STDERR, RESULT = 1, 2, 3
FRAME_BYTES = 32 * 1024


class PodCommands:
    """Runs commands in pods."""

    def __init__(self, world: World) -> None:
        self.world = world

    async def serve(self, call: Call, request: web.Request) -> web.StreamResponse:
        """Answer a request for a command, over a WebSocket."""
        pod = self.world.store.get("pods", call.namespace, call.name)
        if pod["status"].get("phase") != "Running":
            raise ApiError(500, "InternalError", f"container of pod {call.name} does not run")
        connection = web.WebSocketResponse(protocols=(PROTOCOL,))
        await connection.prepare(request)
        root = Path(tempfile.mkdtemp(prefix="fakekube-"))
        try:
            command = request.query.getall("command")
            await self._run(connection, pod, command, root)
        except ConnectionResetError:
            pass
        finally:
            shutil.rmtree(root)
        return connection

    async def _run(
        self, connection: web.WebSocketResponse, pod: Object, command: list[str], root: Path
    ) -> None:
        container = pod["spec"]["containers"][0]
        folders = self._unpack(pod, container, root)
        environment = {e["name"]: e["value"] for e in container.get("env", ()) if "value" in e}
        words = [_mapped(word, folders) for word in command]
        program = sys.executable if words[0] == "python3" else words[0]
        process = await asyncio.create_subprocess_exec(
            program,
            *words[1:],
            env={"PATH": os.environ["PATH"], **environment},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        assert process.stderr is not None
        left = self.world.exec_cuts.pop(0) if self.world.exec_cuts else None
        while piece := await process.stdout.read(FRAME_BYTES):
            if left is not None:
                piece, left = piece[:left], left - len(piece)
            await connection.send_bytes(bytes([STDOUT]) + piece)
            if left is not None and left <= 0:
                process.kill()
                await process.wait()
                await connection.close()
                return
        if errors := await process.stderr.read():
            await connection.send_bytes(bytes([STDERR]) + errors)
        code = await process.wait()
        result: Object = {"metadata": {}, "status": "Success"}
        if code:
            causes = [{"reason": "ExitCode", "message": str(code)}]
            text = f"command terminated with non-zero exit code: exit status {code}"
            result = {
                "status": "Failure",
                "message": text,
                "code": 500,
                "details": {"causes": causes},
            }
        await connection.send_bytes(bytes([RESULT]) + json.dumps(result).encode())
        await connection.close()

    def _unpack(self, pod: Object, container: Object, root: Path) -> dict[str, Path]:
        """Write the files that the container sees below a folder; returns mount path → folder."""
        volumes = {volume["name"]: volume for volume in pod["spec"].get("volumes", ())}
        folders = {}
        for number, mount in enumerate(container.get("volumeMounts", ())):
            folder = root / str(number)
            folder.mkdir()
            folders[mount["mountPath"]] = folder
            claim = volumes[mount["name"]].get("persistentVolumeClaim")
            if claim is None:
                continue
            disk = self.world.disk(pod["metadata"]["namespace"], claim["claimName"])
            start = f"{mount['subPath']}/" if mount.get("subPath") else ""
            for path in [one for one in disk if one.startswith(start)]:
                file = folder / path[len(start) :]
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(content_of(disk[path]))
        return folders


def content_of(value: Any) -> bytes:
    """The bytes of a file of a simulated disk."""
    if isinstance(value, bytes):
        return value
    return (value if isinstance(value, str) else json.dumps(value)).encode()


def _mapped(word: str, folders: Mapping[str, Path]) -> str:
    for path, folder in folders.items():
        if word == path or word.startswith(f"{path}/"):
            return f"{folder}{word[len(path) :]}"
    return word
