"""``cosmos run``: carries out a job's manifests on this machine, stage after stage, without Kubernetes.

Stages with a completion marker are skipped. The worker writes to the terminal; a request to stop is passed on to it,
and it gets the time to save a checkpoint.
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

from cosmos_operator.api.inferencejob import InferenceJob
from cosmos_operator.api.job import Job
from cosmos_operator.api.parse import load_job
from cosmos_operator.errors import InvalidSpec, WorkspaceBusy
from cosmos_operator.local.fingerprints import (
    fingerprint_paths,
    with_absolute_paths,
)
from cosmos_operator.local.model_job import find_model_job, keep_job, plan_on_this_machine
from cosmos_operator.local.process import (
    StageProcess,
    build_processes,
)
from cosmos_operator.local.summary import describe_view, print_summary
from cosmos_operator.plan.pod import CONFIG_FILE
from cosmos_operator.plan.render import build_manifests, to_yaml
from cosmos_operator.plan.stages import Stage, plan_stages
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

Print = Callable[[str], None]
"""Prints a line."""

CONTINUE_SENTENCE = "stopped; the same command continues from the last checkpoint"
EXIT_SENTENCES = {
    EXIT_BUG: "a bug in cosmos_worker; please report it with the lines above",
    EXIT_USER_ERROR: "the input is wrong; correct it, then run the same command",
    EXIT_RETRY: "the machine failed (disk, network); the same command tries again",
    EXIT_CONTINUE: CONTINUE_SENTENCE,
    EXIT_PEER_LOST: "another training process, or the network between them, was lost; the same command continues",
    EXIT_GPU_FAULT: "the GPU failed or is missing; use another one, the same command continues",
}


def print_line(line: str) -> None:
    """Write a line to standard output at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def run_job(path: Path, workspace: Path | None = None, model_job: Path | None = None) -> int:
    """Run the job of a YAML file; returns the exit code.

    Args:
        path: the file.
        workspace: folder of all files; None = that of the job's name, or of the job that trained its model.
        model_job: file of the PostTrainingJob that an InferenceJob names; None = as it was run in the workspace.

    Raises:
        InvalidSpec: the job is wrong, or the workspace's file system has no locks.
        WorkspaceBusy: another run uses the workspace.
    """
    loaded = load_job(path)
    if isinstance(loaded, InferenceJob):
        return _run_inference_job(loaded, path, workspace, model_job)
    if model_job is not None:
        raise InvalidSpec(["--model-job: is for an InferenceJob; remove it"])
    job = with_absolute_paths(loaded, path.resolve().parent)
    fingerprints = fingerprint_paths(job)
    folder = _make_workspace(workspace, job.name)
    with lock(folder) as handle:
        keep_job(folder, job, fingerprints)
        return _run_stages(job, plan_stages(job, fingerprints), folder, MANIFESTS_FILE, handle)


def _run_inference_job(
    loaded: InferenceJob, path: Path, workspace: Path | None, model_job: Path | None
) -> int:
    request = with_absolute_paths(loaded, path.resolve().parent)
    fingerprints = fingerprint_paths(request)
    folder = _make_workspace(workspace, request.spec.model.job or request.name)
    with lock(folder) as handle:
        known = find_model_job(request, model_job, folder)
        job, stages = plan_on_this_machine(request, known, folder, fingerprints)
        return _run_stages(job, stages, folder, f"manifests-{job.name}.yaml", handle)


def _make_workspace(given: Path | None, name: str) -> Path:
    folder = (given or Path("runs") / name).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _run_stages(job: Job, stages: Sequence[Stage], folder: Path, file: str, handle: int) -> int:
    """Run the stages of a job in a locked workspace; returns the exit code.

    Args:
        job: the job.
        stages: its stages.
        folder: the workspace.
        file: name of the file in it that receives the manifests.
        handle: descriptor of the lock.
    """
    manifests = build_manifests(job, stages)
    (folder / file).write_text(to_yaml(manifests), encoding="utf-8")
    processes = build_processes(manifests, folder)
    print_line(f"job {job.name}: {len(processes)} stages in {folder}")
    print_line(f"to see it in a browser: {describe_view(folder, job)}")
    print_changed_length(processes, print_line)
    code = run_processes(processes, handle, print_line)
    if code == EXIT_OK:
        print_summary(job.name, processes, print_line)
    return code


