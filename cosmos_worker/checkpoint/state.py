"""Training checkpoints to resume from: a folder that is whole, with digests, or absent.

``state/iter_000000500/`` holds ``state.pt`` (weights, optimizer, average), ``progress.json`` (step, data order,
experiment) and ``complete.json`` (size and SHA-256 of each). It is written under a temporary name, synced, renamed.
"""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cosmos_worker.errors import CheckpointError, RetryableError
from cosmos_worker.layout import sha256_of_file, sync_folder, write_json

STATE_FOLDER = "state"
STATE_FILE = "state.pt"
PROGRESS_FILE = "progress.json"
COMPLETE_FILE = "complete.json"
NAME = re.compile(r"^iter_(\d{9})$")
TEMPORARY_SUFFIX = ".tmp"


@dataclass(frozen=True)
class TrainingState:
    """A loaded checkpoint: tensors (weights, optimizer, ema) and progress (step, data_order, experiment)."""

    folder: Path
    tensors: dict[str, Any]
    progress: dict[str, Any]


@contextmanager
def reporting_full_disk(folder: Path) -> Iterator[None]:
    """Turn a failed write into an error that says how much room there is.

    Raises:
        RetryableError: the write failed; earlier checkpoints are intact.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        usage = shutil.disk_usage(folder)
        raise RetryableError(
            f"{folder}: cannot write a checkpoint ({' '.join(str(error).split())[:160]}); {usage.free / 2**30:.2f} GiB "
            f"of {usage.total / 2**30:.2f} GiB are free; make room or lower trainer.keep_last and "
            "trainer.keep_exports; earlier checkpoints are intact"
        ) from error


def list_states(run: Path) -> list[tuple[int, Path]]:
    """Complete checkpoints of a run, (step, folder), oldest first."""
    found = []
    for folder in (run / STATE_FOLDER).glob("iter_*"):
        match = NAME.match(folder.name)
        if match and (folder / COMPLETE_FILE).is_file():
            found.append((int(match[1]), folder))
    return sorted(found)


def save_state(run: Path, step: int, tensors: dict[str, Any], progress: dict[str, Any]) -> Path:
    """Write the checkpoint of a step.

    Raises:
        RetryableError: disk full or another failed write; earlier checkpoints are intact.
    """
    parent = run / STATE_FOLDER
    parent.mkdir(parents=True, exist_ok=True)
    final = parent / f"iter_{step:09d}"
    temporary = parent / f".{final.name}{TEMPORARY_SUFFIX}"
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        with reporting_full_disk(parent):
            temporary.mkdir()
            with (temporary / STATE_FILE).open("wb") as stream:
                torch.save(tensors, stream)
                stream.flush()
                os.fsync(stream.fileno())
            write_json(temporary / PROGRESS_FILE, {**progress, "step": step})
            files = {
                name: {
                    "bytes": (temporary / name).stat().st_size,
                    "sha256": sha256_of_file(temporary / name),
                }
                for name in (STATE_FILE, PROGRESS_FILE)
            }
            write_json(temporary / COMPLETE_FILE, files)
            if final.exists():
                shutil.rmtree(final)
            temporary.rename(final)
            sync_folder(parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return final


def _check_files(folder: Path) -> None:
    for name, expected in json.loads((folder / COMPLETE_FILE).read_text(encoding="utf-8")).items():
        path = folder / name
        got = path.stat().st_size if path.is_file() else None
        if got != expected["bytes"] or sha256_of_file(path) != expected["sha256"]:
            raise CheckpointError(
                f"{path}: damaged ({got} bytes, expected {expected['bytes']} with another digest); "
                f"delete {folder} to continue from the checkpoint before it"
            )


def load_latest_state(run: Path) -> TrainingState | None:
    """The newest complete checkpoint, verified; None if there is none.

    Raises:
        CheckpointError: its files differ from its marker.
    """
    states = list_states(run)
    if not states:
        return None
    _, folder = states[-1]
    _check_files(folder)
    progress = json.loads((folder / PROGRESS_FILE).read_text(encoding="utf-8"))
    try:
        tensors = torch.load(folder / STATE_FILE, map_location="cpu", weights_only=True, mmap=True)
    except (RuntimeError, pickle.UnpicklingError) as error:
        raise CheckpointError(
            f"{folder / STATE_FILE}: cannot be read: {error}; delete {folder}"
        ) from None
    return TrainingState(folder, tensors, progress)


def prune_states(run: Path, keep_last: int) -> None:
    """Delete all but the newest checkpoints, and what an interrupted save left."""
    for _, folder in list_states(run)[:-keep_last]:
        shutil.rmtree(folder)
    for leftover in (run / STATE_FOLDER).glob(f".iter_*{TEMPORARY_SUFFIX}"):
        shutil.rmtree(leftover, ignore_errors=True)
