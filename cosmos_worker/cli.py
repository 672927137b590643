"""Command line of the worker: one command per stage of a job, and those that are run by hand.

There are three kinds of commands:

* stages (``stages/``) take a stage document, leave a completion marker and are skipped where it exists;
* ``export`` and ``video2world`` take their options from the command line and are stopped and reported like stages;
* those of ``commands.py`` print what they find.

``train`` with words after ``--`` is the reference's command line. ``--help`` imports no torch.
"""

from __future__ import annotations

import argparse
import faulthandler
import logging
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from cosmos_worker.commands import add_commands
from cosmos_worker.config.overrides import load_stage_config
from cosmos_worker.config.stages import STAGE_CONFIGS
from cosmos_worker.errors import EXIT_OK, EXIT_SIGNAL, WorkerError
from cosmos_worker.reference import train as reference_train
from cosmos_worker.reference import video2world_flags
from cosmos_worker.runtime import launch
from cosmos_worker.runtime.failures import classify
from cosmos_worker.runtime.outcome import Outcome
from cosmos_worker.runtime.process_group import ProcessGroup, is_started_by_torchrun
from cosmos_worker.runtime.signals import StopNow, terminate_with_parent
from cosmos_worker.runtime.stage_process import (
    configure_logging,
    disable_library_bars,
    exit_process,
    failed,
    is_launched,
    report_end,
    stopped,
    stopping_at_once,
)
from cosmos_worker.stages import export
from cosmos_worker.stages.run_stage import lock_content, run_stage
from cosmos_worker.storage.volumes import Volumes

logger = logging.getLogger("cosmos_worker.cli")  # also when run as __main__

STAGE_HELP = {
    "fetch-model": "fetch weights, tokenizer and text encoder",
    "prepare-dataset": "fetch and check a dataset, write its index",
    "embed-text": "compute T5 embeddings of all captions",
    "cache-latents": "encode every window of the dataset",
    "check-inputs": "read all that the inference items name, before the training",
    "train": "post-train the model",
    "publish": "publish a checkpoint as <name>/model.pt",
    "generate": "sample videos from a checkpoint",
    "report": "write report.html of a run and its videos",
}
PARALLEL_STAGES = ("train", "cache-latents", "generate")
"""Stages that several processes can share."""
VIDEO2WORLD = video2world_flags.COMMAND
VIDEO2WORLD_HELP = "sample videos by the flags of the reference's inference command"
PROCESS_COMMANDS = (*STAGE_CONFIGS, export.COMMAND, VIDEO2WORLD)
"""Commands that are stopped by signals and report their end as a stage does; the others print what they find."""

assert set(STAGE_HELP) == set(STAGE_CONFIGS)


