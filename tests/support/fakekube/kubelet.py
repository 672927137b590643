"""The kubelets of all nodes: pods that have a node run here, as tasks of the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass

from support.fakekube.defaults import FINAL
from support.fakekube.errors import ApiError
from support.fakekube.logs import Log
from support.fakekube.process import Exit, Process
from support.fakekube.resources import Object
from support.fakekube.sidecars import main_container, sidecars_of
from support.fakekube.simulated_worker import run_container
from support.fakekube.store import Event, utc_now
from support.fakekube.world import Controller, Key, World, key_of, set_condition

logger = logging.getLogger(__name__)

FALLBACK_LINES, FALLBACK_BYTES = 80, 2048


@dataclass
class RunningPod:
    """A pod on its node."""

    task: asyncio.Task[None]
    stopping: asyncio.Event
    """Set when the pod is to end."""
    process: Process | None = None
    grace_s: float = 0.0


class Kubelet(Controller):
    """Starts and ends pods."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.runs: dict[str, RunningPod] = {}
        """By uid of the pod."""
        self.lost: set[str] = set()
        """Nodes that are down."""
        self.is_closed = False

    def keys(self, event: Event) -> Iterator[Key]:
        """A pod that has a node."""
        if event.resource.key == "pods" and event.obj["spec"].get("nodeName"):
            if event.type == "DELETED":
                self._kill(event.obj["metadata"]["uid"])
            yield key_of(event.obj)

    def sync(self, key: Key) -> None:
        """Look at one pod."""
        pod = self.store.find("pods", *key)
        node = pod and pod["spec"].get("nodeName")
        if pod is None or not node or node in self.lost or self.is_closed:
            return
        meta = pod["metadata"]
        run = self.runs.get(meta["uid"])
        if run is None and "deletionTimestamp" not in meta and pod["status"]["phase"] == "Pending":
            stopping = asyncio.Event()
            task = asyncio.get_running_loop().create_task(self._run(pod, stopping))
            self.runs[meta["uid"]] = RunningPod(task, stopping)
        elif "deletionTimestamp" in meta:
            if run is None or run.task.done():
                self._vanish(pod)
                return
            run.grace_s = min(meta["deletionGracePeriodSeconds"], self.world.timing.max_grace_s)
            run.stopping.set()

    def lose(self, node: str) -> None:
        """A node dies with everything on it."""
        self.lost.add(node)
        self.world.logs.unreachable.add(node)
        for pod in self.store.list("pods"):
            if pod["spec"].get("nodeName") == node:
                self._kill(pod["metadata"]["uid"])

    def restore(self, node: str) -> None:
        """A node comes back; what ran there has ended."""
        self.lost.discard(node)
        self.world.logs.unreachable.discard(node)
        for pod in self.store.list("pods"):
            if pod["spec"].get("nodeName") == node and pod["status"]["phase"] not in FINAL:
                self._end(pod, Exit(137, "", "ContainerStatusUnknown"), None)
                self.again(key_of(pod), 0.0)

    def _kill(self, uid: str) -> None:
        run = self.runs.get(uid)
        if run is not None:
            run.stopping.set()
            if run.process is not None:
                run.process.kill(Exit(137))
            run.task.cancel()

    def end_process(self, pod: Object, code: int, reason: str, message: str, rank: int) -> None:
        """The worker in a pod notices that one of its processes died, and ends with it."""
        run = self.runs[pod["metadata"]["uid"]]
        if run.process is not None:
            run.process.say_end(f"{reason}: {message}", "ERROR")
            node = pod["spec"]["nodeName"]
            record = {
                "reason": reason,
                "message": message,
                **run.process.position,
                "rank": rank,
                "node": node,
            }
            run.process.kill(Exit(code, json.dumps(record)))

    def evict(self, pod: Object, reason: str, message: str) -> None:
        """Kill a pod for the good of its node."""
        live = self.store.get("pods", *key_of(pod))
        self.store.patch_status("pods", live, reason=reason, message=message)
        run = self.runs.get(pod["metadata"]["uid"])
        if run is not None and run.process is not None:
            run.process.kill(Exit(137))
            run.stopping.set()

    async def close(self) -> None:
        """End everything."""
        self.is_closed = True
        tasks = [run.task for run in self.runs.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # --- one pod -------------------------------------------------------------------------------

    async def _run(self, pod: Object, stopping: asyncio.Event) -> None:
        key, meta = key_of(pod), pod["metadata"]
        try:
            container = main_container(pod)
            if await self._prepare(pod, container, stopping):
                await self._execute(pod, container, stopping)
            else:
                self._end(pod, Exit(137, "", "ContainerStatusUnknown"), None)
        except ApiError as error:  # the pod is gone
            logger.debug("pod %s: %s", key, error)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            logger.exception("pod %s", key)
            self.world.crashes.append(error)
        finally:
            live = self.store.find("pods", *key)
            if live is not None and live["metadata"]["uid"] == meta["uid"]:
                self.again(key, 0.02)

    async def _prepare(self, pod: Object, container: Object, stopping: asyncio.Event) -> bool:
        """Wait until everything is there; False if the pod is to end before."""
        wait_s, said = self.world.timing.start_s, ""
        self._wait(pod, container, "ContainerCreating", "")
        while not stopping.is_set():
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(stopping.wait(), wait_s)
                break
            reason, text = self._obstacle(pod, container)
            if not reason:
                return True
            shown = (
                {"ErrImagePull": "ImagePullBackOff"}.get(reason, reason) if said == text else reason
            )
            if shown == "ImagePullBackOff":
                text_shown = f'Back-off pulling image "{container["image"]}": ErrImagePull: {text}'
            else:
                text_shown = text
            self._wait(pod, container, shown, text_shown)
            said, wait_s = text, self.world.timing.retry_s
        return False

    def _obstacle(self, pod: Object, container: Object) -> tuple[str, str]:
        """Reason and message of the waiting state of a container that cannot start; empty if it can."""
        namespace, spec = pod["metadata"]["namespace"], pod["spec"]
        for volume in spec.get("volumes", ()):
            for kind, field in (("configmaps", "configMap"), ("secrets", "secret")):
                source = volume.get(field)
                name = source and (source.get("name") or source.get("secretName"))
                if (
                    source
                    and not source.get("optional")
                    and not self.store.find(kind, namespace, name)
                ):
                    text = f'MountVolume.SetUp failed for volume "{volume["name"]}" : {kind[:-1]} "{name}" not found'
                    self.world.write_event(pod, "Warning", "FailedMount", text, "kubelet")
                    return "ContainerCreating", ""
        for init in spec.get("initContainers", ()):
            if not self.world.has_image(init["image"]):
                return self._pull_problem(pod, init["image"])
            if init["name"] == "init-pytorch" and not self._master_is_up(pod):
                return "PodInitializing", ""
        if not self.world.has_image(container["image"]):
            return self._pull_problem(pod, container["image"])
        text = self._environment_problem(pod, container)
        return ("CreateContainerConfigError", text) if text else ("", "")

    def _pull_problem(self, pod: Object, image: str) -> tuple[str, str]:
        text = f'failed to pull and unpack image "{image}": failed to resolve image: {image}: not found'
        self.world.write_event(
            pod, "Warning", "Failed", f'Failed to pull image "{image}": {text}', "kubelet"
        )
        return "ErrImagePull", text

    def _master_is_up(self, pod: Object) -> bool:
        env = {e["name"]: e.get("value") for e in main_container(pod)["env"]}
        master = self.store.find("pods", pod["metadata"]["namespace"], env["MASTER_ADDR"])
        return master is not None and master["status"]["phase"] == "Running"

    def _environment_problem(self, pod: Object, container: Object) -> str:
        namespace = pod["metadata"]["namespace"]
        for entry in container.get("env", ()):
            source = entry.get("valueFrom", {})
            for field, kind, shown in (
                ("secretKeyRef", "secrets", "Secret"),
                ("configMapKeyRef", "configmaps", "ConfigMap"),
            ):
                reference = source.get(field)
                if reference is None or reference.get("optional"):
                    continue
                found = self.store.find(kind, namespace, reference["name"])
                if found is None:
                    return f'{kind[:-1]} "{reference["name"]}" not found'
                if reference["key"] not in {**found.get("data", {}), **found.get("stringData", {})}:
                    return f"couldn't find key {reference['key']} in {shown} {namespace}/{reference['name']}"
        return ""

    async def _execute(self, pod: Object, container: Object, stopping: asyncio.Event) -> None:
        uid = pod["metadata"]["uid"]
        log = self.world.logs.open(uid, container["name"])
        process = Process(self.world, pod, container, log, run_container)
        run = self.runs[uid]
        run.process = process
        self._started(pod, container)
        main = asyncio.ensure_future(process.run())
        stop = asyncio.ensure_future(stopping.wait())
        try:
            await asyncio.wait({main, stop}, return_when=asyncio.FIRST_COMPLETED)
            if not main.done():
                process.terminate()
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(asyncio.shield(main), run.grace_s)
                if not main.done():
                    process.kill(Exit(137))
            result = await main
        finally:
            stop.cancel()
            main.cancel()
            log.close()
            process.leave()
        if sidecars_of(pod) and not stopping.is_set():
            self._end(pod, result, log, is_kept=True)
            await stopping.wait()
        self._end(pod, result, log)

    # --- status --------------------------------------------------------------------------------

    def _wait(self, pod: Object, container: Object, reason: str, text: str) -> None:
        waiting = {"reason": reason, "message": text} if text else {"reason": reason}
        self._report(pod, container, "Pending", {"waiting": waiting})

    def _started(self, pod: Object, container: Object) -> None:
        self._report(pod, container, "Running", {"running": {"startedAt": utc_now()}})
        for name, _ in sidecars_of(pod):
            self.world.logs.open(pod["metadata"]["uid"], name).write("the proxy is ready")
        self.world.write_event(pod, "Normal", "Started", "Container started", "kubelet")

    def _end(self, pod: Object, result: Exit, log: Log | None, *, is_kept: bool = False) -> None:
        """The main container has ended, and with it the pod, unless other containers keep it."""
        container = main_container(pod)
        codes = [result.code, *(0 if is_kept else code for _, code in sidecars_of(pod))]
        phase = "Running" if is_kept else "Failed" if any(codes) else "Succeeded"
        message = result.message
        falls_back = container["terminationMessagePolicy"] == "FallbackToLogsOnError"
        if not message and result.code and falls_back and log is not None:
            message = log.tail(FALLBACK_LINES, FALLBACK_BYTES)
        reason = result.reason or ("Completed" if result.code == 0 else "Error")
        live = self.store.get("pods", *key_of(pod))
        statuses = live["status"].get("containerStatuses") or ()
        state = next((s["state"] for s in statuses if s["name"] == container["name"]), {})
        started = state.get("running", state.get("terminated", {})).get("startedAt")
        terminated: Object = {"exitCode": result.code, "reason": reason, "finishedAt": utc_now()}
        terminated["startedAt"] = started or utc_now()
        if message:
            terminated["message"] = message
        if "terminated" in state:  # it ended earlier, and other containers kept the pod
            terminated = state["terminated"]
        self._report(pod, container, phase, {"terminated": terminated})

    def _report(self, pod: Object, container: Object, phase: str, state: Object) -> None:
        live = self.store.get("pods", *key_of(pod))
        if live["metadata"]["uid"] != pod["metadata"]["uid"]:
            return
        is_up = phase == "Running"
        conditions = live["status"].get("conditions", [])
        why = {"Succeeded": "PodCompleted", "Failed": "PodFailed"}.get(
            phase, "" if is_up else "ContainersNotReady"
        )
        for kind in ("Ready", "ContainersReady"):
            conditions = set_condition(conditions, kind, "True" if is_up else "False", why, "")
        states = {container["name"]: state}
        for name, code in sidecars_of(pod):
            ended = {"terminated": {"exitCode": code, "reason": "Error" if code else "Completed"}}
            running = {"running": {"startedAt": utc_now()}} if is_up else state
            states[name] = ended if phase in FINAL else running
        address = (
            f"10.0.{hash(live['metadata']['uid']) % 200}.{hash(live['metadata']['name']) % 200}"
        )
        self.store.patch_status(
            "pods",
            live,
            phase=phase,
            conditions=conditions,
            containerStatuses=[
                _container_status(name, container["image"], states[name]) for name in sorted(states)
            ],
            startTime=live["status"].get("startTime", utc_now()),
            podIP=address,
        )

    def _vanish(self, pod: Object) -> None:
        """Remove the API object of a pod that has ended."""
        if pod["status"]["phase"] not in FINAL:
            self._end(pod, Exit(137, "", "ContainerStatusUnknown"), None)
        self.store.delete("pods", *key_of(pod), uid=pod["metadata"]["uid"], grace_s=0)


def _container_status(name: str, image: str, state: Object) -> Object:
    is_up = "running" in state
    return {
        "name": name,
        "image": image,
        "imageID": image,
        "ready": is_up,
        "started": is_up,
        "restartCount": 0,
        "state": state,
        "lastState": {},
    }
