"""``cosmos run``: carries out a job's manifests on this machine, stage after stage. No Kubernetes.

Finished stages are skipped by their completion markers. The worker owns the terminal; a stop is passed on to it
and waited for, so that it can save a checkpoint.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from cosmos_operator.api.parse import load_job
from cosmos_operator.api.v1alpha1 import PostTrainingJob
from cosmos_operator.errors import InvalidSpec, WorkspaceBusy
from cosmos_operator.local.fingerprints import (
    fingerprint_paths,
    with_absolute_paths,
)
from cosmos_operator.local.process import (
    StageProcess,
    build_processes,
)
from cosmos_operator.local.summary import summarize
from cosmos_operator.plan.pod import CONFIG_FILE
from cosmos_operator.plan.render import build_manifests, to_yaml
from cosmos_operator.plan.stages import plan_stages
from cosmos_worker.config.overrides import load_stage_config
from cosmos_worker.config.stages import TrainConfig
from cosmos_worker.errors import (
    EXIT_BUG,
    EXIT_CONTINUE,
    EXIT_GPU_FAULT,
    EXIT_OK,
    EXIT_PEER_LOST,
    EXIT_RETRY,
    EXIT_USER_ERROR,
    ConfigError,
)
from cosmos_worker.storage.earlier_runs import describe_length
from cosmos_worker.storage.files import take_lock
from cosmos_worker.storage.volumes import Volumes

LOCK_FILE = ".lock"
MANIFESTS_FILE = "manifests.yaml"
PR_SET_PDEATHSIG = 1
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)

Say = Callable[[str], None]

CONTINUE_SENTENCE = "stopped; the same command continues from the last checkpoint"
SENTENCES = {
    EXIT_BUG: "a bug in cosmos_worker; please report it with the lines above",
    EXIT_USER_ERROR: "the input is wrong; correct it, then run the same command",
    EXIT_RETRY: "the machine failed (disk, network); the same command tries again",
    EXIT_CONTINUE: CONTINUE_SENTENCE,
    EXIT_PEER_LOST: "another training process, or the network between them, was lost; the same command continues",
    EXIT_GPU_FAULT: "the GPU failed or is missing; use another one, the same command continues",
}


def say(line: str) -> None:
    """Write a line to standard output at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def run_job(path: Path, workspace: Path | None = None) -> int:
    """Run the job of a YAML file; returns the exit code.

    Raises:
        InvalidSpec: the job is wrong, or the workspace's file system has no locks.
        WorkspaceBusy: another run uses the workspace.
    """
    job = with_absolute_paths(load_job(path), path.resolve().parent)
    fingerprints = fingerprint_paths(job)
    folder = (workspace or Path("runs") / job.name).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    with lock(folder) as handle:
        manifests = build_manifests(job, plan_stages(job, fingerprints))
        (folder / MANIFESTS_FILE).write_text(to_yaml(manifests), encoding="utf-8")
        processes = build_processes(manifests, folder)
        say(f"job {job.name}: {len(processes)} stages in {folder}")
        tell_changed_length(processes, say)
        code = run_processes(processes, handle, say)
        if code == EXIT_OK:
            summarize(job.name, published_folder(job, processes), processes, say)
    return code


def published_folder(job: PostTrainingJob, processes: Sequence[StageProcess]) -> Path:
    """Folder of the published model."""
    return next(process.target for process in processes if process.kind == "publish")


def tell_changed_length(processes: Sequence[StageProcess], tell: Say) -> None:
    """Before anything runs: what a number of steps that differs from an earlier run's means for the training."""
    for process in processes:
        if process.kind == "train" and process.result() is None:
            config = load_stage_config(process.kind, process.folder / CONFIG_FILE, ())
            assert isinstance(config, TrainConfig)
            note = describe_length(config, Volumes.from_environment(process.environment))
            if note is not None:
                tell(f"note: {note}")


@contextmanager
def lock(folder: Path) -> Iterator[int]:
    """Hold the workspace; the descriptor goes to workers, so that one left behind still holds it.

    Raises:
        WorkspaceBusy: somebody holds it.
        InvalidSpec: its file system has no locks.
    """
    path = folder / LOCK_FILE
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            taken = take_lock(handle, path)
        except ConfigError as error:
            raise InvalidSpec([f"{error}; or give another --workspace"]) from error
        if not taken:
            raise WorkspaceBusy(
                f"{folder}: another `cosmos run`, or a worker that it left, uses this workspace; wait for it, "
                "end it, or give another --workspace"
            )
        yield handle
    finally:
        os.close(handle)