def print_changed_length(processes: Sequence[StageProcess], write_line: Print) -> None:
    """Print what a number of steps that differs from that of an earlier run means for the training."""
    for process in processes:
        if process.kind == "train" and process.result() is None:
            config = load_stage_config(process.kind, process.folder / CONFIG_FILE, ())
            assert isinstance(config, TrainConfig)
            note = describe_length(config, Volumes.from_environment(process.environment))
            if note is not None:
                write_line(f"note: {note}")


@contextmanager
def lock(folder: Path) -> Iterator[int]:
    """Lock the workspace inside the block; workers inherit the descriptor, so that one left behind keeps the lock.

    Raises:
        WorkspaceBusy: another process has locked it.
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
                f"{folder}: another `cosmos run`, or a worker that it left behind, uses this workspace; wait for it, "
                "end it, or give another --workspace"
            )
        yield handle
    finally:
        os.close(handle)


@dataclass
class StopRequests:
    """Requests to stop, by Ctrl-C or SIGTERM, which are passed on to the worker that runs."""

    count: int = 0
    worker: subprocess.Popen[bytes] | None = None

    def receive(self, number: int, frame: FrameType | None) -> None:
        """Signal handler: the first request asks the worker to save and end, the second kills it."""
        self.count += 1
        self.forward()

    def forward(self) -> None:
        """Pass the latest request on to the worker, if one runs."""
        if self.worker is None or self.worker.returncode is not None:
            return
        if self.count == 1:
            self.worker.send_signal(signal.SIGTERM)
        else:
            os.killpg(self.worker.pid, signal.SIGKILL)


@contextmanager
def stop_requests() -> Iterator[StopRequests]:
    """Turn SIGINT and SIGTERM inside the block into requests to stop."""
    requests = StopRequests()
    previous = {number: signal.signal(number, requests.receive) for number in STOP_SIGNALS}
    try:
        yield requests
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def run_processes(processes: Sequence[StageProcess], lock_handle: int, write_line: Print) -> int:
    """Run the stages that have not finished; returns the exit code of the first that fails, otherwise 0."""
    width = max(len(process.stage) for process in processes)
    with stop_requests() as requests:
        for number, process in enumerate(processes, start=1):
            head = f"[{number:>2}/{len(processes)}] {process.stage:<{width}}  {process.key}"
            if process.result() is not None:
                write_line(f"{head}  already done")
                continue
            if process.kind == "check-inputs" and training_is_done(processes):
                write_line(f"{head}  skipped: the training is done")
                continue
            write_line(f"{head}  running")
            started = time.monotonic()
            code = run_process(process, lock_handle, requests)
            if code != EXIT_OK:
                write_line(f"{head}  {explain(process, code)}")
                return code
            if process.result() is None:
                write_line(f"{head}  ended without a completion marker; {EXIT_SENTENCES[EXIT_BUG]}")
                return EXIT_BUG
            write_line(f"{head}  done in {time.monotonic() - started:.1f} s")
    return EXIT_OK


def training_is_done(processes: Sequence[StageProcess]) -> bool:
    """True if the job has a training that has finished, after which items that are appended fail alone."""
    return any(process.kind == "train" and process.result() is not None for process in processes)


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
    """Let this child receive SIGTERM, at which it saves, when `cosmos run` is killed (Linux, prctl(2))."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def explain(process: StageProcess, code: int) -> str:
    """The end of a stage in words: the worker's own message, then what to do."""
    if code == EXIT_CONTINUE:
        return CONTINUE_SENTENCE
    message = _read_message(process.termination_file)
    if code > 128:
        name = signal.Signals(code - 128).name
        sentence = f"the worker was ended by {name}; the same command continues (SIGKILL: check whether memory ran out)"
    else:
        sentence = EXIT_SENTENCES.get(
            code, "an unknown exit code; please report it with the lines above"
        )
    return f"failed with exit code {code}: {message}{sentence}"


def _read_message(path: Path) -> str:
    """The worker's last message; empty if it wrote none."""
    try:
        message = json.loads(path.read_text(encoding="utf-8"))["message"]
    except (FileNotFoundError, ValueError, KeyError):  # it was killed before or while it wrote
        return ""
    return f"{message}\n"