def build_parser() -> argparse.ArgumentParser:
    """The argument parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="cosmos-worker", description="Stages of a Cosmos post-training job."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="STAGE")
    for stage, text in STAGE_HELP.items():
        _add_stage_arguments(commands.add_parser(stage, help=text, description=text), stage)
    add_commands(commands)
    export.add_arguments(
        commands.add_parser(export.COMMAND, help=export.HELP, description=export.HELP)
    )
    video2world_flags.add_flags(
        commands.add_parser(VIDEO2WORLD, help=VIDEO2WORLD_HELP, description=VIDEO2WORLD_HELP)
    )
    return parser


def _add_stage_arguments(command: argparse.ArgumentParser, stage: str) -> None:
    command.add_argument("--config", type=Path, required=True, help="stage document (YAML)")
    command.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="overrides",
        help="override a value",
    )
    if stage in PARALLEL_STAGES:
        command.add_argument(
            "--nproc-per-node",
            type=int,
            default=None,
            metavar="N",
            help="start N processes through torchrun",
        )


def _parse(given: Sequence[str]) -> argparse.Namespace:
    """Options of a command line; KEY=VALUE of a command that prints may stand anywhere, also after its options."""
    parser = build_parser()
    options, others = parser.parse_known_args(given)
    takes_any = options.command not in PROCESS_COMMANDS and hasattr(options, "overrides")
    wrong = [one for one in others if not takes_any or one.startswith("-") or "=" not in one]
    if wrong:
        parser.error(f"unrecognized arguments: {' '.join(wrong)}")
    if others:
        options.overrides = [*options.overrides, *others]
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``cosmos-worker``; returns the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if reference_train.is_reference(given):
        return _train_as_reference(given)
    options = _parse(given)
    if options.command in PROCESS_COMMANDS:
        return _run_as_process(options, given)
    return _run_printing(options)


def _train_as_reference(arguments: Sequence[str]) -> int:
    """Train as a command line of the reference says."""
    configure_logging()
    try:
        own = reference_train.write_document(arguments, os.environ)
    except WorkerError as error:
        return report_end(classify(error))
    return EXIT_OK if own is None else main(own)


def _run_printing(options: argparse.Namespace) -> int:
    """Run a command whose result is what it prints."""
    configure_logging()
    try:
        options.run(options)
    except (WorkerError, OSError) as error:
        return report_end(classify(error))
    except KeyboardInterrupt:
        return EXIT_SIGNAL + signal.SIGINT
    return EXIT_OK


def _run_as_process(options: argparse.Namespace, given: Sequence[str]) -> int:
    """Run a stage, ``export`` or ``video2world``, in this process or in processes that this one starts.

    Every exception ends here and becomes an outcome: exit code, reason and one line for people.
    """
    is_launcher = _starts_processes(options)
    configure_logging(is_launcher)
    disable_library_bars()
    if is_launched():
        terminate_with_parent()
    try:
        if is_launcher:
            return _start_processes(options, given)
        outcome = _run_here(options)
    except StopNow as stop:
        outcome = stopped(options.command, str(stop))
    except (
        Exception
    ) as error:  # the edge of the program: every failure has an exit code and one line
        outcome = failed(error)
    return report_end(outcome)


def _starts_processes(options: argparse.Namespace) -> bool:
    """True if this process starts others through torchrun and waits for them."""
    if options.command == VIDEO2WORLD:
        return options.num_gpus > 1 and not is_started_by_torchrun(os.environ)
    return getattr(options, "nproc_per_node", None) is not None


def _start_processes(options: argparse.Namespace, given: Sequence[str]) -> int:
    """Start the processes of this node with the same command line; returns the exit code of the first that failed."""
    if options.command == VIDEO2WORLD:
        video2world_flags.check_flags(options)
        program = ["--module", "cosmos_worker.cli", *given]
        return launch.launch_program(program, options.num_gpus, os.environ)
    stage, config, overrides = options.command, options.config, options.overrides
    document = load_stage_config(stage, config, overrides)  # a wrong one fails here, once
    volumes = Volumes.from_environment(os.environ)
    with ExitStack() as stack:
        with stopping_at_once(stage):
            stack.enter_context(lock_content(stage, document, volumes))
        return launch.launch(stage, config, overrides, options.nproc_per_node)


def _run_here(options: argparse.Namespace) -> Outcome:
    """Run the command in this process."""
    if options.command in STAGE_CONFIGS:
        config = load_stage_config(options.command, options.config, options.overrides)
        with stopping_at_once(options.command):
            volumes = Volumes.from_environment(os.environ)
            return run_stage(options.command, config, volumes, is_alone=is_launched())
    with stopping_at_once(options.command):
        return export.run(options) if options.command == export.COMMAND else _sample(options)


def _sample(options: argparse.Namespace) -> Outcome:
    """Sample videos as the flags of the reference's inference command say."""
    from cosmos_worker.reference import video2world

    processes = ProcessGroup.from_environment(os.environ)
    result = video2world.run(options, processes.world_size, processes.is_main)
    message = f"wrote {result['videos']} videos to {result['folder']}"
    logger.info("%s", message)
    return Outcome(EXIT_OK, "Succeeded", message, result=result)


if __name__ == "__main__":
    faulthandler.enable()
    exit_process(main())
