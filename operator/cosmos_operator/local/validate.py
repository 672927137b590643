"""``cosmos validate``: the stages and the numbers of valid jobs, in a few lines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from cosmos_operator.api.check import num_data_groups, resolve_experiment
from cosmos_operator.api.check_inference_job import check_inference_job
from cosmos_operator.api.check_pods import FileJob, templates
from cosmos_operator.api.inferencejob import InferenceJob
from cosmos_operator.api.parse import load_file
from cosmos_operator.api.v1alpha1 import PostTrainingJob
from cosmos_operator.errors import InvalidSpec
from cosmos_operator.local.fingerprints import (
    fingerprint_paths,
    missing_paths,
    with_absolute_paths,
)
from cosmos_operator.local.model_job import KnownJob, find_model_job
from cosmos_operator.plan.inference_stages import plan_inference_stages
from cosmos_operator.plan.permissions import host_access
from cosmos_operator.plan.sampling_job import complete_job
from cosmos_operator.plan.stages import Stage, plan_stages
from cosmos_worker.config.addresses import without_secrets
from cosmos_worker.config.experiment import Experiment
from cosmos_worker.config.source import Source
from cosmos_worker.config.stages import FetchModelConfig, PrepareDatasetConfig
from cosmos_worker.config.values import GIB
from cosmos_worker.memory.choice import choose, leaves_a_choice
from cosmos_worker.memory.plan import Setup, plan_memory
from cosmos_worker.storage.files import counted

COMMON_GPU_GIB = (40, 80, 140)
"""Memory of usual GPUs, for what is chosen when the training begins."""


def describe_file(path: Path, model_job: Path | None = None) -> Iterator[str]:
    """Lines that describe the valid jobs of a file, and name its objects of other kinds.

    Args:
        path: its file.
        model_job: file of the PostTrainingJob that an InferenceJob names.

    Raises:
        InvalidSpec: with all problems, one line each.
    """
    found = load_file(path)
    folder = path.resolve().parent
    trainings = {
        (job.metadata.namespace, job.name): with_absolute_paths(job, folder)
        for job in found.jobs
        if isinstance(job, PostTrainingJob)
    }
    for job in found.jobs:
        if isinstance(job, InferenceJob):
            request = with_absolute_paths(job, folder)
            beside = trainings.get((job.metadata.namespace, request.spec.model.job or ""))
            yield from _describe_inference_job(request, model_job, beside)
        else:
            yield from _describe_job(trainings[job.metadata.namespace, job.name])
    for other in found.others:
        yield f"note: not checked: {other}"


def _describe_job(job: PostTrainingJob) -> Iterator[str]:
    missing = missing_paths(job)
    stages = plan_stages(job, {} if missing else fingerprint_paths(job))
    yield f"valid: {job.name}"
    yield from (f"  {line}" for line in describe_numbers(job))
    yield from _describe_stages(stages)
    yield from _describe_notes(job, missing)


def _describe_inference_job(
    request: InferenceJob, model_job: Path | None, beside: PostTrainingJob | None
) -> Iterator[str]:
    """Lines on an InferenceJob; ``beside`` is the PostTrainingJob that it names, if that is in the same file."""
    name, missing = request.spec.model.job, missing_paths(request)
    workspace = None if name is None else (Path("runs") / name).resolve()
    if model_job is None and beside is not None:
        known: KnownJob | None = KnownJob(
            beside, {} if missing_paths(beside) else fingerprint_paths(beside)
        )
    else:
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
        if trained_by is not None and (problems := check_inference_job(request, trained_by)):
            raise InvalidSpec(problems)
        job = complete_job(request, trained_by)
        stages = plan_inference_stages(job, {**others, **digests})
        yield f"valid: {request.name}"
        yield from _describe_stages(stages)
    yield from _describe_notes(request, missing)


def _describe_stages(stages: Sequence[Stage]) -> Iterator[str]:
    yield from (f"  {line}" for line in describe_downloads(stages))
    width = max(len(stage.name) for stage in stages)
    for stage in stages:
        gpus = f"{stage.nodes} x {counted(stage.gpus, 'GPU')}" if stage.gpus else "CPU"
        after = f"after {', '.join(stage.depends_on)}" if stage.depends_on else ""
        yield f"  {stage.name:<{width}}  {stage.key}  {gpus:<10}  {after}".rstrip()


def _describe_notes(job: FileJob, missing: Sequence[tuple[str, str]]) -> Iterator[str]:
    """Remarks on what does not make a job wrong, but may surprise on a cluster."""
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
    trainer, share = experiment.trainer, experiment.parallel.context_parallel
    groups = num_data_groups(job, experiment)
    is_open = trainer.micro_batch_size == "auto"
    micro = "auto" if is_open else counted(trainer.least_micro_batch, "sample")
    accumulation = trainer.global_batch_size // (trainer.least_micro_batch * groups)
    accumulated = f"{'at most ' if is_open else ''}{accumulation} accumulated"
    samples = trainer.max_steps * trainer.global_batch_size
    windows = " or ".join(
        f"{video.num_pixel_frames} frames, {video.height}x{video.width} pixels"
        for video in experiment.windows
    )
    yield f"experiment {experiment.name}: windows of {windows}"
    yield (
        f"training: {counted(compute.nodes, 'node')} x {_processes(compute.num_processes_per_node)} on {trainer.device}"
    )
    sharing = f"{counted(groups, 'group')} of {_processes(share)}"
    yield (
        f"batch: {sharing if share > 1 else _processes(groups)} x {micro} x "
        f"{accumulated} = {trainer.global_batch_size}; {counted(trainer.max_steps, 'step')} = "
        f"{counted(samples, 'sample')}"
    )
    yield from _describe_choice(job, experiment)
    yield (
        f"checkpoints: every {counted(trainer.save_every_steps, 'step')}, the last {trainer.keep_last} kept"
    )


def _describe_choice(job: PostTrainingJob, experiment: Experiment) -> Iterator[str]:
    """A line on what the memory of the GPUs decides, for GPUs of usual sizes; none where nothing is left to it."""
    if not leaves_a_choice(experiment):
        return
    compute = job.spec.compute
    if experiment.trainer.device == "cpu":
        yield "left to the memory: activation_checkpointing=none micro_batch_size=1 without a GPU"
        return
    found = []
    for size in COMMON_GPU_GIB:
        setup = choose(
            Setup(
                experiment,
                num_gpus=compute.nodes * compute.num_processes_per_node,
                gpus_per_node=compute.num_processes_per_node,
                gpu_memory=size * GIB,
                **experiment.parallel.model_dump(),
            )
        )
        kind, micro = setup.activation_checkpointing, setup.micro_batch_size
        lack = "" if plan_memory(setup).fits else ", which is too little"
        found.append(f"{kind} and micro-batch {micro} on {size} GiB{lack}")
    yield f"left to the GPUs' memory: activation checkpointing {'; '.join(found)} (estimates)"


def _processes(number: int) -> str:
    return counted(number, "process", "processes")
