"""Command line of the worker: one subcommand per stage. ``--help`` imports no torch.

This is the file that finds the volumes in the environment, configures logging and turns errors into exit codes.
"""

from __future__ import annotations

import argparse
import faulthandler
import importlib
import json
import logging
import os
import sys
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import NoReturn

from cosmos_worker import launch, outcomes, termination
from cosmos_worker.config import STAGE_CONFIGS, StageConfig
from cosmos_worker.documents import load_stage_config
from cosmos_worker.errors import EXIT_CONTINUE, EXIT_OK
from cosmos_worker.failures import classify
from cosmos_worker.layout import Volumes, marker_path, read_marker, write_json
from cosmos_worker.outcomes import Outcome
from cosmos_worker.progress import shows_bars
from cosmos_worker.stopping import StopNow, prompt_stop, terminate_with_parent

logger = logging.getLogger("cosmos_worker.cli")  # also when run as __main__

STAGE_HELP = {
    "fetch-model": "fetch weights, tokenizer and text encoder",
    "prepare-dataset": "fetch and check a dataset, write its index",
    "embed-text": "compute T5 embeddings of all captions",
    "cache-latents": "encode every window of the dataset",
    "train": "post-train the model",
    "publish": "publish a checkpoint as <name>/model.pt",
    "generate": "sample videos from a checkpoint",
    "report": "write report.html of a run and its videos",
}
PARALLEL_STAGES = ("train", "cache-latents")
"""Stages that several processes can share."""


def build_parser() -> argparse.ArgumentParser:
    """The argument parser."""
    parser = argparse.ArgumentParser(
        prog="cosmos-worker", description="Stages of a Cosmos post-training job."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="STAGE")
    for stage, text in STAGE_HELP.items():
        command = commands.add_parser(stage, help=text, description=text)
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
    return parser


def configure_logging(is_launcher: bool = False) -> None:
    """Log to standard error, one line a record, times in UTC.

    Args:
        is_launcher: it starts the processes of a node; RANK in its environment, if any, is that of the node.
    """
    logging.Formatter.converter = time.gmtime
    rank = os.environ.get("RANK", "0")
    who = "launcher" if is_launcher else f"rank={rank}"
    logging.basicConfig(
        level=logging.INFO if is_launcher or rank == "0" else logging.WARNING,
        format=f"%(asctime)s %(levelname)s {who} %(name)s %(message)s",
        datefmt="%Y-%m-%dT%H:%M:%SZ",
        stream=sys.stderr,
        force=True,
    )


def silence_foreign_bars() -> None:
    """Where no bar can be seen, libraries must not draw theirs into the log; call before they are imported."""
    if not shows_bars():
        os.environ.setdefault("TQDM_DISABLE", "1")
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


def run_stage(stage: str, config: StageConfig, volumes: Volumes) -> Outcome:
    """Run a stage unless its completion marker exists, then write the marker."""
    target = volumes.resolve(config.target_uri)
    marker = read_marker(target, config.key)
    if marker is not None:
        logger.info("%s already done key=%s folder=%s", stage, config.key, target)
        message = f"{stage} was already done"
        return Outcome(EXIT_OK, "Succeeded", message, result=marker.get("result"))
    module = importlib.import_module(f"cosmos_worker.stages.{stage.replace('-', '_')}")
    started = time.monotonic()
    result = module.run(config, volumes)
    seconds = time.monotonic() - started
    if os.environ.get("RANK", "0") == "0":
        document = {"stage": stage, "config": config.model_dump(mode="json"), "result": result}
        write_json(marker_path(target, config.key), document)
        logger.info("%s done seconds=%.1f result=%s", stage, seconds, json.dumps(result))
    return Outcome(EXIT_OK, "Succeeded", f"{stage} done in {seconds:.1f} s", result=result)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``cosmos-worker``; returns the exit code."""
    options = build_parser().parse_args(arguments)
    is_launcher = options.command in PARALLEL_STAGES and options.nproc_per_node is not None
    configure_logging(is_launcher)
    silence_foreign_bars()
    if outcomes.folder_of(os.environ) is not None:
        terminate_with_parent()
    try:
        config = load_stage_config(options.command, options.config, options.overrides)
        if is_launcher:
            return launch.launch(
                options.command, options.config, options.overrides, options.nproc_per_node
            )
        with _stop_handling(options.command):
            outcome = run_stage(options.command, config, Volumes.from_environment(os.environ))
    except StopNow as stop:
        outcome = _stopped(options.command, str(stop))
    except (
        Exception
    ) as error:  # the edge of the program: say what it was, in the words of the contract
        outcome = classify(error)
        _log_failure(outcome, error)
    return _end(outcome)


def _stop_handling(stage: str) -> AbstractContextManager[None]:
    """The training listens by itself, and saves; every other stage ends at once."""
    if stage == "train":
        return nullcontext()

    def end_late() -> NoReturn:
        _end(_stopped(stage, "a signal"))
        os._exit(EXIT_CONTINUE)

    return prompt_stop(end_late)


def _stopped(stage: str, by: str) -> Outcome:
    message = f"{stage} was stopped by {by}; the same command continues with what is there"
    return Outcome(EXIT_CONTINUE, "Stopped", message)


def _log_failure(outcome: Outcome, error: Exception) -> None:
    """Log a failure; with a traceback where the error is not one that we raise on purpose."""
    if outcome.reason == "Bug":
        logger.error("bug in cosmos_worker, please report it", exc_info=error)
    elif outcome.reason in ("PeerLost", "GpuFault", "OutOfMemory"):
        logger.error("%s", outcome.reason, exc_info=error)


def _end(outcome: Outcome) -> int:
    """Say how this process ends; under a launcher, an orderly stop counts as success for torchrun."""
    folder = outcomes.folder_of(os.environ)
    if folder is not None:
        try:
            outcomes.write_outcome(folder, outcome, int(os.environ.get("RANK", "0")))
        except OSError as error:  # the exit code still says something
            logger.warning("%s: this process's outcome cannot be written: %s", folder, error)
        return EXIT_OK if outcome.exit_code == EXIT_CONTINUE else outcome.exit_code
    if outcome.exit_code == EXIT_CONTINUE:
        logger.info("%s: %s", outcome.reason, outcome.message)
    elif outcome.exit_code != EXIT_OK:
        logger.error("%s: %s", outcome.reason, outcome.message)
    result = {} if outcome.result is None else {"result": outcome.result}
    termination.write(outcome.reason, outcome.message, **result)
    return outcome.exit_code


def _leave(exit_code: int) -> NoReturn:
    """Exit; a training process that failed does so at once, as its libraries may wait for peers when they unload."""
    if exit_code != EXIT_OK and outcomes.folder_of(os.environ) is not None:
        logging.shutdown()
        os._exit(exit_code)
    sys.exit(exit_code)


assert set(STAGE_HELP) == set(STAGE_CONFIGS)

if __name__ == "__main__":
    faulthandler.enable()
    _leave(main())
