"""Training checkpoints to resume from: folders of sharded tensors that are whole, with digests, or absent.

``state/iter_000000500/`` holds ``shards/`` (weights, optimizer, average; torch.distributed.checkpoint, a file or more
of each process, so that any number of processes can continue), ``progress.json`` (step, data order, experiment) and
``complete.json`` (size and SHA-256 of each file). It is written under a temporary name, synced, renamed.

It takes seconds to import, so it is imported by what saves or loads, when it does.
"""

from __future__ import annotations

import copy
import json
import os
import re
import shutil
import socket
import time
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed import ProcessGroup
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemWriter
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_state_dict,
    set_state_dict,
)
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from cosmos_worker.errors import CheckpointError, RetryableError
from cosmos_worker.storage.files import reporting_full_disk
from cosmos_worker.storage.volumes import (
    sha256_of_file,
    sync_folder,
    write_json,
)

STATE_FOLDER = "state"
SHARDS_FOLDER = "shards"
PROGRESS_FILE = "progress.json"
COMPLETE_FILE = "complete.json"
NAME = re.compile(r"^iter_(\d{9})$")
TEMPORARY_SUFFIX = ".tmp"
SEEN_AFTER_S = 90.0
"""When a node sees what another one has written: NFS looks again after 60 s at the latest, unless told otherwise."""

Files = dict[str, dict[str, Any]]
"""Size and SHA-256 by path below a checkpoint."""


@dataclass(frozen=True)
class SavedState:
    """A complete checkpoint: its folder, and progress (step, data_order, experiment)."""

    folder: Path
    progress: dict[str, Any]

    @property
    def shards(self) -> Path:
        """The folder of its tensors."""
        return self.folder / SHARDS_FOLDER


def list_states(run: Path) -> list[tuple[int, Path]]:
    """Complete checkpoints of a run, (step, folder), oldest first."""
    found = []
    for folder in (run / STATE_FOLDER).glob("iter_*"):
        match = NAME.match(folder.name)
        if match and (folder / COMPLETE_FILE).is_file():
            found.append((int(match[1]), folder))
    return sorted(found)


def _temporary(run: Path, step: int) -> Path:
    return run / STATE_FOLDER / f".iter_{step:09d}{TEMPORARY_SUFFIX}"


def begin_state(run: Path, step: int) -> Path:
    """An empty folder for the shards of a step, under a temporary name; the main process calls this.

    Raises:
        RetryableError: disk full or another failed write.
    """
    folder = _temporary(run, step)
    (run / STATE_FOLDER).mkdir(parents=True, exist_ok=True)
    with reporting_full_disk(run / STATE_FOLDER):
        shutil.rmtree(folder, ignore_errors=True)
        (folder / SHARDS_FOLDER).mkdir(parents=True)
    return folder


def shards_path(run: Path, step: int) -> Path:
    """Where all processes write the shards of a step between :func:`begin_state` and :func:`complete_state`."""
    return _temporary(run, step) / SHARDS_FOLDER


def describe_own_shards(folder: Path, rank: int) -> Files:
    """Sizes and digests of what a process has written; the main process also answers for the metadata."""
    patterns = (f"__{rank}_*", *((".metadata",) if rank == 0 else ()))
    paths = [path for pattern in patterns for path in sorted(folder.glob(pattern))]
    return {f"{SHARDS_FOLDER}/{path.name}": _describe(path) for path in paths}


