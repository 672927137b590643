"""Simulated nodes: pods that the scheduler places on them run for their time, report progress in a log, and end.

They are as small as the API server and the operator can see: Node objects, the status of pods, and the HTTPS address
from which the API server fetches logs.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from datetime import UTC, datetime
from typing import Any

import yaml
from aiohttp import web
from harness.certs import certificates

from scale.api import Api, Object

START_S = 0.3
"""Time from the placement of a pod until its container runs."""
STAGE_S = 2.0
"""Time that a stage other than the training runs."""
STEP_S = 1.0
"""Time of a step of a training."""
POOL = "cosmos.dev/pool"
"""Label of nodes that parts of the fleet share."""
UNITS = {"fetch-model": "files", "prepare-dataset": "clips", "embed-text": "captions",
         "cache-latents": "windows", "generate": "steps"}  # fmt: skip
NUM_UNITS = 4


def stamp(seconds: float | None = None) -> str:
    """A time (now, if it is omitted) as the API writes it."""
    at = datetime.fromtimestamp(time.time() if seconds is None else seconds, UTC)
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


class WorkerLog:
    """The log of a worker as a function of the time.

    Args:
        kind: stage.
        started: time of its start, in seconds.
        trainer: options of the trainer, if the stage is the training.
    """

    def __init__(self, kind: str, started: float, trainer: Object | None) -> None:
        self._kind, self._started, self._trainer = kind, started, trainer
        self.duration_s = trainer["max_steps"] * STEP_S if trainer else STAGE_S

    def lines(self, now: float, limit: int) -> list[str]:
        """The last lines at a time."""
        if self._trainer is None:
            return self._units(now)[-limit:]
        trainer, total = self._trainer, self._trainer["max_steps"]
        done = min(total, int((now - self._started) / STEP_S))
        lines = [self._line(0, "stages.train", "training parameters=1000 device=cuda processes=1")]
        for step in range(max(1, done - limit * trainer["log_every_steps"]), done + 1):
            after_s = step * STEP_S
            if step % trainer["log_every_steps"] == 0 or step == total:
                left = round((total - step) * STEP_S)
                eta = f"{left // 60}:{left % 60:02d}"
                text = f"step={step}/{total} loss={1 / (1 + step):.4f} lr=2.00e-05 grad_norm=0.900"
                text += f" s/step={STEP_S:.3f} samples/s={1 / STEP_S:.2f} eta={eta}"
                lines.append(self._line(after_s, "train.metrics", text))
            if step % trainer["save_every_steps"] == 0 or step == total:
                text = f"checkpoint step={step} folder=/cosmos/checkpoints/run/iter_{step:09d}"
                lines.append(self._line(after_s, "train.trainer", text))
        return lines[-limit:]

    def _units(self, now: float) -> list[str]:
        done = min(NUM_UNITS, int((now - self._started) / STAGE_S * NUM_UNITS))
        unit, module = UNITS.get(self._kind, "files"), f"stages.{self._kind.replace('-', '_')}"
        return [
            self._line(
                STAGE_S * number / NUM_UNITS,
                module,
                f"{self._kind} {unit}={number}/{NUM_UNITS} per_s=9.0 eta_s=0",
            )
            for number in range(1, done + 1)
        ]

    def _line(self, after_s: float, module: str, text: str) -> str:
        return f"{stamp(self._started + after_s)} INFO rank=0 cosmos_worker.{module} {text}"


class Nodes:
    """Nodes that run pods.

    Args:
        api: the API server.
    """

    def __init__(self, api: Api) -> None:
        self._api = api
        self._pods: dict[str, asyncio.Task[None]] = {}
        """Running pods by uid."""
        self._endings: dict[str, asyncio.Task[None]] = {}
        """Pods that are being deleted, by uid."""
        self._logs: dict[tuple[str, str], WorkerLog] = {}
        self._runner: web.AppRunner | None = None
        self._watch: asyncio.Task[None] | None = None
        self._port = 0

    async def start(self) -> None:
        """Serve logs, and run pods from now on."""
        keys, application = certificates(), web.Application()
        application.router.add_get("/containerLogs/{namespace}/{pod}/{container}", self._serve_log)
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(keys / "kubelet-server.crt", keys / "kubelet-server.key")
        self._runner = web.AppRunner(application, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=tls).start()
        self._port = self._runner.addresses[0][1]
        self._watch = asyncio.create_task(self._run_pods())

    async def stop(self) -> None:
        """End all pods, without a word to the API server."""
        tasks = [
            *self._pods.values(),
            *self._endings.values(),
            *([self._watch] if self._watch else []),
        ]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._runner is not None:
            await self._runner.cleanup()

    async def add(self, name: str, pool: str, gpus: int) -> None:
        """Register a node with some GPUs that is ready for pods."""
        room = {"cpu": "64", "memory": "512Gi", "pods": "1000", "nvidia.com/gpu": str(gpus)}
        labels = {"kubernetes.io/hostname": name, POOL: pool}
        node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}}
        await self._api.call("POST", "/api/v1/nodes", node)
        ready = {"type": "Ready", "status": "True", "reason": "Simulated", "message": "ready"}
        status = {
            "capacity": room,
            "allocatable": room,
            "conditions": [ready | {"lastTransitionTime": stamp()}],
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": self._port}},
        }
        path = f"/api/v1/nodes/{name}"
        await self._api.call("PATCH", f"{path}/status", {"status": status}, "merge")
        # the API server gives each new node the taint of one that is not ready
        await self._api.call("PATCH", path, {"spec": {"taints": None}}, "merge")

    # --- pods ------------------------------------------------------------------------------------

    async def _run_pods(self) -> None:
        fields = "spec.nodeName!=,status.phase!=Succeeded,status.phase!=Failed"
        async for kind, pod in self._api.watch("/api/v1/pods", fieldSelector=fields):
            uid = pod["metadata"]["uid"]
            if kind == "DELETED":  # the pod is gone, or it has ended
                self._end(uid)
                self._endings.pop(uid, None)
            elif "deletionTimestamp" in pod["metadata"]:
                self._end(uid)
                if uid not in self._endings:
                    self._endings[uid] = asyncio.create_task(self._remove(pod))
            elif uid not in self._pods:
                self._pods[uid] = asyncio.create_task(self._run(pod))

    def _end(self, uid: str) -> None:
        task = self._pods.pop(uid, None)
        if task is not None:
            task.cancel()

    async def _run(self, pod: Object) -> None:
        metadata, container = pod["metadata"], pod["spec"]["containers"][0]
        if not container.get("command"):
            return  # it only holds what it asks for
        kind, trainer = container["command"][1], None
        await asyncio.sleep(START_S)
        if kind == "train":
            trainer = await self._read_trainer(pod)
        started = time.time()
        log = WorkerLog(kind, started, trainer)
        self._logs[metadata["namespace"], metadata["name"]] = log
        start: dict[str, Any] = {"startedAt": stamp(started)}
        await self._report(pod, "Running", {"running": start})
        await asyncio.sleep(log.duration_s)
        record = {"reason": "Succeeded", "message": f"{kind} done", "result": {"windows": 32}}
        if "--nproc-per-node" not in container["command"]:  # a launcher has only its own lines
            record["lines"] = [f"{stamp()} INFO rank=0 cosmos_worker.stages.run_stage {kind} done"]
        end = start | {"finishedAt": stamp(), "exitCode": 0, "reason": "Completed"}
        end["message"] = json.dumps(record)
        await self._report(pod, "Succeeded", {"terminated": end})

    async def _read_trainer(self, pod: Object) -> Object:
        """The trainer's options in the document of a training."""
        names = [v["configMap"]["name"] for v in pod["spec"]["volumes"] if "configMap" in v]
        path = f"/api/v1/namespaces/{pod['metadata']['namespace']}/configmaps/{names[0]}"
        text = (await self._api.call("GET", path))["data"]["stage.yaml"]
        found: Object = yaml.load(text, yaml.CSafeLoader)["experiment"]["trainer"]
        return found

    async def _report(self, pod: Object, phase: str, state: Object) -> None:
        container, is_ready = pod["spec"]["containers"][0], str(phase == "Running")
        conditions = [
            {"type": kind, "status": status, "lastTransitionTime": stamp()}
            for kind, status in (
                ("Initialized", "True"),
                ("Ready", is_ready),
                ("ContainersReady", is_ready),
                ("PodScheduled", "True"),
            )
        ]
        one = {
            "name": container["name"],
            "image": container["image"],
            "imageID": f"sha256:{0:064}",
            "containerID": f"containerd://{pod['metadata']['uid']}",
            "ready": phase == "Running",
            "started": phase == "Running",
            "restartCount": 0,
            "state": state,
        }
        status = {
            "phase": phase,
            "conditions": conditions,
            "containerStatuses": [one],
            "hostIP": "127.0.0.1",
            "startTime": stamp(),
        }
        await self._api.answer("PATCH", f"{_path(pod)}/status", {"status": status}, "merge")

    async def _remove(self, pod: Object) -> None:
        """End a pod that is being deleted, as a kubelet does: first its status, then the object."""
        end = {"exitCode": 75, "reason": "Error", "startedAt": stamp(), "finishedAt": stamp()}
        await self._report(pod, "Failed", {"terminated": end})
        now = {"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0}
        await self._api.answer("DELETE", _path(pod), now)

    async def _serve_log(self, request: web.Request) -> web.Response:
        log = self._logs.get((request.match_info["namespace"], request.match_info["pod"]))
        if log is None:
            raise web.HTTPNotFound(text="the container has no log")
        limit = int(request.query.get("tailLines", 10_000))
        return web.Response(text="".join(f"{line}\n" for line in log.lines(time.time(), limit)))


def _path(pod: Object) -> str:
    metadata = pod["metadata"]
    return f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}"
