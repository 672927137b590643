"""The reference's command line of its trainer, turned into a stage document. No torch here.

``torchrun .. -m cosmos_predict1.diffusion.training.train --config=FILE -- experiment=NAME key.sub=value ..`` becomes
``torchrun .. -m cosmos_worker.cli train --config=FILE -- experiment=NAME key.sub=value ..``. What the reference reads
while it trains is prepared by stages here; where it lies is told by options or the environment.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import yaml

from cosmos_worker.config.identity import options_that_decide_weights
from cosmos_worker.config.stages import TrainConfig
from cosmos_worker.errors import ConfigError
from cosmos_worker.reference.train_options import ReferenceOptions, read_options
from cosmos_worker.runtime.process_group import ProcessGroup
from cosmos_worker.storage.volumes import (
    Volumes,
    atomic_write,
    content_key,
    run_folder,
)

logger = logging.getLogger(__name__)

DOCUMENT_FILE = "train.yaml"
OUTPUT_VARIABLE = "OUTPUT_ROOT"
FOLDERS = {
    "dataset": "index of prepare-dataset",
    "embeddings": "results of embed-text",
    "latents": "results of cache-latents",
    "model": "weights to start from (checkpoint.load_path)",
}


def variable(name: str) -> str:
    """Environment variable of a folder."""
    return f"COSMOS_TRAIN_{name.upper()}"


@dataclass(frozen=True)
class Request:
    """A command line, read."""

    config: TrainConfig
    is_dry_run: bool


def read_request(arguments: Sequence[str], environment: Mapping[str, str]) -> Request:
    """Read what follows ``train``.

    Args:
        arguments: flags, ``--``, words.
        environment: OUTPUT_ROOT, the number of processes that torchrun sets, and the folders that no flag names.

    Raises:
        ConfigError: unknown or unsupported words, or a folder that nothing names.
    """
    border = list(arguments).index("--")
    flags = _parser().parse_args(arguments[:border])
    num_processes = ProcessGroup.from_environment(environment).world_size
    options = read_options(arguments[border + 1 :], num_processes)
    places = {
        name: getattr(flags, name) or environment.get(variable(name)) or None for name in FOLDERS
    }
    places["model"] = places["model"] or options.model
    fresh = options.experiment.trainer.init == "random"
    missing = [
        f"{name}: not given; name the {what} with --{name} or {variable(name)}"
        for name, what in FOLDERS.items()
        if places[name] is None and not (name == "model" and fresh)
    ]
    if missing:
        raise ConfigError("\n".join(missing))
    target = environment.get(OUTPUT_VARIABLE) or "checkpoints"
    return Request(_document(options, places, target, fresh), flags.dryrun)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="cosmos-worker train", allow_abbrev=False)
    parser.add_argument("--config", help="the reference's Python file; not read")
    parser.add_argument("--dryrun", action="store_true", help="print the document and end")
    for name, what in FOLDERS.items():
        parser.add_argument(f"--{name}", metavar="PATH", help=f"{what}; or {variable(name)}")
    return parser


def _document(
    options: ReferenceOptions, places: Mapping[str, str | None], target: str, fresh: bool
) -> TrainConfig:
    uris = {f"{name}_uri": place for name, place in places.items()}
    decisive = {
        "options": options_that_decide_weights(options.experiment),
        "steps": options.experiment.trainer.max_steps,  # how far the same run is to go
        "run": options.run_name,
        **uris,
    }
    return TrainConfig(
        **{**uris, "model_uri": None if fresh else uris["model_uri"]},
        key=content_key(decisive),
        target_uri=target,
        experiment=options.experiment,
        run_name=options.run_name,
    )


def write_document(arguments: Sequence[str], environment: Mapping[str, str]) -> list[str] | None:
    """The command line of ours that does the same, its document written into the folder of the run.

    Returns:
        Arguments of ``cosmos-worker``; None after a dry run, which prints the document.

    Raises:
        ConfigError: as :func:`read_request`.
    """
    request = read_request(arguments[1:], environment)
    config = request.config
    text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
    if request.is_dry_run:
        sys.stdout.write(text)
        return None
    root = Volumes.from_environment(environment).resolve(config.target_uri)
    experiment = config.experiment
    path = run_folder(root, experiment.project, experiment.group, config.run_name) / DOCUMENT_FILE
    with atomic_write(path, "w") as stream:  # every process writes the same
        stream.write(text)
    logger.info("the reference's options as a document: %s", path)
    return ["train", "--config", str(path)]
