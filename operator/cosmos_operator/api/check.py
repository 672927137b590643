"""Checks of a job that depend on its experiment or on several fields. Pure; returns problems, one line each."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from cosmos_operator.api.check_items import ItemContext, check_address, check_items, check_sampling
from cosmos_operator.api.check_models import model_problems
from cosmos_operator.api.check_pods import check_pods
from cosmos_operator.api.job import Job
from cosmos_operator.api.training import TrainingSpec
from cosmos_operator.api.v1alpha1 import PostTrainingJob
from cosmos_worker.config.experiment import Experiment
from cosmos_worker.config.presets import get_experiment
from cosmos_worker.config.values import divisors
from cosmos_worker.errors import ConfigError
from cosmos_worker.storage.files import counted
from cosmos_worker.storage.volumes import VOLUMES, WEIGHT_SUFFIXES

MAX_MICRO_BATCH = 1024
"""Largest micro-batch that a message advises."""

FIELDS_OF_OPTIONS = {
    "trainer.max_steps": "spec.training.steps",
    "trainer.seed": "spec.training.seed",
    "trainer.save_every_steps": "spec.checkpoints.everySteps",
    "trainer.save_every_minutes": "spec.checkpoints.everyMinutes",
    "trainer.keep_last": "spec.checkpoints.keepLast",
    "trainer.device": "spec.compute.gpusPerNode",
    "text.max_length": "spec.embeddings.maxLength",
    "name": "spec.training.experiment",
}
"""Option of the experiment → the field of the job that sets it instead of an override."""


def resolve_experiment(job: PostTrainingJob) -> Experiment:
    """The experiment of a job, with all options that the job sets.

    Raises:
        ConfigError: unknown experiment or override, or numbers that contradict each other.
    """
    spec = job.spec
    fields = {
        "trainer.max_steps": spec.training.steps,
        "trainer.seed": spec.training.seed,
        "trainer.save_every_steps": spec.checkpoints.every_steps,
        "trainer.save_every_minutes": spec.checkpoints.every_minutes,
        "trainer.keep_last": spec.checkpoints.keep_last,
        "trainer.device": "cuda" if spec.compute.gpus_per_node else "cpu",
        "text.max_length": spec.embeddings.max_length,
    }
    given = [f"{key}={value}" for key, value in fields.items() if value is not None]
    return get_experiment(spec.training.experiment, [*spec.training.overrides, *given])


def num_data_groups(job: PostTrainingJob, experiment: Experiment) -> int:
    """Groups of processes that see different samples; context parallelism lets several processes share theirs."""
    compute = job.spec.compute
    return compute.nodes * compute.num_processes_per_node // experiment.parallel.context_parallel


def check_training(training: TrainingSpec) -> list[str]:
    """Problems of the experiment's name and of the overrides, one line each."""
    try:
        get_experiment(training.experiment)
    except ConfigError as error:
        return [f"spec.training.{error}"]
    problems = []
    for number, override in enumerate(training.overrides):
        field = FIELDS_OF_OPTIONS.get(override.partition("=")[0].strip())
        if field is not None:
            where = f"spec.training.overrides[{number}]"
            problems.append(f"{where}: got {override!r}; use {field} instead")
    try:
        get_experiment(training.experiment, training.overrides)
    except ConfigError as error:
        one_by_one = _check_overrides(training)
        problems += one_by_one or [f"spec.training.{line}" for line in str(error).splitlines()]
    return problems


def _check_overrides(training: TrainingSpec) -> list[str]:
    """Problems that single overrides have by themselves."""
    problems = []
    for number, override in enumerate(training.overrides):
        try:
            get_experiment(training.experiment, [override])
        except ConfigError as error:
            where = f"spec.training.overrides[{number}]"
            problems += [f"{where}: {_without_place(line)}" for line in str(error).splitlines()]
    return problems


def _without_place(line: str) -> str:
    """A problem of an override without the word in front that its field says already."""
    return re.sub(r"^overrides(\.|: )", "", line)


