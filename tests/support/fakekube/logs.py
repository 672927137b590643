"""Container logs: what the kubelet keeps, and the endpoint pods/log."""

from __future__ import annotations

import asyncio
import datetime
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aiohttp import web

from support.fakekube import errors
from support.fakekube.errors import ApiError
from support.fakekube.resources import Object
from support.fakekube.store import Store, micro_now

if TYPE_CHECKING:
    from support.fakekube.server import Call


@dataclass
class Log:
    """The log of one container."""

    lines: list[tuple[str, str]] = field(default_factory=list)
    """(time, text)."""
    is_closed: bool = False
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def write(self, text: str) -> None:
        """Add a line."""
        self.lines.append((micro_now(), text))
        self._wake_readers()

    def close(self) -> None:
        """The container has ended."""
        self.is_closed = True
        self._wake_readers()

    def _wake_readers(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()

    def tail(self, lines: int, max_bytes: int) -> str:
        """The end of the log, as a termination message falls back to it."""
        text = "".join(f"{line}\n" for _, line in self.lines[-lines:])
        return text.encode()[-max_bytes:].decode(errors="ignore")


class PodLogs:
    """The logs of all containers that ever ran, by pod uid and container."""

    def __init__(self) -> None:
        self.logs: dict[tuple[str, str], Log] = {}
        self.unreachable: set[str] = set()
        """Nodes whose kubelet does not answer."""

    def open(self, uid: str, container: str) -> Log:
        """The log of a container that starts."""
        return self.logs.setdefault((uid, container), Log())

    async def serve(self, call: Call, request: web.Request, store: Store) -> web.StreamResponse:
        """Answer a request for a log."""
        pod = store.get("pods", call.namespace, call.name)
        container = self._container(pod, call.query.get("container", ""))
        if not pod["spec"].get("nodeName"):
            return web.Response(status=204)
        self._check_started(pod, container)
        log = self.open(pod["metadata"]["uid"], container)
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await response.prepare(request)
        tail, position = call.query.get("tailLines"), 0
        if tail is not None:
            position = max(0, len(log.lines) - int(tail))
        since = call.query.get("sinceTime") or _since(call.query.get("sinceSeconds"))
        try:
            while True:
                fresh, position = log.lines[position:], len(log.lines)
                for at, text in fresh:
                    if at >= since:
                        line = f"{at} {text}\n" if call.has("timestamps") else f"{text}\n"
                        await response.write(line.encode())
                if not call.has("follow") or log.is_closed:
                    break
                if position == len(log.lines):
                    await log.changed.wait()
        except ConnectionResetError:
            pass
        return response

    def _container(self, pod: Object, wanted: str) -> str:
        name, spec = pod["metadata"]["name"], pod["spec"]
        names = [container["name"] for container in spec["containers"]]
        initial = [container["name"] for container in spec.get("initContainers", [])]
        if not wanted:
            if len(names) == 1:
                return str(names[0])
            text = f"a container name must be specified for pod {name}, choose one of: [{' '.join(names)}]"
            raise errors.bad_request(text)
        if wanted not in names + initial:
            raise errors.bad_request(f"container {wanted} is not valid for pod {name}")
        return wanted

    def _check_started(self, pod: Object, container: str) -> None:
        name, node = pod["metadata"]["name"], pod["spec"].get("nodeName")
        if node in self.unreachable:
            address = f"https://{node}:10250/containerLogs/{pod['metadata']['namespace']}/{name}/{container}"
            text = f'Get "{address}": dial tcp: connect: connection refused'
            raise ApiError(500, "InternalError", text)
        status = pod.get("status", {})
        known = status.get("initContainerStatuses", []) + status.get("containerStatuses", [])
        state = next(
            (s["state"] for s in known if s["name"] == container),
            {"waiting": {"reason": "ContainerCreating"}},
        )
        if "waiting" in state:
            reason = state["waiting"].get("reason", "")
            pulls = {
                "ErrImagePull": "image can't be pulled",
                "ImagePullBackOff": "trying and failing to pull image",
            }
            why = pulls.get(reason, reason)
            raise errors.bad_request(
                f'container "{container}" in pod "{name}" is waiting to start: {why}'
            )


def _since(seconds: str | None) -> str:
    if seconds is None:
        return ""
    start = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=int(seconds))
    return start.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
