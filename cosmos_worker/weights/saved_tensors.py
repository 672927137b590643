"""Small files of torch.save, read whole, with their checksums, and without running code that is in them."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch

from cosmos_worker.errors import CheckpointError
from cosmos_worker.storage.file_kinds import (
    TORCH_ZIP,
    recognise,
    refuse_pointers,
)
from cosmos_worker.weights.torch_zip import check_zip


def read_saved(path: Path, remedy: str) -> Any:  # noqa: ANN401 - what the file holds
    """What a file holds, on the CPU.

    Args:
        path: written by torch.save.
        remedy: ends the message, such as ``fetch the guardrails again``.

    Raises:
        CheckpointError: no such file, truncated, or not readable without running code.
    """
    refuse_pointers([path])
    if path.is_file() and recognise(path) == TORCH_ZIP:
        check_zip(path, remedy)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file; {remedy}") from None
    except (
        RuntimeError,
        EOFError,
        OSError,
        pickle.UnpicklingError,
        ValueError,
        TypeError,
    ) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise CheckpointError(
            f"{path}: cannot be read as a file of torch tensors ({reason}); {remedy}"
        ) from None
