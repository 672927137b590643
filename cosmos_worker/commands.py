"""Commands beside the stages: list the presets, plan memory, look at the machine. No torch is loaded."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from cosmos_worker.arguments import CHECK, CHECK_DATASET, EXPERIMENTS, PLAN
from cosmos_worker.config.experiment import Experiment
from cosmos_worker.config.presets import (
    PRESETS,
    Preset,
    get_experiment,
)
from cosmos_worker.config.stages import GenerateConfig
from cosmos_worker.config.values import (
    GIB,
    gib,
    parse_size,
)
from cosmos_worker.errors import ConfigError
from cosmos_worker.memory.choice import choose
from cosmos_worker.memory.plan import MemoryPlan, Setup, loading_bytes, plan_memory, saving_bytes
from cosmos_worker.memory.remedies import require_fit
from cosmos_worker.memory.sizes import (
    checkpoint_bytes,
    largest_window,
    tokens_per_sample,
    trained_parameters,
)
from cosmos_worker.runtime.machine_check import (
    Line,
    Needs,
    check_machine,
    needs_of_document,
    parse_needs,
    read_document,
    require_all,
)
from cosmos_worker.stages import check_dataset
from cosmos_worker.storage.files import counted
from cosmos_worker.storage.volumes import Volumes


def _write(lines: Iterator[str] | Sequence[str]) -> None:
    """Write lines to standard output; a reader that closes the pipe, such as head, is no failure."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # names of files, on a terminal without UTF-8
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        for line in lines:
            sys.stdout.write(f"{line}\n")
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at exit


# --- experiments -----------------------------------------------------------------------------


def describe_preset(preset: Preset) -> Iterator[str]:
    """A few lines: name, purpose, sizes, hardware."""
    experiment, trainer = preset.experiment, preset.experiment.trainer
    fps = "the video's fps" if experiment.video.fps is None else f"{experiment.video.fps:g} fps"
    yield experiment.name
    yield f"  {preset.description}"
    yield (
        f"  {_window(experiment)}, {fps}, {tokens_per_sample(experiment):,} tokens; "
        f"{trainer.max_steps} steps of {trainer.global_batch_size} samples"
    )
    yield f"  {_needs(preset)}"


def _window(experiment: Experiment) -> str:
    video = largest_window(experiment)
    size = f"{video.num_pixel_frames} frames of {video.height}x{video.width}"
    number = len(experiment.buckets)
    return f"{size} (largest of {number} buckets)" if number else size


def preset_setup(preset: Preset) -> Setup | None:
    """The memory setup of a preset on its hardware; None without GPUs."""
    hardware = preset.hardware
    if hardware is None:
        return None
    return choose(
        Setup(
            preset.experiment,
            num_gpus=hardware.num_gpus,
            gpu_memory=hardware.gpu_memory_gib * GIB,
            **preset.experiment.parallel.model_dump(),
        )
    )


def _needs(preset: Preset) -> str:
    setup = preset_setup(preset)
    if setup is None or preset.hardware is None:
        return "a CPU"
    needed = gib(plan_memory(setup).total)
    size, gpus = preset.hardware.gpu_memory_gib, counted(setup.num_gpus, "GPU")
    return f"{gpus} of {size} GB: {needed} each (estimate)"


def _experiments(_: argparse.Namespace) -> None:
    _write([line for preset in PRESETS for line in describe_preset(preset)])


# --- plan ------------------------------------------------------------------------------------


def describe_plan(plan: MemoryPlan) -> Iterator[str]:
    """Sizes, batch arithmetic, and memory by part, a line each."""
    yield from (f"{name:<18}{text}" for name, text in _facts(plan))
    yield ""
    yield f"{'memory per GPU':<18}{'GiB':>8}"
    yield from (
        f"{name:<18}{size / GIB:>8.2f}  {note}".rstrip() for name, size, note in _parts(plan)
    )
    verdict = "fits" if plan.fits else "DOES NOT FIT"
    yield f"{'total':<18}{plan.total / GIB:>8.2f}  of {plan.setup.gpu_memory / GIB:.2f}: {verdict}"


