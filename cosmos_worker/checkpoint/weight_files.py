"""Where in a folder the weights are, and the digest of all that is loaded."""

from __future__ import annotations

import hashlib
from pathlib import Path

from cosmos_worker.data.candidate import folder_content
from cosmos_worker.data.weight_forms import (
    ACCEPTED,
    ADAPTER_CONFIG_FILE,
    ADAPTER_FILE,
    LOGVAR_FILE,
    TRANSFORMER_FOLDER,
    choose_weights,
    list_names,
    shards_of,
)
from cosmos_worker.errors import CheckpointError
from cosmos_worker.layout import sha256_of_file


def locate(path: Path) -> Path:
    """The weight file, or index of shards, of a file or folder.

    Raises:
        CheckpointError: none, or several of one kind.
    """
    if path.is_file():
        return path
    chosen = choose_weights(list_names(path), str(path)) if path.is_dir() else None
    if chosen is None and has_adapter(path):
        raise CheckpointError(
            f"{path}: holds a LoRA adapter and not the network that it corrects; put the network's weights into the "
            f"same folder: {ACCEPTED}"
        )
    if chosen is None:
        held = f" (it holds {folder_content(path)})" if path.is_dir() else ""
        raise CheckpointError(
            f"{path}: no such weight file{held}; expected one, or a folder with {ACCEPTED}"
        )
    return path / chosen


def has_adapter(path: Path) -> bool:
    """Whether a LoRA adapter lies in a folder, whose weights it corrects; a file is what it is, without any."""
    return (path / ADAPTER_FILE).is_file()


def list_files(path: Path) -> list[Path]:
    """All files that tensors are read from: the weights, or the index and its shards, and what lies beside.

    Raises like :func:`locate`.
    """
    file = locate(path)
    files = [file, *(file.parent / name for name in shards_of(file))]
    beside = file.parent.parent / LOGVAR_FILE
    if file.parent.name == TRANSFORMER_FOLDER and beside.is_file():
        files.append(beside)
    if has_adapter(path):
        files += [path / ADAPTER_FILE, path / ADAPTER_CONFIG_FILE]
    return files


def digest_weights(path: Path) -> str:
    """SHA-256 of a weight file, or over those of all files of a form that has several.

    Raises like :func:`locate`.
    """
    files = list_files(path)
    if len(files) == 1:
        return sha256_of_file(files[0])
    digests = [f"{file.name} {sha256_of_file(file)}" for file in files]
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()
