"""Command line of the worker: one subcommand per stage, and those of ``commands.py``. ``--help`` imports no torch.

This is the file that finds the volumes in the environment, configures logging and turns errors into exit codes.
``export`` and ``video2world`` are no stages: they take their options from the command line and leave no marker.
"""

from __future__ import annotations

import argparse
import faulthandler
import importlib
import json
import logging
import math
import os
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from cosmos_worker.commands import add_commands
from cosmos_worker.config.overrides import load_stage_config
from cosmos_worker.config.stages import (
    STAGE_CONFIGS,
    StageConfig,
)
from cosmos_worker.errors import EXIT_CONTINUE, EXIT_OK, EXIT_SIGNAL, ConfigError, WorkerError
from cosmos_worker.reference import train as reference_train
from cosmos_worker.reference import video2world_flags
from cosmos_worker.runtime import (
    launch,
)
from cosmos_worker.runtime import (
    outcome as outcomes,
)
from cosmos_worker.runtime.failures import classify
from cosmos_worker.runtime.outcome import Outcome
from cosmos_worker.runtime.progress import shows_bars
from cosmos_worker.runtime.signals import (
    StopNow,
    prompt_stop,
    terminate_with_parent,
)
from cosmos_worker.storage.volumes import (
    Volumes,
    marker_path,
    read_marker,
    write_json,
)

if TYPE_CHECKING:
    import torch

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
EXPORT = "export"
PARALLEL_STAGES = ("train", "cache-latents", "generate")
"""Stages that several processes can share."""
CHECKED_STAGES = ("prepare-dataset",)
"""Stages with a ``check_done``, which refuses to serve a finished result of what has changed since."""
RENEWED_STAGES = ("fetch-model", "publish")
"""Stages with a ``find_lacking``, which run again where somebody has removed what they made."""


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
    add_commands(commands)
    _add_export(commands)
    _add_video2world(commands)
    return parser


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"got {text}; give a positive number")
    return value