def _facts(plan: MemoryPlan) -> Iterator[tuple[str, str]]:
    setup, experiment, size = plan.setup, plan.setup.experiment, plan.size
    tokens, batch = tokens_per_sample(experiment), experiment.trainer.global_batch_size
    yield "experiment", experiment.name
    yield "parameters", f"{size.parameters:,} in {size.entries} entries of a weight file"
    yield "trained", f"{trained_parameters(experiment):,}"
    yield "sample", f"{_window(experiment)} = {tokens:,} tokens"
    most = "at most " if len(experiment.buckets) > 1 else ""
    yield "step", f"{batch} samples = {most}{batch * tokens:,} tokens"
    forward = setup.micro_batch_size * tokens // setup.context_parallel
    shared = f" shared by {setup.context_parallel}" if setup.context_parallel > 1 else ""
    yield (
        "per GPU",
        f"samples={setup.samples_per_group}{shared}, tokens of a forward pass={forward:,}",
    )
    yield (
        "layout",
        f"gpus={setup.num_gpus} sharding={setup.sharding} shards={setup.num_shards} "
        f"activation_checkpointing={setup.activation_checkpointing} linear={experiment.acceleration.linear}",
    )
    yield (
        "disk",
        f"{gib(checkpoint_bytes(experiment))} for the checkpoints and exports that are kept",
    )
    yield (
        "host memory",
        f"{gib(loading_bytes(setup))} for pages of the weight file, which can be taken back; "
        f"{gib(saving_bytes(setup))} on the first node until a checkpoint is written (estimate)",
    )


def _parts(plan: MemoryPlan) -> Iterator[tuple[str, int, str]]:
    frozen = "bfloat16 where frozen" if plan.setup.experiment.lora.rank else "float32"
    yield "weights", plan.weights, frozen
    yield "gradients", plan.gradients, "float32"
    bits = plan.setup.experiment.optimizer.state_bits
    yield (
        "optimizer states",
        plan.optimizer,
        "two moments, float32" if bits == 32 else "two moments, 8 bits",
    )
    yield "EMA", plan.ema, "float32" if plan.ema else "off"
    yield "copies", plan.copies, "estimate: gathered or rounded weights, gradients on their way"
    yield "activations", plan.activations, "estimate"
    if plan.setup.experiment.trainer.sample_every_steps is not None:
        tokenizer, decoding = gib(plan.tokenizer), gib(plan.decoding)
        yield (
            "sample videos",
            plan.samples,
            f"main process, estimate: tokenizer {tokenizer}; decoding {decoding}, where gradients and activations were",
        )
    yield "headroom", plan.headroom, "CUDA, NCCL, fragmentation"


def _plan(options: argparse.Namespace) -> None:
    experiment = get_experiment(options.experiment, options.overrides)
    setup = Setup(
        experiment,
        num_gpus=options.gpus,
        gpus_per_node=min(options.gpus, options.gpus_per_node),
        gpu_memory=options.gpu_memory,
        **experiment.parallel.model_dump(),
    )
    plan = plan_memory(choose(setup))
    _write(describe_plan(plan))
    require_fit(plan)


# --- check -----------------------------------------------------------------------------------


def parse_disk(text: str) -> tuple[Path, int]:
    """Folder and bytes of ``FOLDER`` or ``FOLDER=SIZE``.

    Raises:
        ConfigError: not a size.
    """
    folder, separator, size = text.rpartition("=")
    if not separator:
        return Path(text), 0
    try:
        return Path(folder), parse_size(size)
    except ValueError as error:
        raise ConfigError(f"--disk {text}: {error}") from None


def _auxiliary_model_lines(document: Path, volumes: Volumes) -> list[Line]:
    """Upsampler and guardrails of a generate document, if it asks for them."""
    config = read_document(document)
    if not isinstance(config, GenerateConfig):
        return []
    from cosmos_worker.guardrails.check import auxiliary_model_lines

    return list(auxiliary_model_lines(config, volumes))


def _check(options: argparse.Namespace) -> None:
    needs = Needs(parse_needs(options.needs), tuple(parse_disk(text) for text in options.disk))
    auxiliary_models: list[Line] = []
    if options.document is not None:
        volumes = Volumes.from_environment(os.environ)
        of_document = needs_of_document(options.document, volumes)
        needs = Needs(needs.items | of_document.items, needs.folders + of_document.folders)
        auxiliary_models = _auxiliary_model_lines(options.document, volumes)
    lines = [*check_machine(needs, os.environ), *auxiliary_models]
    _write([str(line) for line in lines])
    require_all(lines)


# --- check-dataset ---------------------------------------------------------------------------


def _check_dataset(options: argparse.Namespace) -> None:
    check_dataset.run(options, _write)


PRINTING: dict[str, Callable[[argparse.Namespace], None]] = {
    EXPERIMENTS: _experiments,
    PLAN: _plan,
    CHECK: _check,
    CHECK_DATASET: _check_dataset,
}
"""Commands whose result is what they print."""
