"""The whole network on one GPU, from random weights: three steps, a sample; and a save, a continuation."""

from __future__ import annotations

import gc
import math
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import torch

from benchmarks.gpu.device import forget_peak, peak_gib, timed
from benchmarks.gpu.network import SEED, build, fill, random_batch
from benchmarks.gpu.steps import plan_one_gpu
from benchmarks.gpu.video import sample_window
from benchmarks.gpu.worker import Job
from cosmos_worker.config.experiment import Experiment
from cosmos_worker.config.values import GIB
from cosmos_worker.memory.sizes import BFLOAT_BYTES, net_size, saved_bytes
from cosmos_worker.model.dit import CosmosModel
from cosmos_worker.runtime.outcome import PositionFile
from cosmos_worker.runtime.process_group import ProcessGroup
from cosmos_worker.train.order import DataOrder
from cosmos_worker.train.run_state import RunState
from cosmos_worker.train.saver import Saver
from cosmos_worker.train.step import train_step

NUM_STEPS = 3
SAMPLER_STEPS = 4
LOSS_TOLERANCE = 1e-5
"""Relative difference of the next step's loss that is allowed between a run that goes on and one that is continued."""


@dataclass
class Run:
    """A training of random samples, with the parts of the train stage."""

    experiment: Experiment
    folder: Path
    device: torch.device
    seed: int = SEED
    model: CosmosModel = field(init=False)
    state: RunState = field(init=False)

    def __post_init__(self) -> None:
        self.model = build(self.experiment, self.device)
        if self.seed != SEED and self.experiment.lora.rank:
            fill(
                self.model, self.device, SEED, self.seed
            )  # the base is the same, its corrections are not
        elif self.seed != SEED:
            fill(self.model, self.device, self.seed)
        cuda = self.device.type == "cuda"
        processes = ProcessGroup(device_type="cuda" if cuda else "cpu")
        saver = Saver(self.folder, processes, 1, 1)
        order = DataOrder(8, 1, 0, "random")
        self.state = RunState(self.experiment, self.model, order, saver, PositionFile(), None)
        self._batch = random_batch(self.experiment, 1)

    def step(self) -> float:
        """One optimizer step; returns its loss."""
        result = train_step(
            self.model,
            self.state.optimizer,
            [self._batch],
            self.experiment,
            self.device,
            lambda: f"step {self.state.done_steps + 1}",
        )
        self.state.finish_step()
        return float(result.losses[0])


def measure(job: Job, kind: str, saves: bool) -> None:
    """Rows of a kind of training: its steps and a sample, or a save and a continuation."""
    trainer = job.sizes.whole[kind].trainer.model_copy(
        update={"global_batch_size": 1, "micro_batch_size": 1}
    )
    experiment = job.sizes.whole[kind].model_copy(update={"trainer": trainer})
    folder = job.folder / "run"
    folder.mkdir()
    try:
        if saves:
            _save_and_continue(job, kind, experiment, folder)
        else:
            _train_and_sample(job, kind, experiment, folder)
    finally:
        shutil.rmtree(folder)


def _train_and_sample(job: Job, kind: str, experiment: Experiment, folder: Path) -> None:
    forget_peak(job.device)
    seconds, run = timed(lambda: Run(experiment, folder, job.device), job.device)
    job.row(training=kind, what="network and optimizer", seconds=seconds)
    planned = plan_one_gpu(experiment, job.device)
    for number in range(1, NUM_STEPS + 1):
        seconds, loss = timed(run.step, job.device)
        job.row(
            training=kind,
            what=f"step {number} of one sample, loss {loss:.4f}",
            seconds=seconds,
            **{
                "peak GiB": peak_gib(job.device),
                "planned GiB": (planned.total - planned.headroom) / GIB,
            },
        )
        if not math.isfinite(loss):
            job.problem(f"{kind}: the loss of step {number} is {loss}")
    net = run.model.net.eval()
    del run
    gc.collect()
    forget_peak(job.device)
    seconds, _ = timed(
        lambda: sample_window(net, experiment, job.device, SAMPLER_STEPS), job.device
    )
    job.row(
        training=kind,
        what=f"sample: {SAMPLER_STEPS} steps of two passes",
        seconds=seconds,
        **{"peak GiB": peak_gib(job.device)},
    )


def _save_and_continue(job: Job, kind: str, experiment: Experiment, folder: Path) -> None:
    exports = _has_room_for_exports(job, experiment, folder)
    run = Run(experiment, folder, job.device)
    run.step()

    def save() -> None:
        run.state.begin_save(exports_weights=exports)
        run.state.finish_save()

    seconds, _ = timed(save, job.device)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    what = f"save: {'checkpoint and exported weights' if exports else 'checkpoint'}, {size / GIB:.2f} GiB"
    job.row(training=kind, what=what, seconds=seconds)
    expected = run.step()
    del run
    gc.collect()
    if job.device.type == "cuda":
        torch.cuda.empty_cache()
    run = Run(experiment, folder, job.device, seed=SEED + 1)
    seconds, _ = timed(run.state.resume, job.device)
    found = run.step()
    difference = abs(found - expected) / abs(expected)
    what = f"continue; the next step's loss differs by {difference:.1e}"
    job.row(training=kind, what=what, seconds=seconds)
    if not difference <= LOSS_TOLERANCE:
        job.problem(f"{kind}: a continued run's loss is {found:.6f} in place of {expected:.6f}")


def _has_room_for_exports(job: Job, experiment: Experiment, folder: Path) -> bool:
    """True if the disk takes checkpoint and exported weights; False if only the checkpoint.

    Raises:
        OSError: not even that.
    """
    free = shutil.disk_usage(folder).free
    state = saved_bytes(experiment)
    whole = state + net_size(experiment.net).parameters * BFLOAT_BYTES
    if free < state:
        raise OSError(
            f"{folder}: {free / GIB:.0f} GiB are free and a checkpoint takes {state / GIB:.0f}; "
            "name another folder with --disk"
        )
    if free < whole:
        job.note(
            f"weights were not exported: {free / GIB:.0f} GiB of disk were free of {whole / GIB:.0f}"
        )
    return free >= whole