def check_job(job: PostTrainingJob) -> list[str]:
    """All problems of a job whose fields are valid one by one, one line each."""
    items, context = job.spec.inference, _context_of_items(job)
    problems = _check_camera(job) + check_items(items, context) + check_storage(job)
    problems += _check_starting_point(job)
    problems += check_single_objects(job) + check_pods(job)
    if training := check_training(job.spec.training):
        return training + problems
    try:
        experiment = resolve_experiment(job)
    except ConfigError as error:
        return [f"spec.training.{line}" for line in str(error).splitlines()] + problems
    problems += model_problems(job, experiment)
    problems += _check_batch(job, experiment) + _check_step(job, experiment)
    problems += _check_weights(job, experiment)
    problems += _check_adapter(job, experiment) + _check_frame_rate(job, experiment)
    return problems + check_sampling(items, context, experiment)


def _context_of_items(job: PostTrainingJob) -> ItemContext:
    spec = job.spec
    return ItemContext(
        "spec.inference",
        spec.prompt_upsampler.source is not None,
        spec.guardrails.source is not None,
        spec.compute.gpus_per_node,
    )


def check_single_objects(job: Job) -> list[str]:
    """Sources that name a file of weights in a bucket, where a folder is needed."""
    return [
        f"{where}.s3.uri: {source.s3.uri!r} is one file of weights, which only spec.model.source can be; give the "
        "prefix of a folder, or an archive (.tar, .tar.gz, .tgz, .tar.bz2, .tar.xz)"
        for where, source in job.sources
        if source.s3 is not None
        and source.s3.uri.endswith(WEIGHT_SUFFIXES)
        and where != "spec.model.source"
    ]


def _check_starting_point(job: PostTrainingJob) -> list[str]:
    """A checkpoint to start from that cannot be one."""
    start = job.spec.checkpoints.start_from
    if start is None:
        return []
    if start.job == job.name:
        return [
            f"spec.checkpoints.from.job: {start.job!r} is this job, which continues from its own checkpoints anyway; "
            "remove it"
        ]
    if start.folder is not None:
        return check_address(start.folder, "spec.checkpoints.from.folder", ("checkpoints",))
    return []


