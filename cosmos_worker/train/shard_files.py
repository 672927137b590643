"""Tensors of a training in the files of torch.distributed.checkpoint, whose shards any number of processes can load.

Its import takes seconds, so other modules import it inside the functions that save or load.
"""

from __future__ import annotations

import copy
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemWriter
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_state_dict,
    set_state_dict,
)
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.tensor import DTensor

from cosmos_worker.errors import CheckpointError
from cosmos_worker.model.dtensor import is_dtensor, local_part

logger = logging.getLogger(__name__)

Tensors = dict[str, Any]


def collect(model: nn.Module, optimizer: torch.optim.Optimizer, with_frozen: bool) -> Tensors:
    """Weights and optimizer states by parameter names, sharing memory where possible; all processes call this."""
    weights, states = get_state_dict(model, optimizer, options=_options(with_frozen))
    return {"model": weights, "optimizer": states}


def restore(
    model: nn.Module, optimizer: torch.optim.Optimizer, tensors: Tensors, with_frozen: bool
) -> None:
    """Put the tensors of :func:`collect`, once they are loaded, into model and optimizer; all processes call this."""
    set_state_dict(
        model,
        optimizer,
        model_state_dict=tensors["model"],
        optim_state_dict=tensors["optimizer"],
        options=_options(with_frozen),
    )


def _options(with_frozen: bool) -> StateDictOptions:
    return StateDictOptions(ignore_frozen_params=not with_frozen, strict=with_frozen)


def copy_to_cpu(tensors: Tensors) -> Tensors:
    """A copy that the training does not change, each tensor copied once; a DTensor stays one.

    Tensors of a GPU are copied into page-locked memory, all of them before anything waits. PyTorch keeps this memory
    for the next copy once these tensors are gone. Where there is too little of it, they are copied one by one.
    """
    copies = {name: _copy(value) for name, value in tensors.items()}
    if torch.cuda.is_initialized():
        torch.cuda.current_stream().synchronize()
    return copies


def _copy(value: object) -> object:
    if isinstance(value, Tensor):
        return _copy_tensor(value.detach())
    if isinstance(value, dict):
        return {name: _copy(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_copy(one) for one in value)
    return copy.deepcopy(value)


def _copy_tensor(tensor: Tensor) -> Tensor:
    own = local_part(tensor)
    locked = _page_locked_like(own) if _is_on_gpu(own) else None
    if locked is None:
        return tensor.to("cpu", copy=True)
    locked.copy_(own, non_blocking=True)
    return DTensor(locked, tensor._spec, requires_grad=False) if is_dtensor(tensor) else locked


def _is_on_gpu(tensor: Tensor) -> bool:
    """True for a plain tensor of a GPU; quantised moments, which are tensors of a class of their own, are none."""
    return tensor.is_cuda and type(tensor) in (Tensor, nn.Parameter)


def _page_locked_like(tensor: Tensor) -> Tensor | None:
    """Page-locked memory of a tensor's shape and type; None if the system gives none."""
    try:
        return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    except RuntimeError as error:
        logger.debug("no page-locked memory for %d bytes: %s", tensor.nbytes, error)
        return None


def save_shards(folder: Path, tensors: Tensors, group: dist.ProcessGroup | None) -> None:
    """Write this process's shards of the tensors, which are on the CPU; all processes of the group call this.

    Raises:
        OSError: a failed write, of any process.
    """
    # copying ahead would wait for the work of a GPU, of which nothing is needed here
    writer = FileSystemWriter(folder, per_thread_copy_ahead=0)
    try:
        with _without_warning_if_alone():
            save(tensors, storage_writer=writer, process_group=group)
    except CheckpointException as error:
        raise OSError(_reason(error)) from error


def load_shards(folder: Path, tensors: Tensors) -> None:
    """Read into the tensors in place, whose sharding may differ from that of the files; all processes call this.

    Raises:
        CheckpointError: the files cannot be read, or lack one of the tensors.
    """
    if not folder.is_dir():
        raise CheckpointError(
            f"{folder.parent}: has no {folder.name}, as checkpoints of an earlier version; continue it with that "
            "version, or start a run of another name"
        )
    try:
        with _without_warning_if_alone():
            load(tensors, checkpoint_id=os.fspath(folder))
    except (CheckpointException, RuntimeError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{folder.parent}: cannot be read: {_reason(error)[:300]}; delete it to continue from the checkpoint "
            "before it"
        ) from error


@contextmanager
def _without_warning_if_alone() -> Iterator[None]:
    """Suppress the warning of torch.distributed.checkpoint about a single process without a group."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        yield


def _reason(error: BaseException) -> str:
    """The message of an error in one line; the library wraps the errors of all processes."""
    if isinstance(error, CheckpointException) and error.failures:
        error = next(iter(error.failures.values()))[0]
    return " ".join(str(error).split())
