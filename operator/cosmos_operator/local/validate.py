"""``cosmos validate``: the stages and the numbers of a valid job, in a few lines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from cosmos_operator.api.check import resolve_experiment
from cosmos_operator.api.inferencejob import InferenceJob
from cosmos_operator.api.parse import load_job
from cosmos_operator.api.v1alpha1 import PostTrainingJob
from cosmos_operator.local.fingerprints import (
    fingerprint_paths,
    missing_paths,
    with_absolute_paths,
)
from cosmos_operator.local.model_job import find_model_job
from cosmos_operator.plan.inference_stages import plan_inference_stages
from cosmos_operator.plan.sampling_job import complete_job
from cosmos_operator.plan.stages import Stage, plan_stages


def describe_job(path: Path, model_job: Path | None = None) -> Iterator[str]:
    """Lines that describe a valid job.

    Args:
        path: its file.
        model_job: file of the PostTrainingJob that an InferenceJob names.

    Raises:
        InvalidSpec: with all problems, one line each.
    """
    loaded = load_job(path)
    if isinstance(loaded, InferenceJob):
        yield from _describe_inference_job(loaded, path, model_job)
        return
    job = with_absolute_paths(loaded, path.resolve().parent)
    missing = missing_paths(job)
    stages = plan_stages(job, {} if missing else fingerprint_paths(job))
    yield f"valid: {job.name}"
    yield from (f"  {line}" for line in describe_numbers(job))
    yield from _describe_stages(stages)
    yield from _describe_missing(missing)


def _describe_inference_job(
    loaded: InferenceJob, path: Path, model_job: Path | None
) -> Iterator[str]:
    request = with_absolute_paths(loaded, path.resolve().parent)
    name, missing = request.spec.model.job, missing_paths(request)
    workspace = None if name is None else (Path("runs") / name).resolve()
    known = find_model_job(request, model_job, workspace)
    digests = {} if missing else fingerprint_paths(request)
    if name is not None and known is None:
        yield f"valid: {request.name}"
        yield (
            f"note: spec.model.job: checked without the PostTrainingJob {name!r}; give its file with --model-job to "
            "check the items against its experiment"
        )
    else:
        trained_by, others = (None, {}) if known is None else (known.job, known.fingerprints)
        job = complete_job(request, trained_by)
        stages = plan_inference_stages(job, {**others, **digests})
        yield f"valid: {request.name}"
        yield from _describe_stages(stages)
    yield from _describe_missing(missing)


def _describe_stages(stages: Sequence[Stage]) -> Iterator[str]:
    width = max(len(stage.name) for stage in stages)
    for stage in stages:
        gpus = f"{stage.nodes} x {stage.gpus} GPUs" if stage.gpus else "CPU"
        after = f"after {', '.join(stage.depends_on)}" if stage.depends_on else ""
        yield f"  {stage.name:<{width}}  {stage.key}  {gpus:<10}  {after}".rstrip()


def _describe_missing(missing: Sequence[tuple[str, str]]) -> Iterator[str]:
    for where, absent in missing:
        yield f"note: {where}: {absent} is not on this machine; on a cluster it must be in the image"


def describe_numbers(job: PostTrainingJob) -> Iterator[str]:
    """Lines on the experiment, the machines and the arithmetic of the batches."""
    experiment, compute = resolve_experiment(job), job.spec.compute
    trainer, processes = experiment.trainer, compute.nodes * compute.num_processes_per_node
    accumulation = trainer.global_batch_size // (trainer.micro_batch_size * processes)
    samples = trainer.max_steps * trainer.global_batch_size
    windows = " or ".join(
        f"{video.num_pixel_frames} frames, {video.height}x{video.width} pixels"
        for video in experiment.windows
    )
    yield f"experiment {experiment.name}: windows of {windows}"
    yield (
        f"training: {compute.nodes} node{'s' if compute.nodes > 1 else ''} x "
        f"{compute.num_processes_per_node} processes on {trainer.device}"
    )
    yield (
        f"batch: {processes} processes x {trainer.micro_batch_size} samples x {accumulation} accumulated = "
        f"{trainer.global_batch_size}; {trainer.max_steps} steps = {samples} samples"
    )
    yield f"checkpoints: every {trainer.save_every_steps} steps, the last {trainer.keep_last} kept"