def _describe(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": sha256_of_file(path)}


def complete_state(run: Path, step: int, progress: dict[str, Any], shards: Files) -> Path:
    """Make the checkpoint of a step visible, now that all shards are written; the main process calls this.

    Raises:
        RetryableError: disk full or another failed write; earlier checkpoints are intact.
    """
    parent, temporary = run / STATE_FOLDER, _temporary(run, step)
    final = parent / f"iter_{step:09d}"
    with reporting_full_disk(parent):
        write_json(temporary / PROGRESS_FILE, {**progress, "step": step})
        own = {PROGRESS_FILE: _describe(temporary / PROGRESS_FILE)}
        write_json(temporary / COMPLETE_FILE, {**shards, **own})
        if final.exists():
            shutil.rmtree(final)
        temporary.rename(final)
        sync_folder(parent)
    return final


def discard_state(run: Path, step: int) -> None:
    """Remove what has been written of a step."""
    shutil.rmtree(_temporary(run, step), ignore_errors=True)


def find_latest_state(run: Path) -> SavedState | None:
    """The newest complete checkpoint; None if there is none."""
    states = list_states(run)
    if not states:
        return None
    _, folder = states[-1]
    return SavedState(folder, read_progress(folder))


def wait_for_state(run: Path, step: int) -> SavedState:
    """The complete checkpoint of a step that the main process has found, on whatever node.

    Raises:
        RetryableError: it is not seen here after SEEN_AFTER_S.
    """
    end = time.monotonic() + SEEN_AFTER_S
    while True:
        states = dict(list_states(run))
        if step in states:
            return SavedState(states[step], read_progress(states[step]))
        if time.monotonic() > end:
            seen = ", ".join(map(str, states)) or "none"
            raise RetryableError(
                f"{run / STATE_FOLDER}: the main process continues from step {step}, which node {socket.gethostname()} "
                f"does not see after {SEEN_AFTER_S:.0f} s (it sees: {seen}); let all nodes mount the same volume, and "
                "start again"
            )
        time.sleep(1.0)


def read_progress(folder: Path) -> dict[str, Any]:
    """What a checkpoint says of itself."""
    progress: dict[str, Any] = json.loads((folder / PROGRESS_FILE).read_text(encoding="utf-8"))
    return progress


def check_files(state: SavedState, share: int = 0, num_shares: int = 1) -> None:
    """Compare a share of a checkpoint's files with its marker.

    Raises:
        CheckpointError: a file differs.
    """
    folder = state.folder
    files: Files = json.loads((folder / COMPLETE_FILE).read_text(encoding="utf-8"))
    for name in sorted(files)[share::num_shares]:
        path, expected = folder / name, files[name]
        got = path.stat().st_size if path.is_file() else None
        if got != expected["bytes"] or sha256_of_file(path) != expected["sha256"]:
            raise CheckpointError(
                f"{path}: damaged ({got} bytes, expected {expected['bytes']} with another digest); "
                f"delete {folder} to continue from the checkpoint before it"
            )


def prune_states(run: Path, keep_last: int, spared: Collection[int] = ()) -> None:
    """Delete all but the newest checkpoints and those of the spared steps, and what an interrupted save left."""
    for step, folder in list_states(run)[:-keep_last]:
        if step not in spared:
            shutil.rmtree(folder)
    for leftover in (run / STATE_FOLDER).glob(f".iter_*{TEMPORARY_SUFFIX}"):
        shutil.rmtree(leftover, ignore_errors=True)


Tensors = dict[str, Any]


def collect(model: nn.Module, optimizer: torch.optim.Optimizer, with_frozen: bool) -> Tensors:
    """Weights and optimizer states by parameter names, sharing memory where they can; all processes call this."""
    weights, states = get_state_dict(model, optimizer, options=_options(with_frozen))
    return {"model": weights, "optimizer": states}


def restore(
    model: nn.Module, optimizer: torch.optim.Optimizer, tensors: Tensors, with_frozen: bool
) -> None:
    """Take over what :func:`collect` gave and :func:`load_shards` filled; all processes call this."""
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
    """A copy that the training does not change, each tensor copied once; what is spread stays so."""
    return {name: _copy(value) for name, value in tensors.items()}


def _copy(value: object) -> object:
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {name: _copy(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_copy(one) for one in value)
    return copy.deepcopy(value)


def save_shards(folder: Path, tensors: Tensors, group: ProcessGroup | None) -> None:
    """Write what this process has of the tensors, all on the CPU; all processes of the group call this.

    Raises:
        OSError: a failed write, of any process.
    """
    # copying ahead would wait for the work of a GPU, of which nothing is needed here
    writer = FileSystemWriter(folder, per_thread_copy_ahead=0)
    try:
        with _alone_or_together():
            save(tensors, storage_writer=writer, process_group=group)
    except CheckpointException as error:
        raise OSError(_reason(error)) from error


def load_shards(folder: Path, tensors: Tensors) -> None:
    """Read into tensors in place, spread as they are now; all processes call this.

    Raises:
        CheckpointError: the files cannot be read, or lack one of them.
    """
    if not folder.is_dir():
        raise CheckpointError(
            f"{folder.parent}: has no {folder.name}, as checkpoints of an earlier version; continue it with that "
            "version, or start a run of another name"
        )
    try:
        with _alone_or_together():
            load(tensors, checkpoint_id=os.fspath(folder))
    except (CheckpointException, RuntimeError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{folder.parent}: cannot be read: {_reason(error)[:300]}; delete it to continue from the checkpoint "
            "before it"
        ) from error


@contextmanager
def _alone_or_together() -> Iterator[None]:
    """A process without a group works alone, which is what is meant and no reason for a warning."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        yield


def _reason(error: BaseException) -> str:
    """What happened, in one line; the library wraps the errors of all processes."""
    if isinstance(error, CheckpointException) and error.failures:
        error = next(iter(error.failures.values()))[0]
    return " ".join(str(error).split())
