"""``cosmos validate``: the stages and the numbers of valid jobs, in a few lines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from cosmos_operator.api.check import resolve_experiment
from cosmos_operator.api.check_pods import templates
from cosmos_operator.api.parse import load_file
from cosmos_operator.api.v1alpha1 import PostTrainingJob
from cosmos_operator.local.fingerprints import (
    fingerprint_paths,
    missing_paths,
    with_absolute_paths,
)
from cosmos_operator.plan.permissions import host_access
from cosmos_operator.plan.stages import Stage, plan_stages
from cosmos_worker.config.addresses import without_secrets
from cosmos_worker.config.source import Source
from cosmos_worker.config.stages import FetchModelConfig, PrepareDatasetConfig


def describe_file(path: Path) -> Iterator[str]:
    """Lines that describe the valid jobs of a file, and name its objects of other kinds.

    Raises:
        InvalidSpec: with all problems, one line each.
    """
    found = load_file(path)
    for job in found.jobs:
        yield from _describe_job(with_absolute_paths(job, path.resolve().parent))
    for other in found.others:
        yield f"note: not checked: {other}"


def _describe_job(job: PostTrainingJob) -> Iterator[str]:
    missing = missing_paths(job)
    stages = plan_stages(job, {} if missing else fingerprint_paths(job))
    yield f"valid: {job.name}"
    yield from (f"  {line}" for line in describe_numbers(job))
    yield from (f"  {line}" for line in describe_downloads(stages))
    width = max(len(stage.name) for stage in stages)
    for stage in stages:
        gpus = f"{stage.nodes} x {stage.gpus} GPUs" if stage.gpus else "CPU"
        after = f"after {', '.join(stage.depends_on)}" if stage.depends_on else ""
        yield f"  {stage.name:<{width}}  {stage.key}  {gpus:<10}  {after}".rstrip()
    for where, absent in missing:
        yield f"note: {where}: {absent} is not on this machine; on a cluster it must be in the image"
    for where, template in templates(job):
        for place, what in host_access(template.get("spec"), f"{where}.spec"):
            yield f"note: {place}: {what} opens the node to the pod; a cluster needs jobs.allow.hostAccess for it"


def describe_downloads(stages: Sequence[Stage]) -> Iterator[str]:
    """Lines on what the stages would fetch from elsewhere, unless it is there already."""
    for stage in stages:
        document = stage.document
        if isinstance(document, FetchModelConfig):
            for artifact in document.artifacts:
                if address := _address(artifact.source):
                    yield f"fetches {artifact.kind.replace('_', ' ')}: {address}"
        elif isinstance(document, PrepareDatasetConfig) and (address := _address(document.source)):
            yield f"fetches dataset: {address}"


def _address(source: Source) -> str:
    """The place outside of the job's volumes that files come from, in words; empty if there is none."""
    if source.hugging_face is not None:
        repository = source.hugging_face
        return f"{repository.repo} of the Hugging Face Hub, revision {repository.revision}"
    if source.url is not None:
        return without_secrets(source.url.url)
    return source.s3.uri if source.s3 is not None else ""


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