def _check_batch(job: PostTrainingJob, experiment: Experiment) -> list[str]:
    compute, trainer = job.spec.compute, experiment.trainer
    processes = compute.nodes * compute.num_processes_per_node
    share = experiment.parallel.context_parallel
    machines = (
        f"{counted(compute.nodes, 'node')} x "
        f"{counted(compute.num_processes_per_node, 'process', 'processes')}"
    )
    if processes % share:
        frames = [experiment.latent_frames(video) for video in experiment.windows]
        shares = divisors(math.gcd(processes, *frames))
        return [
            f"spec.compute: parallel.context_parallel={share} does not divide {machines} = {processes}; use a multiple "
            f"of {share} processes, or override parallel.context_parallel with {_one_of(shares)}"
        ]
    groups, total = num_data_groups(job, experiment), trainer.global_batch_size
    unit = groups * trainer.least_micro_batch
    if total % unit == 0:
        return []
    per_group = divisors(total // groups) if total % groups == 0 else []
    usable = [size for size in per_group if size <= MAX_MICRO_BATCH]
    advice = [f"override trainer.global_batch_size with a multiple of {unit}"]
    if usable:
        advice.append(f"trainer.micro_batch_size with {_one_of(usable)}")
    shared = f" / parallel.context_parallel {share}" if share > 1 else ""
    return [
        f"spec.compute: {machines}{shared} x micro-batch {trainer.least_micro_batch} = {unit} samples "
        f"do not divide the global batch of {total}; " + " or ".join(advice)
    ]


def _one_of(numbers: Sequence[int]) -> str:
    """Numbers of which one is to be taken, in words."""
    return f"{'one of ' if len(numbers) > 1 else ''}{', '.join(map(str, numbers))}"


def _check_step(job: PostTrainingJob, experiment: Experiment) -> list[str]:
    step, trainer = job.spec.outputs.step, experiment.trainer
    if job.spec.outputs.checkpoint == "Best" and not trainer.keep_best:
        return [
            "spec.outputs.checkpoint: 'Best' needs held-out losses of the checkpoints; add trainer.keep_best=true to "
            "spec.training.overrides"
        ]
    if step is None or step == trainer.max_steps:
        return []
    if step > trainer.max_steps or step % trainer.save_every_steps:
        return [
            f"spec.outputs.step: no checkpoint is written at step {step}; use a multiple of "
            f"{trainer.save_every_steps} up to {trainer.max_steps}, or {trainer.max_steps}"
        ]
    return []


def _check_weights(job: PostTrainingJob, experiment: Experiment) -> list[str]:
    outputs = job.spec.outputs
    if outputs.weights != "Ema" or experiment.ema.enabled:
        return []
    given = "'Ema'" if "weights" in outputs.model_fields_set else "'Ema' (the default)"
    return [
        f"spec.outputs.weights: {given}, but the experiment keeps no average (ema.enabled=false); set "
        "spec.outputs.weights: Regular"
    ]


def _check_adapter(job: PostTrainingJob, experiment: Experiment) -> list[str]:
    if not job.spec.outputs.adapter or experiment.lora.rank:
        return []
    return [
        "spec.outputs.adapter: true, but the experiment trains all weights (lora.rank 0), so that there is no adapter; "
        "add lora.rank=16 to spec.training.overrides, or remove it"
    ]


def _check_frame_rate(job: PostTrainingJob, experiment: Experiment) -> list[str]:
    if job.spec.dataset.frame_rate != "Resample":
        return []
    if all(window.fps is not None for window in experiment.windows):
        return []
    needed = "give every bucket an fps in the override buckets=[..]"
    if not experiment.buckets:
        needed = "add video.fps=30, or another rate, to spec.training.overrides"
    return [
        "spec.dataset.frameRate: 'Resample' takes frames at the rate of the experiment's windows, which have none; "
        f"{needed}"
    ]


def _check_camera(job: PostTrainingJob) -> list[str]:
    """Camera fields that the layout of the dataset does not use."""
    dataset = job.spec.dataset
    problems = []
    if dataset.camera_name is not None and dataset.layout != "LeRobot":
        problems.append(
            f"spec.dataset.cameraName: {dataset.camera_name!r} chooses a camera of the layout LeRobot, the layout is "
            f"{dataset.layout}; remove it"
            + (" or use spec.dataset.camera" if dataset.layout == "Bridge" else "")
        )
    if dataset.camera and dataset.layout != "Bridge":
        instead = "use spec.dataset.cameraName" if dataset.layout == "LeRobot" else "remove it"
        problems.append(
            f"spec.dataset.camera: {dataset.camera} chooses a video of an annotation (layout Bridge), the layout is "
            f"{dataset.layout}; {instead}"
        )
    return problems


def check_storage(job: Job) -> list[str]:
    """Claims that are asked for twice with different properties, or with too narrow an access mode."""
    problems = []
    first: dict[str, str] = {}
    storage = job.spec.storage
    for volume in VOLUMES:
        spec = getattr(storage, volume)
        if spec.create is None:
            continue
        other = first.setdefault(spec.claim_name, volume)
        if getattr(storage, other).create != spec.create:
            problems.append(
                f"spec.storage.{volume}.create: differs from spec.storage.{other}.create of the same claim "
                f"{spec.claim_name!r}; make them equal or give one of them"
            )
        if job.spec.compute.nodes > 1 and spec.create.access_mode == "ReadWriteOnce":
            problems.append(
                f"spec.storage.{volume}.create.accessMode: ReadWriteOnce does not serve "
                f"{job.spec.compute.nodes} nodes; use ReadWriteMany"
            )
    return problems
