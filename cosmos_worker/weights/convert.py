"""Weights from any readable form into a new folder: model.pt, safetensors, diffusers, or LoRA corrections alone.

The folder is whole or absent. Its ``model.json`` says which network it is, so that the result can be converted again.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from cosmos_worker.config.documents import load_yaml, parse_document
from cosmos_worker.config.network import NetConfig
from cosmos_worker.config.presets import (
    EXPERIMENTS,
    get_experiment,
)
from cosmos_worker.errors import CheckpointError, ConfigError
from cosmos_worker.storage.file_digests import stamp
from cosmos_worker.storage.files import reporting_full_disk
from cosmos_worker.storage.volumes import (
    DESCRIPTION_FILE,
    MODEL_FILE,
    RESOLVED_CONFIG_FILE,
    sha256_of_file,
    sync_folder,
    write_json,
)
from cosmos_worker.weights import diffusers
from cosmos_worker.weights.adapter import Adapter, with_diffusers_names, write_adapter
from cosmos_worker.weights.adapter_reading import read_adapter
from cosmos_worker.weights.files import find_adapter, locate
from cosmos_worker.weights.forms import (
    CONFIG_FILE,
    LOGVAR_FILE,
    SUFFIX,
    TRANSFORMER_FOLDER,
)
from cosmos_worker.weights.load import (
    open_model,
    save_weight_file,
)
from cosmos_worker.weights.safetensors import (
    Limits,
    write_shards,
)
from cosmos_worker.weights.tensors import LOGVAR_PREFIX, Prefer

Form = Literal["pt", "safetensors", "diffusers"]
STEM = Path(MODEL_FILE).stem


def find_network(source: Path, experiment: str | None) -> NetConfig:
    """The network that weights are of.

    It is that of the named experiment; else what the weights' folder says: config.json of diffusers, model.json of a
    published model, config.yaml of a run.

    Raises:
        ConfigError: unknown experiment, or none named where the folder says nothing.
        CheckpointError: no such weights.
    """
    if experiment is not None:
        return get_experiment(experiment).net
    file = locate(source)
    described = diffusers.read_config(file)
    if described is not None:
        return diffusers.network_of_config(described, file)
    published = file.parent / DESCRIPTION_FILE
    if published.is_file():
        return _network_in(json.loads(published.read_text(encoding="utf-8")), published, "net")
    resolved = file.parent.parent / RESOLVED_CONFIG_FILE
    if resolved.is_file():
        return _network_in(load_yaml(resolved), resolved, "experiment", "net")
    raise ConfigError(
        f"--experiment: {file} does not say of which network it is; name one of {', '.join(EXPERIMENTS)}"
    )


def _network_in(document: Any, where: Path, *keys: str) -> NetConfig:  # noqa: ANN401 - any JSON or YAML value
    for key in keys:
        if not isinstance(document, dict) or key not in document:
            raise ConfigError(f"{where}: has no {'.'.join(keys)}; name the network by --experiment")
        document = document[key]
    return parse_document(NetConfig, document, f"{where}: {'.'.join(keys)}")


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A folder under a temporary name that gets its own if the block succeeds.

    Raises:
        ConfigError: the target exists.
    """
    if target.exists():
        raise ConfigError(f"--to: {target} exists; name a folder that does not, or remove it")
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)  # of an export that was killed
    try:
        temporary.mkdir()
        yield temporary
        for folder, _, _ in os.walk(temporary):
            sync_folder(Path(folder))
        temporary.rename(target)
        sync_folder(target.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def convert_weights(
    source: Path,
    target: Path,
    form: Form,
    net: NetConfig,
    limits: Limits,
    lora_scale: float | None = None,
    prefer: Prefer = "average",
) -> dict[str, Any]:
    """Write weights in another form and check what was written.

    Args:
        source: weight file or folder.
        target: folder that does not exist.
        form: pt: ``model.pt``; safetensors: ``model*.safetensors``; diffusers: ``transformer/`` and logvar.safetensors.
        net: network of the weights.
        limits: type of the tensors, size of the files.
        lora_scale: factor of LoRA corrections in the source, which are merged; None = as it says, or there are none.
        prefer: the network that is taken of a source that has the network and its average.

    Returns:
        What is in ``model.json``.

    Raises:
        CheckpointError: the weights cannot be read, or do not fit the network.
        ConfigError: the target exists.
        RetryableError: disk full.
    """
    model, state = open_model(source, net, lora_scale=lora_scale, prefer=prefer)
    with new_folder(target) as folder, reporting_full_disk(target.parent):
        if form == "pt":
            save_weight_file(folder / MODEL_FILE, state, limits.dtype)
        elif form == "safetensors":
            write_shards(folder, STEM, state, {name: name for name in state}, limits)
        else:
            extra = model.net.extra_pos_embedder is not None
            _write_diffusers(folder, state, diffusers.build_config(net, extra), limits)
        open_model(folder, net)
        description = _describe(folder, model, net) | {"made_of": str(source), "format": form}
        write_json(folder / DESCRIPTION_FILE, description)
    return description


def _describe(folder: Path, model: nn.Module, net: NetConfig) -> dict[str, Any]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        "net": net.model_dump(mode="json"),
        "parameters": sum(p.numel() for p in model.parameters()),
        "files": {
            str(path.relative_to(folder)): {
                "bytes": path.stat().st_size,
                "sha256": sha256_of_file(path),
                **stamp(path),
            }
            for path in files
        },
    }


def _write_diffusers(
    folder: Path, state: Mapping[str, Tensor], config: Mapping[str, Any], limits: Limits
) -> None:
    """Write transformer/, and logvar.safetensors for what diffusers has no place for."""
    names = diffusers.diffusers_names(config["num_layers"])
    kept = {theirs: ours for ours, theirs in names.items() if ours in state}
    transformer = folder / TRANSFORMER_FOLDER
    transformer.mkdir()
    write_json(transformer / CONFIG_FILE, config)
    write_shards(transformer, diffusers.STEM, state, kept, limits)
    logvar = {name: name for name in state if name.startswith(LOGVAR_PREFIX)}
    if logvar:
        write_shards(folder, LOGVAR_FILE.removesuffix(SUFFIX), state, logvar, limits)


def convert_adapter(
    source: Path,
    target: Path,
    form: Literal["safetensors", "diffusers"],
    dtype: torch.dtype | None = None,
    base: str | None = None,
) -> Adapter:
    """Write an adapter and read what was written.

    Args:
        source: what :func:`find_adapter` takes.
        target: folder that does not exist.
        form: whose names the layers have; those of diffusers are without the uncertainty head.
        dtype: of the tensors; None = as they are.
        base: the model that it belongs to; None = as the adapter says.

    Returns:
        What was written.

    Raises:
        CheckpointError: no adapter, a damaged one, or one that diffusers' network cannot have.
        ConfigError: the target exists.
        RetryableError: disk full.
    """
    folder = find_adapter(source)
    adapter = read_adapter(folder)
    if not adapter.is_plain:
        raise CheckpointError(
            f"{folder}: its corrections are more than one rank and one scale (ranks by layer, DoRA, PiSSA or OLoRA); "
            "export the merged weights instead: leave --adapter out"
        )
    adapter = replace(adapter, base=base or adapter.base)
    if form == "diffusers":
        adapter = with_diffusers_names(adapter, folder)
    with new_folder(target) as new, reporting_full_disk(target.parent):
        write_adapter(new, adapter, dtype)
        read_adapter(new)
    return adapter