def _add_video2world(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    text = "sample videos by the flags of the reference's inference command"
    video2world_flags.add_flags(
        commands.add_parser(video2world_flags.COMMAND, help=text, description=text)
    )


def _add_export(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    text = "write weights in another form: model.pt, safetensors, or a folder of diffusers"
    export = commands.add_parser(EXPORT, help=text, description=text)
    export.add_argument(
        "--from",
        required=True,
        metavar="PATH",
        dest="source",
        help="weight file or folder in any form that can be loaded",
    )
    export.add_argument(
        "--to", required=True, metavar="FOLDER", dest="target", help="new folder of the result"
    )
    export.add_argument("--format", required=True, choices=("pt", "safetensors", "diffusers"))
    export.add_argument(
        "--adapter",
        action="store_true",
        help="write only the LoRA corrections that the weights contain, as PEFT's adapter_model.safetensors and "
        "adapter_config.json; --format says whose names the layers have",
    )
    export.add_argument(
        "--base",
        metavar="MODEL",
        help="base_model_name_or_path of the adapter (default: the address that its training began with)",
    )
    export.add_argument(
        "--dtype",
        choices=("keep", "bfloat16", "float32"),
        default="keep",
        help="type of the tensors (default: as they are)",
    )
    export.add_argument(
        "--experiment",
        metavar="NAME",
        help="experiment whose network it is, where the folder of the weights does not say",
    )
    export.add_argument(
        "--max-shard-gib",
        type=_positive,
        metavar="GIB",
        help="largest file of safetensors (default: 4)",
    )
    export.add_argument(
        "--lora-scale",
        type=_positive,
        metavar="SCALE",
        help="factor of LoRA corrections in the weights, which are merged (NVIDIA's experiments: 1)",
    )
    export.add_argument(
        "--network",
        choices=("average", "regular"),
        help="which one is taken of a file that has the network and its average, such as net.* and net_ema.* (default: "
        "average)",
    )


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
    name = f"cosmos_worker.stages.{stage.replace('-', '_')}"
    if marker is not None and stage in RENEWED_STAGES:
        lacking = importlib.import_module(name).find_lacking(config, volumes, marker["result"])
        if lacking is not None:
            logger.warning("%s was done, but %s is gone; running again", stage, lacking)
            marker = None
    if marker is not None:
        if stage in CHECKED_STAGES:
            importlib.import_module(name).check_done(config, volumes)
        logger.info("%s already done key=%s folder=%s", stage, config.key, target)
        message = f"{stage} was already done"
        return Outcome(EXIT_OK, "Succeeded", message, result=marker.get("result"))
    module = importlib.import_module(name)
    started = time.monotonic()
    result = module.run(config, volumes)
    seconds = time.monotonic() - started
    if os.environ.get("RANK", "0") == "0":
        document = {"stage": stage, "config": config.model_dump(mode="json"), "result": result}
        write_json(marker_path(target, config.key), document)
        logger.info("%s done seconds=%.1f result=%s", stage, seconds, json.dumps(result))
    said = [f"{stage} done in {seconds:.1f} s", *([result["note"]] if "note" in result else [])]
    return Outcome(EXIT_OK, "Succeeded", "; ".join(said), result=result)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``cosmos-worker``; returns the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if reference_train.is_reference(given):
        return _run_reference(given)
    options = _parse(given)
    if options.command not in (*STAGE_CONFIGS, *BY_HAND):
        return _run_command(options)
    is_launcher = _starts_processes(options)
    configure_logging(is_launcher)
    silence_foreign_bars()
    if outcomes.folder_of(os.environ) is not None:
        terminate_with_parent()
    try:
        if options.command == video2world_flags.COMMAND and is_launcher:
            video2world_flags.check_flags(options)
            own = sys.argv[1:] if arguments is None else list(arguments)
            program = ["--module", "cosmos_worker.cli", *own]
            return launch.launch_program(program, options.num_gpus, os.environ)
        if options.command in BY_HAND:
            with _stop_handling(options.command):
                return _end(BY_HAND[options.command](options))
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


def _parse(given: Sequence[str]) -> argparse.Namespace:
    """Options of a command line; KEY=VALUE of a command that prints may stand anywhere, also after its options."""
    parser = build_parser()
    options, others = parser.parse_known_args(given)
    takes_any = options.command not in (*STAGE_CONFIGS, *BY_HAND) and hasattr(options, "overrides")
    wrong = [one for one in others if not takes_any or one.startswith("-") or "=" not in one]
    if wrong:
        parser.error(f"unrecognized arguments: {' '.join(wrong)}")
    if others:
        options.overrides = [*options.overrides, *others]
    return options


def _run_reference(arguments: Sequence[str]) -> int:
    """Train as the reference's command line says."""
    configure_logging()
    try:
        own = reference_train.write_document(arguments, os.environ)
    except WorkerError as error:
        return _end(classify(error))
    return EXIT_OK if own is None else main(own)


def _run_command(options: argparse.Namespace) -> int:
    """Run a command whose result is what it prints."""
    configure_logging()
    try:
        options.run(options)
    except (WorkerError, OSError) as error:
        return _end(classify(error))
    except KeyboardInterrupt:
        return EXIT_SIGNAL + signal.SIGINT
    return EXIT_OK


def _starts_processes(options: argparse.Namespace) -> bool:
    """Whether this process starts others through torchrun, and only waits for them."""
    if options.command == video2world_flags.COMMAND:
        return options.num_gpus > 1 and "WORLD_SIZE" not in os.environ
    return options.command in PARALLEL_STAGES and options.nproc_per_node is not None


def _video2world(options: argparse.Namespace) -> Outcome:
    """Sample videos as the command line says."""
    from cosmos_worker.reference import video2world

    processes, rank = (int(os.environ.get(n, d)) for n, d in (("WORLD_SIZE", "1"), ("RANK", "0")))
    result = video2world.run(options, processes, rank == 0)
    message = f"wrote {result['videos']} videos to {result['folder']}"
    logger.info("%s", message)
    return Outcome(EXIT_OK, "Succeeded", message, result=result)


def _export(options: argparse.Namespace) -> Outcome:
    """Convert weights as the command line says."""
    import torch

    from cosmos_worker.weights.convert import (
        convert_weights,
        find_network,
    )
    from cosmos_worker.weights.safetensors import Limits

    volumes = Volumes.from_environment(os.environ)
    source, target = volumes.resolve(options.source), volumes.resolve(options.target)
    dtype = None if options.dtype == "keep" else getattr(torch, options.dtype)
    _check_adapter_options(options)
    if options.adapter:
        return _export_adapter(source, target, options, dtype)
    net = find_network(source, options.experiment)
    limits = Limits(dtype, int((options.max_shard_gib or 4) * 2**30))
    description = convert_weights(
        source,
        target,
        options.format,
        net,
        limits,
        options.lora_scale,
        options.network or "average",
    )
    message = (
        f"wrote {target} files={len(description['files'])} parameters={description['parameters']}"
    )
    logger.info("%s", message)
    return Outcome(EXIT_OK, "Succeeded", message, result={"folder": str(target)})


def _check_adapter_options(options: argparse.Namespace) -> None:
    """Options that an adapter, or whole weights, have no use for.

    Raises:
        ConfigError: one of them is given.
    """
    if not options.adapter:
        if options.base is not None:
            raise ConfigError(
                f"--base: got {options.base}, which --adapter alone writes; leave it out"
            )
        return
    if options.format == "pt":
        raise ConfigError("--format: got pt; an adapter is written as safetensors or diffusers")
    for name in ("experiment", "max_shard_gib", "lora_scale", "network"):
        if getattr(options, name) is not None:
            option = name.replace("_", "-")
            raise ConfigError(f"--{option}: is of no use with --adapter; leave it out")


def _export_adapter(
    source: Path, target: Path, options: argparse.Namespace, dtype: torch.dtype | None
) -> Outcome:
    from cosmos_worker.weights.convert import convert_adapter

    adapter = convert_adapter(source, target, options.format, dtype, options.base)
    message = f"wrote {target} layers={len(adapter.layers)} rank={adapter.rank} base={adapter.base}"
    logger.info("%s", message)
    return Outcome(EXIT_OK, "Succeeded", message, result={"folder": str(target)})


def _stop_handling(stage: str) -> AbstractContextManager[None]:
    """The training listens by itself, and saves; every other stage ends at once.

    Under a launcher SIGTERM is no wish of anybody's, but torchrun's answer to a process that failed: it leaves no
    outcome that could hide the cause.
    """
    if stage == "train" or outcomes.folder_of(os.environ) is not None:
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
    outcomes.write_termination_message(outcome.reason, outcome.message, **result)
    return outcome.exit_code


def _leave(exit_code: int) -> NoReturn:
    """Exit; a training process that failed does so at once, as its libraries may wait for peers when they unload."""
    if exit_code != EXIT_OK and outcomes.folder_of(os.environ) is not None:
        logging.shutdown()
        os._exit(exit_code)
    sys.exit(exit_code)


BY_HAND = {EXPORT: _export, video2world_flags.COMMAND: _video2world}
"""Commands that are no stages and are stopped and reported like them."""

assert set(STAGE_HELP) == set(STAGE_CONFIGS)

if __name__ == "__main__":
    faulthandler.enable()
    _leave(main())
