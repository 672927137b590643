"""Training checkpoints to resume from: folders of sharded tensors with digests, each of which is whole or absent.

``state/iter_000000500/`` contains ``shards/`` (weights, optimizer, average in the format of
torch.distributed.checkpoint, one or more files of each process, so that any number of processes can continue),
``progress.json`` (step, data order, experiment) and ``complete.json`` (size and SHA-256 of each file). It is written
under a temporary name, synced and renamed.

The tensors themselves are read and written by ``shard_files.py``.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
import socket
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cosmos_worker.errors import CheckpointError, RetryableError
from cosmos_worker.storage.files import reporting_full_disk
from cosmos_worker.storage.volumes import (
    sha256_of_file,
    sync_folder,
    write_json,
)

logger = logging.getLogger(__name__)

STATE_FOLDER = "state"
SHARDS_FOLDER = "shards"
PROGRESS_FILE = "progress.json"
COMPLETE_FILE = "complete.json"
NAME = re.compile(r"^iter_(\d{9})$")
TEMPORARY_SUFFIX = ".tmp"
REMOVED_SUFFIX, DAMAGED_SUFFIX = ".removed.tmp", ".damaged"
"""Endings of checkpoints on their way out, which no reader takes for one: those being deleted, and damaged ones."""
VISIBLE_S = 90.0
"""Seconds after which a node sees the files of another one: NFS keeps a listing for at most 60 s by default."""

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


def _set_aside(folder: Path, suffix: str) -> Path:
    """Take a checkpoint's name away in one step, so that nothing ever reads half of it; returns the new path."""
    aside = folder.with_name(f".{folder.name}{suffix}")
    shutil.rmtree(aside, ignore_errors=True)
    folder.rename(aside)
    return aside


def _remove(folder: Path) -> None:
    """Delete a checkpoint; a process that is killed meanwhile leaves nothing under its name."""
    shutil.rmtree(_set_aside(folder, REMOVED_SUFFIX))


def state_path(run: Path, step: int) -> Path:
    """The folder of the complete checkpoint of a step."""
    return run / STATE_FOLDER / f"iter_{step:09d}"


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
    """The folder where all processes write the shards of a step, between begin_state and complete_state."""
    return _temporary(run, step) / SHARDS_FOLDER


def describe_own_shards(folder: Path, rank: int) -> Files:
    """Sizes and digests of the files that a process has written; those of the main process include the metadata."""
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
    final = state_path(run, step)
    with reporting_full_disk(parent):
        write_json(temporary / PROGRESS_FILE, {**progress, "step": step})
        own = {PROGRESS_FILE: _describe(temporary / PROGRESS_FILE)}
        write_json(temporary / COMPLETE_FILE, {**shards, **own})
        replaced = _set_aside(final, REMOVED_SUFFIX) if final.exists() else None
        temporary.rename(final)
        sync_folder(parent)
        if replaced is not None:
            shutil.rmtree(replaced)
    return final


def finish_interrupted_save(run: Path) -> None:
    """Give checkpoints their names that were whole when their process was killed; the main process calls this.

    Without this, a process that is killed while it replaces the only checkpoint of a run would leave none.
    """
    for temporary in sorted((run / STATE_FOLDER).glob(f".iter_*{TEMPORARY_SUFFIX}")):
        final = temporary.with_name(temporary.name[1:].removesuffix(TEMPORARY_SUFFIX))
        if NAME.match(final.name) and (temporary / COMPLETE_FILE).is_file() and not final.exists():
            temporary.rename(final)
            sync_folder(final.parent)
            logger.info("%s: was written whole before its process was killed; it is used", final)


def discard_state(run: Path, step: int) -> None:
    """Remove the unfinished checkpoint of a step."""
    shutil.rmtree(_temporary(run, step), ignore_errors=True)


def find_latest_step(run: Path) -> int | None:
    """The step of the newest complete checkpoint; None if there is none."""
    states = list_states(run)
    return states[-1][0] if states else None


def set_unreadable_aside(run: Path) -> None:
    """Set newest checkpoints aside whose step and list of files cannot be read, while an earlier one is there.

    The main process calls this, before it compares the run with what is asked for.
    """
    states = list_states(run)
    while len(states) > 1:
        step, folder = states.pop()
        try:
            read_progress(folder)
        except CheckpointError as error:
            logger.warning("%s; continuing from step %d", error, states[-1][0])
            set_damaged_aside(run, step)
        else:
            return


