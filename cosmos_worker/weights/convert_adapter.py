"""The LoRA corrections of exported weights into a new folder, in PEFT's form."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch

from cosmos_worker.errors import CheckpointError
from cosmos_worker.storage.files import reporting_full_disk
from cosmos_worker.weights.adapter import (
    Adapter,
    read_adapter,
    with_diffusers_names,
    write_adapter,
)
from cosmos_worker.weights.adapter_folders import find_adapter
from cosmos_worker.weights.convert import new_folder


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
