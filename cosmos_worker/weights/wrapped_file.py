"""What trainers put around a network's tensors: ``{"state_dict": ...}`` and the like, with averages and optimizers."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from cosmos_worker.errors import CheckpointError
from cosmos_worker.weights.tensors import Prefer
from cosmos_worker.weights.torch_pickle import (
    Inert,
    TensorRef,
)

logger = logging.getLogger(__name__)

NETWORK_KEYS = ("state_dict", "model_state_dict", "model", "module", "network", "net")
"""Where a file has its network: Lightning; tutorials of PyTorch; NVIDIA and many others; DeepSpeed."""
AVERAGE_KEYS = ("ema", "model_ema", "ema_state_dict", "ema_model", "state_dict_ema")
MAX_DEPTH = 4


def unwrap(content: object, path: Path, prefer: Prefer = "average") -> object:
    """The tensors by name of a file, averaged where there is an average; anything else as it is.

    The average of NVIDIA's trainer has what was trained only, with dashes for dots, as names of buffers must not hold
    dots.

    Args:
        content: of the file.
        path: for messages.
        prefer: what is taken where there are both.

    Raises:
        CheckpointError: a file of DeepSpeed or FSDP that holds one process's part.
    """
    for _ in range(MAX_DEPTH):
        if not isinstance(content, Mapping):
            return content
        _refuse_parts(content, path)
        key = next((k for k in NETWORK_KEYS if _has_tensors(content.get(k))), None)
        average_key = next((k for k in AVERAGE_KEYS if _has_tensors(content.get(k))), None)
        if key is None and average_key is None:
            return content
        if key is not None and prefer == "regular":
            average_key = None
        left = sorted(str(k) for k in content if k not in (key, average_key))
        _tell_left_out(path, key, average_key, left)
        model = {} if key is None else content[key]
        average = {} if average_key is None else content[average_key]
        if _is_flat(average):
            averaged = {str(name).replace("-", "."): value for name, value in average.items()}
            content = {**model, **_like(model, averaged)}
        else:
            content = model or average
    return content


def _like(model: Mapping[object, object], averaged: dict[str, object]) -> dict[str, object]:
    """The average under the names of the model, from which a prefix or the lack of one may tell it apart."""
    if not model or averaged.keys() & model.keys():
        return averaged
    for prefix in ("net.", "module.", "model."):
        if all(f"{prefix}{name}" in model for name in averaged):
            return {f"{prefix}{name}": value for name, value in averaged.items()}
    return averaged


def _has_tensors(value: object) -> bool:
    """Whether it is a dict with tensors in it, or in a dict in it."""
    if not isinstance(value, Mapping) or isinstance(value, Inert):
        return False
    return any(
        isinstance(one, TensorRef) or (isinstance(one, Mapping) and _is_flat(one))
        for one in value.values()
    )


def _is_flat(value: object) -> bool:
    return isinstance(value, Mapping) and any(isinstance(one, TensorRef) for one in value.values())


def _tell_left_out(path: Path, key: str | None, average_key: str | None, left: list[str]) -> None:
    """Log what is taken of the file where somebody might have meant another part."""
    if average_key is not None and key is not None:
        logger.info(
            "%s: holds %r and its average %r; what is averaged is taken (export --network regular takes the other)",
            path, key, average_key,
        )  # fmt: skip
    if left and left != ["trained_data_record"]:
        logger.info(
            "%s: the weights are in %r; left are %s", path, key or average_key, ", ".join(left[:8])
        )


def unknown_wrapper(content: Mapping[object, object]) -> str | None:
    """A sentence on a dict whose tensors are in entries of names that are not known here; None for another."""
    keys = [str(key) for key, value in content.items() if _has_tensors(value)]
    if not keys:
        return None
    shown = ", ".join(repr(key) for key in keys[:4])
    return (
        f"its tensors are in the entries {shown}; write a file with the network's alone: torch.save(torch.load(FILE, "
        f"map_location='cpu')[{keys[0]!r}], NEW_FILE)"
    )


def _refuse_parts(content: Mapping[object, object], path: Path) -> None:
    """Files that have no whole network.

    Raises:
        CheckpointError: with what to run.
    """
    if "param_shapes" in content or "ds_version" in content or "fp32_flat_groups" in content:
        module = content.get("module")
        if not _has_tensors(module):
            raise CheckpointError(
                f"{path}: a file of DeepSpeed without the weights, which ZeRO has spread over the files of all "
                f"processes; join them by its own script, in {path.parent.parent}: python zero_to_fp32.py . FOLDER "
                "--safe_serialization"
            )
    flat = next((str(k) for k in content if "flat_param" in str(k)), None)
    if flat is not None:
        raise CheckpointError(
            f"{path}: flat parameters of FSDP ({flat}), which hold one process's part of several tensors; save the "
            "network whole: torch.distributed.checkpoint.state_dict.get_model_state_dict with "
            "StateDictOptions(full_state_dict=True), or StateDictType.FULL_STATE_DICT of FSDP"
        )
