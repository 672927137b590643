"""The parser of the command line: all commands with their options, and what kinds of commands there are.

``--help`` and a wrong option answer at once: this file imports neither torch nor pydantic.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from cosmos_worker.config.choices import NEEDS, DatasetLayout, Fit, FrameRate
from cosmos_worker.reference import video2world_flags
from cosmos_worker.stages import export

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
PROCESS_COMMANDS = (*STAGE_HELP, export.COMMAND, VIDEO2WORLD)
"""Commands that are stopped by signals and report their end as a stage does; the others print what they find."""
EXPERIMENTS, PLAN, CHECK, CHECK_DATASET = "experiments", "plan", "check", "check-dataset"
VIEW = "view"
PRINTING_HELP = {
    EXPERIMENTS: "list the experiments, their sizes and the GPUs they need",
    PLAN: "memory per GPU of a training, before it is started",
    CHECK: "devices, packages and disks of this machine, and what a document needs",
    CHECK_DATASET: "the report of prepare-dataset on a folder, without a job; nothing is written into the folder",
    VIEW: "serve pages of the runs, videos and datasets in a folder to a browser",
}
DEFAULT_EXPERIMENT = "video2world_instruction_bridge_57frames"
"""Experiment whose windows count where check-dataset is given none."""


def parse(given: Sequence[str]) -> argparse.Namespace:
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


def build_parser() -> argparse.ArgumentParser:
    """The argument parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="cosmos-worker", description="Stages of a Cosmos post-training job."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="STAGE")

    def add(name: str, text: str) -> argparse.ArgumentParser:
        command: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
        return command

    for stage, text in STAGE_HELP.items():
        _add_stage_arguments(add(stage, text), stage)
    add_printing: dict[str, Any] = {
        PLAN: _add_plan_arguments,
        CHECK: _add_check_arguments,
        CHECK_DATASET: _add_check_dataset_arguments,
        VIEW: add_view_arguments,
    }
    for name, text in PRINTING_HELP.items():
        command = add(name, text)
        if name in add_printing:
            add_printing[name](command)
    export.add_arguments(add(export.COMMAND, export.HELP))
    video2world_flags.add_flags(add(VIDEO2WORLD, VIDEO2WORLD_HELP))
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


def _add_check_dataset_arguments(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("folder", metavar="FOLDER", help="the dataset, or a folder at most three above it")
    add("overrides", nargs="*", metavar="KEY=VALUE", help="options of the experiment")
    add("--experiment", default=DEFAULT_EXPERIMENT, metavar="NAME",
        help="its windows and batch size count; see cosmos-worker experiments (default: %(default)s)")  # fmt: skip
    add("--layout", type=str.lower, choices=get_args(DatasetLayout),
        help="default: what the folder looks like")  # fmt: skip
    add("--camera", type=int, metavar="N", help="index into an annotation's videos (layout bridge)")
    add("--camera-name", metavar="NAME", help="feature with the videos (layout lerobot)")
    add("--frame-rate", type=str.lower, choices=get_args(FrameRate),
        help="clips must have a constant rate, or are resampled to video.fps (default: constant)")  # fmt: skip
    add("--fit", type=str.lower, choices=get_args(Fit),
        help="how clips of another aspect ratio fill the window (default: stretch)")  # fmt: skip
    add("--validation-fraction", type=float, metavar="SHARE",
        help="share of the training episodes to hold out, if there is no split val")  # fmt: skip
    add("--validation-seed", type=int, metavar="N", help="seed of their draw (default: 0)")
    add("--max-bad-fraction", type=float, metavar="SHARE",
        help="share of unusable clips up to which the dataset passes (default: 0.05)")  # fmt: skip
    add("--num-workers", type=int, metavar="N",
        help="clips that are checked at the same time (default: one a CPU)")  # fmt: skip
    add("--json", action="store_true", help="print one JSON object instead of the report")


def add_view_arguments(command: argparse.ArgumentParser) -> None:
    """Add the options of the viewer, which are those of ``cosmos view`` too."""
    add = command.add_argument
    add("folder", nargs="?", default=".", metavar="FOLDER",
        help="workspace of cosmos run, folder of a claim, or one above (default: this folder)")  # fmt: skip
    add("--host", default="127.0.0.1",
        help="address to listen at; * = all of this machine, without a password (default: %(default)s)")  # fmt: skip
    add("--port", type=_port, default=8080, help="0 = any that is free (default: %(default)s)")
    add("--data", action="append", default=[], metavar="DIR",
        help="further folder whose videos may be shown, such as that of a dataset; may be repeated")  # fmt: skip
    add("--allow-host", action="append", default=[], metavar="NAME",
        help="name under which a proxy serves it, such as cosmos.example.com; may be repeated")  # fmt: skip
    add("--tensorboard", metavar="URL", help="address of a TensorBoard to link to")


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"got {text!r}; expected a number from 0 to 65535")
    return int(text)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"got {text!r}; expected a whole number of at least 1")
    return int(text)


def _size(text: str) -> int:
    from cosmos_worker.config.values import parse_size

    try:
        return parse_size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
