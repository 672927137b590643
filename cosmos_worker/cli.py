"""Command line of the worker: one subcommand per stage. ``--help`` imports no torch.

This is the file that finds the volumes in the environment, configures logging and turns errors into exit codes.
"""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from cosmos_worker import launch, termination
from cosmos_worker.config import STAGE_CONFIGS, StageConfig
from cosmos_worker.documents import load_stage_config
from cosmos_worker.errors import EXIT_BUG, EXIT_CONTINUE, EXIT_OK, EXIT_RETRY, WorkerError
from cosmos_worker.layout import Volumes, marker_path, read_marker, write_json

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
        if stage == "train":
            command.add_argument(
                "--nproc-per-node",
                type=int,
                default=None,
                metavar="N",
                help="start N processes through torchrun",
            )
    return parser


def configure_logging() -> None:
    """Log to standard error, one line a record, times in UTC."""
    logging.Formatter.converter = time.gmtime
    rank = os.environ.get("RANK", "0")
    logging.basicConfig(
        level=logging.INFO if rank == "0" else logging.WARNING,
        format=f"%(asctime)s %(levelname)s rank={rank} %(name)s %(message)s",
        datefmt="%Y-%m-%dT%H:%M:%SZ",
        stream=sys.stderr,
        force=True,
    )


def run_stage(stage: str, config: StageConfig, volumes: Volumes) -> None:
    """Run a stage unless its completion marker exists, then write the marker."""
    target = volumes.resolve(config.target_uri)
    if read_marker(target, config.key) is not None:
        logger.info("%s already done key=%s folder=%s", stage, config.key, target)
        return
    module = importlib.import_module(f"cosmos_worker.stages.{stage.replace('-', '_')}")
    started = time.monotonic()
    result = module.run(config, volumes)
    if os.environ.get("RANK", "0") == "0":
        document = {"stage": stage, "config": config.model_dump(mode="json"), "result": result}
        write_json(marker_path(target, config.key), document)
        logger.info(
            "%s done seconds=%.1f result=%s", stage, time.monotonic() - started, json.dumps(result)
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``cosmos-worker``; returns the exit code."""
    options = build_parser().parse_args(arguments)
    configure_logging()
    try:
        config = load_stage_config(options.command, options.config, options.overrides)
        if options.command == "train" and options.nproc_per_node is not None:
            return launch.launch(options.config, options.overrides, options.nproc_per_node)
        run_stage(options.command, config, Volumes.from_environment(os.environ))
    except WorkerError as error:
        return _end(error.exit_code, type(error).__name__, str(error))
    except OSError as error:
        return _end(EXIT_RETRY, "OSError", str(error))
    except Exception as error:  # the edge of the program: report, then exit as a bug
        logger.exception("bug in cosmos_worker, please report it")
        return _end(EXIT_BUG, "Bug", f"{type(error).__name__}: {error}")
    return EXIT_OK


def _end(exit_code: int, reason: str, message: str) -> int:
    """Say why this process ends; under a launcher, an orderly stop counts as success for torchrun."""
    if launch.write_outcome(os.environ, exit_code, reason, message):
        return EXIT_OK if exit_code == EXIT_CONTINUE else exit_code
    logger.log(
        logging.INFO if exit_code == EXIT_CONTINUE else logging.ERROR, "%s: %s", reason, message
    )
    termination.write(reason, message)
    return exit_code


assert set(STAGE_HELP) == set(STAGE_CONFIGS)

if __name__ == "__main__":
    sys.exit(main())
