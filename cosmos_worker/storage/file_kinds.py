"""Recognition of files by their first bytes, for messages that name what was given. No torch here."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable
from pathlib import Path

from cosmos_worker.errors import CheckpointError
from cosmos_worker.storage.web_page import (
    PEEK_BYTES,
    describe_page,
)

GIT_LFS = b"version https://git-lfs"
"""First bytes of the pointer that stands for a large file in a repository without Git LFS."""
MAX_POINTER_BYTES = 1024
"""Git LFS reads no more of a pointer."""
PULL = "run 'git lfs pull' in that repository"
TORCH_ZIP = "a file of torch.save"
SAFETENSORS = "a file of safetensors"

MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"PK\x03\x04", TORCH_ZIP),
    (b"GGUF", "a GGUF file of llama.cpp"),
    (b"\x89HDF", "an HDF5 file, as Keras writes it"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"\xfd7zXZ", "an xz archive"),
    (b"BZh", "a bzip2 archive"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive"),
    (b"\x80", "a pickle, as torch.save wrote it before 2020"),
)
SUFFIXES = {
    ".gguf": "a GGUF file of llama.cpp",
    ".onnx": "an ONNX graph",
    ".engine": "a TensorRT engine",
    ".msgpack": "weights of Flax",
    ".h5": "an HDF5 file, as Keras writes it",
}
"""Ending of a name → kind, where the content does not tell it."""


def recognise_file(path: Path) -> str | None:
    """The kind of a file, such as :data:`TORCH_ZIP`, as the end of a sentence; None if it is not known.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as stream:
        first = stream.read(PEEK_BYTES)
    if not first:
        return "an empty file"
    if first.startswith(GIT_LFS):
        return "a Git LFS pointer"
    if path.suffix in SUFFIXES:
        return SUFFIXES[path.suffix]
    if (page := describe_page(first)) is not None:
        return page
    if first[8:9] == b"{" and 2 <= struct.unpack("<Q", first[:8])[0] <= path.stat().st_size:
        return SAFETENSORS
    if first[257:262] == b"ustar":
        return "a tar archive"
    return next((kind for magic, kind in MAGIC if first.startswith(magic)), None)


def is_pointer(path: Path) -> bool:
    """True if a file is a Git LFS pointer instead of the file that it stands for; False for an absent file."""
    try:
        if path.stat().st_size > MAX_POINTER_BYTES:
            return False
        with path.open("rb") as stream:
            return stream.read(len(GIT_LFS)) == GIT_LFS
    except OSError:
        return False


def describe_pointer(path: Path) -> str:
    """The sentence about a Git LFS pointer."""
    return f"{path}: a Git LFS pointer, not the file; {PULL}"


def refuse_pointers(paths: Iterable[Path]) -> None:
    """Refuse Git LFS pointers among files that are about to be read.

    Raises:
        CheckpointError: one is a Git LFS pointer.
    """
    for path in paths:
        if is_pointer(path):
            raise CheckpointError(describe_pointer(path))


def refuse_pointers_in(folder: Path) -> None:
    """Refuse Git LFS pointers among a folder's own files; raises like :func:`refuse_pointers`."""
    if folder.is_dir():
        refuse_pointers(path for path in sorted(folder.iterdir()) if path.is_file())


def read_json_file(path: Path, remedy: str) -> object:
    """The value of a JSON file of a model.

    Args:
        path: in UTF-8, with a byte order mark or without.
        remedy: ends the message, such as ``fetch the model again``.

    Raises:
        CheckpointError: a Git LFS pointer, or not JSON.
        FileNotFoundError: no such file.
    """
    refuse_pointers([path])
    try:
        value: object = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise
    except (ValueError, OSError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{path}: not JSON ({reason}); {remedy}") from None
    return value
