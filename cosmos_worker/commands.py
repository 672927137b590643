"""Commands beside the stages: list the presets, plan memory, look at the machine. ``--help`` imports no torch."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

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
from cosmos_worker.memory.host import (
    loading_bytes,
    saving_bytes,
)
from cosmos_worker.memory.plan import (
    MemoryPlan,
    Setup,
    checkpoint_bytes,
    largest_window,
    plan_memory,
    tokens_per_sample,
    trained_parameters,
)
from cosmos_worker.memory.remedies import require_fit
from cosmos_worker.runtime.machine_check import (
    NEEDS,
    Line,
    Needs,
    check_machine,
    needs_of_document,
    parse_needs,
    read_document,
    require_all,
)
from cosmos_worker.stages import check_dataset
from cosmos_worker.storage.volumes import Volumes

Subparsers = Any  # argparse gives its type no public name


def add_commands(subparsers: Subparsers) -> None:
    """Add the commands; each sets ``run``, a function of the parsed options."""

    def add(name: str, run: Callable[[argparse.Namespace], None], text: str) -> Any:  # noqa: ANN401
        command = subparsers.add_parser(name, help=text, description=text)
        command.set_defaults(run=run)
        return command

    add("experiments", _experiments, "list the experiments, their sizes and the GPUs they need")
    _add_plan_arguments(add("plan", _plan, "memory per GPU of a training, before it is started"))
    _add_check_arguments(add("check", _check, "what this machine has, and what a job would miss"))
    text = "the report of prepare-dataset on a folder, without a job; nothing is written into the folder"
    check_dataset.add_arguments(add(check_dataset.COMMAND, _check_dataset, text))


def _add_plan_arguments(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--experiment", required=True, metavar="NAME", help="see cosmos-worker experiments")
    add("overrides", nargs="*", metavar="KEY=VALUE", help="options of the experiment")
    add("--gpus", type=_count, required=True, metavar="N", help="GPUs over all nodes")
    add("--gpus-per-node", type=_count, default=8, metavar="M", help="default: 8")
    add("--gpu-memory", type=_size, required=True, metavar="SIZE", help="of one GPU, such as 80GiB")


def _add_check_arguments(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--needs", default="", metavar="A,B", help=f"items that must be there: {', '.join(NEEDS)}")
    add(
        "--document",
        type=Path,
        metavar="STAGE.yaml",
        help="stage document that must be able to run",
    )
    add(
        "--disk",
        action="append",
        default=[],
        metavar="FOLDER[=SIZE]",
        help="folder that must be writable and have so much free space, such as /data=500GiB",
    )


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"got {text!r}; expected a whole number of at least 1")
    return int(text)


def _size(text: str) -> int:
    try:
        return parse_size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _write(lines: Iterator[str] | Sequence[str]) -> None:
    """Write lines to standard output; a reader that has seen enough, such as head, is no failure."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(
            errors="backslashreplace"
        )  # names of files, on a terminal without UTF-8
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
    """What the hardware of a preset means for its memory; None without GPUs."""
    hardware = preset.hardware
    if hardware is None:
        return None
    return Setup(
        preset.experiment,
        num_gpus=hardware.num_gpus,
        gpu_memory=hardware.gpu_memory_gib * GIB,
        **preset.experiment.parallel.model_dump(),
    )


def _needs(preset: Preset) -> str:
    setup = preset_setup(preset)
    if setup is None or preset.hardware is None:
        return "a CPU"
    needed = gib(plan_memory(setup).total)
    size, several = preset.hardware.gpu_memory_gib, "s" if setup.num_gpus > 1 else ""
    return f"{setup.num_gpus} GPU{several} of {size} GB: {needed} each (estimate)"


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
    plan = plan_memory(
        Setup(
            experiment,
            num_gpus=options.gpus,
            gpus_per_node=min(options.gpus, options.gpus_per_node),
            gpu_memory=options.gpu_memory,
            **experiment.parallel.model_dump(),
        )
    )
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


def _companion_lines(document: Path, volumes: Volumes) -> list[Line]:
    """Upsampler and guardrails of a generate document, if it asks for them."""
    config = read_document(document)
    if not isinstance(config, GenerateConfig):
        return []
    from cosmos_worker.guardrails.check import companion_lines

    return list(companion_lines(config, volumes))


def _check(options: argparse.Namespace) -> None:
    needs = Needs(parse_needs(options.needs), tuple(parse_disk(text) for text in options.disk))
    companions: list[Line] = []
    if options.document is not None:
        volumes = Volumes.from_environment(os.environ)
        of_document = needs_of_document(options.document, volumes)
        needs = Needs(needs.items | of_document.items, needs.folders + of_document.folders)
        companions = _companion_lines(options.document, volumes)
    lines = [*check_machine(needs, os.environ), *companions]
    _write([str(line) for line in lines])
    require_all(lines)


# --- check-dataset ---------------------------------------------------------------------------


def _check_dataset(options: argparse.Namespace) -> None:
    check_dataset.run(options, _write)
