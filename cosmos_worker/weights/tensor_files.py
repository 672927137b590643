"""Open one file of tensors by its content, whatever its name, or refuse it with its kind; read small ones whole."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from cosmos_worker.errors import CheckpointError
from cosmos_worker.runtime.load_errors import LOAD_ERRORS, describe_load_error
from cosmos_worker.storage.file_kinds import (
    SAFETENSORS,
    TORCH_ZIP,
    describe_pointer,
    is_pointer,
    recognise_file,
    refuse_pointers,
)
from cosmos_worker.weights.forms import INDEX_SUFFIX
from cosmos_worker.weights.safetensors import (
    LazyTensors,
    find_tensors,
)
from cosmos_worker.weights.tensors import Prefer
from cosmos_worker.weights.torch_file import read_torch_file
from cosmos_worker.weights.torch_zip import check_zip


def open_tensors(
    path: Path, is_known: bool = False, prefer: Prefer = "average"
) -> Mapping[str, Tensor]:
    """Tensors of a file, or of the shards of an index, under the names in it; each is read when it is asked for.

    Args:
        path: of torch.save or safetensors.
        is_known: True if its content is known to be right, so that checksums need not be compared.
        prefer: what is taken of a file that has the network and its average apart.

    Raises:
        CheckpointError: a damaged file, or one of another kind, which is named.
    """
    if is_pointer(path):
        raise CheckpointError(describe_pointer(path))
    if path.name.endswith(INDEX_SUFFIX):
        return LazyTensors(find_tensors(path))
    kind = recognise_file(path) if path.is_file() else None
    if kind == SAFETENSORS or (kind is None and path.suffix == ".safetensors"):
        return LazyTensors(find_tensors(path))
    if kind in (TORCH_ZIP, None) or kind.startswith("a pickle"):
        return read_torch_file(path, is_known, prefer)
    remedy = (
        "fetch it again"
        if kind.startswith(("an empty", "an HTML page"))
        else "give the network's weights as torch.save or safetensors writes them, whole"
    )
    raise CheckpointError(f"{path}: {kind}, which holds no weights that can be read here; {remedy}")


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata texts of a safetensors file; none of other files."""
    try:
        with safe_open(path, framework="pt") as content:
            return dict(content.metadata() or {})
    except (SafetensorError, OSError):
        return {}


def read_saved(path: Path, remedy: str) -> Any:  # noqa: ANN401 - what the file holds
    """Load the whole content of a file onto the CPU.

    Args:
        path: written by torch.save.
        remedy: ends the message, such as ``fetch the guardrails again``.

    Raises:
        CheckpointError: no such file, truncated, or not readable without running code.
    """
    refuse_pointers([path])
    if path.is_file() and recognise_file(path) == TORCH_ZIP:
        check_zip(path, remedy)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file; {remedy}") from None
    except LOAD_ERRORS as error:
        raise CheckpointError(
            f"{path}: cannot be read as a file of torch tensors ({describe_load_error(error)}); {remedy}"
        ) from None
