"""``export``: write weights in another form, or the LoRA corrections in them as an adapter.

It is no stage of a job: its options come from the command line, and it leaves no completion marker. Importing this
file imports no torch.
"""

from __future__ import annotations

import argparse
import logging
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING

from cosmos_worker.errors import EXIT_OK, ConfigError
from cosmos_worker.runtime.outcome import Outcome
from cosmos_worker.storage.volumes import Volumes

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

COMMAND = "export"
HELP = "write weights in another form: model.pt, safetensors, or a folder of diffusers"


def add_arguments(export: argparse.ArgumentParser) -> None:
    """Add the options to the command's parser."""
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


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"got {text}; give a positive number")
    return value


def run(options: argparse.Namespace) -> Outcome:
    """Convert weights as the command line says.

    Args:
        options: of :func:`add_arguments`.

    Raises:
        ConfigError: options that contradict each other, or an unknown experiment or volume.
        CheckpointError: weights that cannot be read, or are not in the named form.
    """
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