@dataclass
class StopRequests:
    """Ctrl-C and SIGTERM of this process, passed on to the worker that runs."""

    count: int = 0
    worker: subprocess.Popen[bytes] | None = None

    def receive(self, number: int, frame: FrameType | None) -> None:
        """Signal handler: the first request asks the worker to save and end, the second kills it."""
        self.count += 1
        self.forward()

    def forward(self) -> None:
        """Pass the latest request on."""
        if self.worker is None or self.worker.returncode is not None:
            return
        if self.count == 1:
            self.worker.send_signal(signal.SIGTERM)
        else:
            os.killpg(self.worker.pid, signal.SIGKILL)


@contextmanager
def stop_requests() -> Iterator[StopRequests]:
    """Handle SIGINT and SIGTERM inside the block."""
    requests = StopRequests()
    previous = {number: signal.signal(number, requests.receive) for number in STOP_SIGNALS}
    try:
        yield requests
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def run_processes(processes: Sequence[StageProcess], lock_handle: int, tell: Say) -> int:
    """Run what has not finished; returns the exit code of the first stage that fails, otherwise 0."""
    width = max(len(process.stage) for process in processes)
    with stop_requests() as requests:
        for number, process in enumerate(processes, start=1):
            head = f"[{number:>2}/{len(processes)}] {process.stage:<{width}}  {process.key}"
            if process.result() is not None:
                tell(f"{head}  already done")
                continue
            if process.kind == "check-inputs" and training_is_done(processes):
                tell(f"{head}  passed over: the training is done")
                continue
            tell(f"{head}  running")
            started = time.monotonic()
            code = run_process(process, lock_handle, requests)
            if code != EXIT_OK:
                tell(f"{head}  {explain(process, code)}")
                return code
            if process.result() is None:
                tell(f"{head}  ended without its completion marker; {SENTENCES[EXIT_BUG]}")
                return EXIT_BUG
            tell(f"{head}  done in {time.monotonic() - started:.1f} s")
    return EXIT_OK


def training_is_done(processes: Sequence[StageProcess]) -> bool:
    """Whether nothing is left to train: what is appended to the job then fails alone."""
    train = next(process for process in processes if process.kind == "train")
    return train.result() is not None


def run_process(process: StageProcess, lock_handle: int, requests: StopRequests) -> int:
    """Run one stage to its end; returns its exit code, EXIT_CONTINUE if it was stopped through us.

    The worker gets a session of its own, so a Ctrl-C reaches it only through us, as SIGTERM.
    """
    if requests.count:
        return EXIT_CONTINUE
    process.termination_file.unlink(missing_ok=True)
    worker = subprocess.Popen(
        process.command,
        env=dict(process.environment),
        pass_fds=(lock_handle,),
        start_new_session=True,
        preexec_fn=_stop_with_parent,
    )
    requests.worker = worker
    if requests.count:  # a request that came while the worker was started
        requests.forward()
    code = worker.wait()
    requests.worker = None
    if requests.count:
        return EXIT_CONTINUE
    return 128 - code if code < 0 else code


def _stop_with_parent() -> None:
    """In the child: receive SIGTERM, which saves, when `cosmos run` is killed (Linux, prctl(2))."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def explain(process: StageProcess, code: int) -> str:
    """A sentence on why a stage ended: the worker's own message, then what to do."""
    if code == EXIT_CONTINUE:
        return CONTINUE_SENTENCE
    message = _read_message(process.termination_file)
    if code > 128:
        name = signal.Signals(code - 128).name
        sentence = (
            f"the worker was ended by {name}; the same command continues (SIGKILL: memory ran out?)"
        )
    else:
        sentence = SENTENCES.get(code, "an exit code that is not in the contract")
    return f"failed with exit code {code}: {message}{sentence}"


def _read_message(path: Path) -> str:
    """What the worker said when it ended; empty if it could not."""
    try:
        message = json.loads(path.read_text(encoding="utf-8"))["message"]
    except (FileNotFoundError, ValueError, KeyError):  # it was killed before or while it wrote
        return ""
    return f"{message}\n"