def set_damaged_aside(run: Path, step: int) -> None:
    """Take a damaged checkpoint out of the list, so that the one before it is used; the main process calls this.

    :func:`remove_damaged` deletes it once a later checkpoint is complete.
    """
    aside = _set_aside(state_path(run, step), DAMAGED_SUFFIX)
    sync_folder(aside.parent)
    logger.warning(
        "%s: the damaged checkpoint was moved here; it is deleted by a later save", aside
    )


def wait_for_state(run: Path, step: int) -> SavedState:
    """The complete checkpoint of a step, which the main process has found, once this node sees it.

    Raises:
        RetryableError: it is not seen here after VISIBLE_S.
    """
    end = time.monotonic() + VISIBLE_S
    while True:
        states = dict(list_states(run))
        if step in states:
            return SavedState(states[step], read_progress(states[step]))
        if time.monotonic() > end:
            seen = ", ".join(map(str, states)) or "none"
            raise RetryableError(
                f"{run / STATE_FOLDER}: the main process continues from step {step}, which node {socket.gethostname()} "
                f"does not see after {VISIBLE_S:.0f} s (it sees: {seen}); let all nodes mount the same volume, and "
                "start again"
            )
        time.sleep(1.0)


def read_progress(folder: Path) -> dict[str, Any]:
    """The progress of a checkpoint: step, data_order, experiment and, where it was taken, validation_loss.

    Raises:
        CheckpointError: the file is gone or damaged.
    """
    _check_file(folder, PROGRESS_FILE, _list_files(folder))
    progress = _read_object(folder / PROGRESS_FILE)
    if not isinstance(progress.get("step"), int):
        raise CheckpointError(
            f"{folder / PROGRESS_FILE}: damaged (it has no step); {_remedy(folder)}"
        )
    return progress


def _remedy(folder: Path) -> str:
    return f"delete {folder} to continue from the checkpoint before it, or to begin anew if it is the only one"


def _read_object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file; {_remedy(path.parent)}") from None
    except ValueError as error:
        raise CheckpointError(f"{path}: damaged ({error}); {_remedy(path.parent)}") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: damaged (not an object); {_remedy(path.parent)}")
    return value


def check_files(state: SavedState, rank: int = 0, world_size: int = 1) -> None:
    """Compare the files of a checkpoint that fall to this process with their sizes and digests.

    Raises:
        CheckpointError: a file differs.
    """
    folder = state.folder
    files = _list_files(folder)
    for name in sorted(files)[rank::world_size]:
        _check_file(folder, name, files)


def _list_files(folder: Path) -> Files:
    """Size and SHA-256 of each file of a checkpoint, as complete.json says."""
    files: Files = _read_object(folder / COMPLETE_FILE)
    known = all(
        isinstance(facts, dict) and {"bytes", "sha256"} <= facts.keys() for facts in files.values()
    )
    if not known or PROGRESS_FILE not in files:
        raise CheckpointError(
            f"{folder / COMPLETE_FILE}: damaged (sizes and digests of files are missing); {_remedy(folder)}"
        )
    return files


def _check_file(folder: Path, name: str, files: Files) -> None:
    path, expected = folder / name, files[name]
    got = path.stat().st_size if path.is_file() else None
    if got != expected["bytes"] or sha256_of_file(path) != expected["sha256"]:
        raise CheckpointError(
            f"{path}: damaged ({got} bytes, expected {expected['bytes']} with another digest); {_remedy(folder)}"
        )


def remove_damaged(run: Path) -> None:
    """Delete the damaged checkpoints that were set aside; a later one is complete."""
    for folder in (run / STATE_FOLDER).glob(f".iter_*{DAMAGED_SUFFIX}"):
        shutil.rmtree(folder, ignore_errors=True)


def prune_states(run: Path, keep_last: int, spared: Collection[int] = ()) -> None:
    """Delete all but the newest checkpoints and those of the spared steps, and the leftovers of an interrupted save."""
    for step, folder in list_states(run)[:-keep_last]:
        if step not in spared:
            _remove(folder)
    for leftover in (run / STATE_FOLDER).glob(f".iter_*{TEMPORARY_SUFFIX}"):
        shutil.rmtree(leftover, ignore_errors=True)
