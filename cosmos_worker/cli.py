"""Command line of the worker: one command per stage of a job, and those that are run by hand.

There are three kinds of commands:

* stages (``stages/``) take a stage document, leave a completion marker and are skipped where it exists;
* ``export`` and ``video2world`` take their options from the command line and are stopped and reported like stages;
* those of ``commands.py`` print what they find.

``train`` with words after ``--`` is the reference's command line. ``arguments.py`` has the options of all commands.
What a command needs is imported once it is known which one it is: ``--help`` imports neither torch nor pydantic.
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

from cosmos_worker.arguments import PROCESS_COMMANDS, STAGE_HELP, VIDEO2WORLD, VIEW, parse
from cosmos_worker.errors import EXIT_OK, EXIT_SIGNAL, WorkerError
from cosmos_worker.reference import video2world_flags
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
from cosmos_worker.runtime.stall import answer_with_stacks
from cosmos_worker.stages import export

logger = logging.getLogger("cosmos_worker.cli")  # also when run as __main__


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``cosmos-worker``; returns the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if is_reference(given):
        return _train_as_reference(given)
    options = parse(given)
    if options.command in PROCESS_COMMANDS:
        return _run_as_process(options, given)
    return _run_printing(options)


def is_reference(arguments: Sequence[str]) -> bool:
    """True if the command line is written as the reference's trainer's: train with words after ``--``."""
    return bool(arguments) and arguments[0] == "train" and "--" in arguments


def _train_as_reference(arguments: Sequence[str]) -> int:
    """Train as a command line of the reference says."""
    from cosmos_worker.reference import train as reference_train

    configure_logging()
    try:
        own = reference_train.write_document(arguments, os.environ)
    except WorkerError as error:
        return report_end(classify(error))
    return EXIT_OK if own is None else main(own)


def _run_printing(options: argparse.Namespace) -> int:
    """Run the viewer, or a command whose result is what it prints."""
    configure_logging()
    try:
        if options.command == VIEW:  # the image of the operator has it, which lacks most packages
            from cosmos_worker.view import server

            server.run(options)
        else:
            from cosmos_worker.commands import PRINTING

            PRINTING[options.command](options)
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
        answer_with_stacks()
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
    from cosmos_worker.config.overrides import load_stage_config
    from cosmos_worker.runtime import launch
    from cosmos_worker.stages.run_stage import lock_content
    from cosmos_worker.storage.volumes import Volumes

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
    if options.command in STAGE_HELP:
        from cosmos_worker.config.overrides import load_stage_config
        from cosmos_worker.stages.run_stage import run_stage
        from cosmos_worker.storage.volumes import Volumes

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
