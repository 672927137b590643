"""The training of the simulated worker: steps, checkpoints, and nodes that share one fate."""

from __future__ import annotations

import asyncio
import time

from support.fakekube.process import Gang, Process, Stop
from support.fakekube.resources import Object

NEEDS = {"model_uri": "CheckpointError", "dataset_uri": "DataError",
         "embeddings_uri": "DataError", "latents_uri": "DataError"}  # fmt: skip


async def train(process: Process, document: Object) -> Object:
    """Train to the last step; the result of the stage."""
    for name, reason in NEEDS.items():
        if document[name] is not None:
            process.files.need(document[name], reason)
    gang = await _join(process)
    if process.rank:
        await _follow(process, gang)
    run = TrainingRun(process, document)
    run.lock()
    try:
        result = await run.steps(gang)
    except Stop as stop:
        gang.result = stop if stop.code == 75 else None
        raise
    gang.result = Stop(0, "Succeeded", "train done", result=result)
    return result


async def _join(process: Process) -> Gang:
    """Meet the other nodes."""
    nodes = int(process.environment.get("PET_NNODES", "1"))
    address = process.environment.get("MASTER_ADDR") or process.environment.get("PET_MASTER_ADDR")
    if nodes == 1:
        gang = process.gang = Gang({0: process})
        return gang
    key = (process.namespace, str(address))
    known: Gang | None = process.world.gangs.get(key)
    gang = Gang() if known is None or known.lost or known.result else known
    process.world.gangs[key] = gang
    process.gang = gang
    gang.members[process.rank] = process
    gang.wake_members()
    service = str(address).rpartition(".")[2]
    while len(gang.members) < nodes:
        if process.world.store.find("services", process.namespace, service) is None:
            process.say("launch", f"cannot resolve {address}; waiting", "WARNING")
        await _wait(gang, 0.1)
        if gang.lost:
            await _lose(process, gang)
        if process.stop.is_set():
            raise Stop(
                75, "Stopped", "stopped before the first step; run the same command to continue"
            )
    return gang


async def _follow(process: Process, gang: Gang) -> None:
    """A node other than the first: ends as the others do."""
    while True:
        if gang.result is not None:
            raise gang.result
        if gang.lost:
            await _lose(process, gang)
        leader = gang.members.get(0)
        if leader is not None:
            process.position = dict(leader.position)
        await process.check_fault(process.position.get("step", 0))
        await _wait(gang, process.world.timing.step_s)


async def _wait(gang: Gang, timeout_s: float) -> None:
    waiting = asyncio.ensure_future(gang.changed.wait())
    await asyncio.wait({waiting}, timeout=timeout_s)
    waiting.cancel()


async def _lose(process: Process, gang: Gang) -> None:
    await asyncio.sleep(process.world.timing.peer_s)
    raise Stop(80, "PeerLost", f"{gang.lost} is gone: connection closed by peer", rank=process.rank)


class TrainingRun:
    """The folder of a training run, and the steps in it."""

    def __init__(self, process: Process, document: Object) -> None:
        experiment = document["experiment"]
        self.process, self.files, self.trainer = process, process.files, experiment["trainer"]
        names = (
            document["target_uri"],
            experiment["project"],
            experiment["group"],
            document["run_name"],
        )
        self.folder = "/".join(names)
        self.start: Object | None = document.get("start_from")

    def lock(self) -> None:
        """Be the only one that trains here."""
        disk, folder, _ = self.files.locate(self.files.path(self.folder))
        holder = self.process.world.locks.setdefault(
            (id(disk), folder), self.process.pod["metadata"]["uid"]
        )
        if holder != self.process.pod["metadata"]["uid"]:
            path = self.files.path(self.folder)
            self.process.world.mishaps.append(f"two trainings in {path}")
            text = f"{path}: another process trains in this folder; wait for it, or stop it"
            raise Stop(74, "RetryableError", text)

    async def steps(self, gang: Gang) -> Object:
        """From the latest checkpoint to the last step."""
        process, total = self.process, self.trainer["max_steps"]
        done = self._resume()
        started, first = time.monotonic(), done
        process.say(
            "stages.train", f"training parameters=1000 device=cpu processes=1 steps={total}"
        )
        while done < total:
            await process.check_fault(done)
            await asyncio.sleep(process.world.timing.step_s)
            if gang.lost:
                await _lose(process, gang)
            done += 1
            process.position["step"] = done
            if done % self.trainer["log_every_steps"] == 0 or done == total:
                self._report(done, total, (time.monotonic() - started) / (done - first))
            if gang.stop or process.stop.is_set():
                self._save(done)
                path = self.files.path(self.folder)
                text = f"{path}: stopped after step {done}; run the same command to continue"
                raise Stop(75, "Stopped", text)
            if done % self.trainer["save_every_steps"] == 0 or done == total:
                self._save(done)
        return {"run": self.files.path(self.folder), "loss": 0.1, "steps": done}

    def _resume(self) -> int:
        step = self.files.read(f"{self.folder}/latest")
        if step is None:
            return self._start()
        self.process.position.update(step=step, checkpoint=step)
        state = self.files.path(f"{self.folder}/state/iter_{step:09d}")
        self.process.say("train.trainer", f"continued step={step} from={state}")
        return int(step)

    def _start(self) -> int:
        """Begin with the model, or with the checkpoint of another run, which is then this run's too."""
        if self.start is None:
            return 0
        path, run = self.files.path(self.start["run_uri"]), self.start["run_uri"]
        step = self.start["step"] or self.files.read(f"{run}/latest")
        if step is None or self.files.read(f"{run}/state/iter_{step:09d}/complete.json") is None:
            text = f"spec.checkpoints.from: no checkpoint of a training in {path}"
            raise Stop(2, "CheckpointError", text)
        self.process.say("stages.train", f"note: begins with step {step} of the run in {path}")
        self.process.position["step"] = step
        self.process.say("train.run_state", f"continued step={step} from={path}")
        self._save(step)
        return int(step)

    def _report(self, done: int, total: int, seconds: float) -> None:
        minutes, rest = divmod(round(seconds * (total - done)), 60)
        self.process.say(
            "train.metrics",
            f"step={done}/{total} loss={1 / (1 + done):.4f} lr=2.00e-05 grad_norm=0.900 s/step={seconds:.3f} "
            f"samples/s={1 / seconds:.2f} eta={minutes}:{rest:02d}",
        )

    def _save(self, done: int) -> None:
        if self.process.position.get("checkpoint") == done:
            return
        state = f"{self.folder}/state/iter_{done:09d}"
        self.files.write(f"{state}/complete.json", done)
        self.files.write(f"{self.folder}/latest", done)
        self.process.position["checkpoint"] = done
        self.process.say("train.trainer", f"checkpoint step={done} folder={self.files.path(state)}")
