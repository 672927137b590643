"""fetch-model: model, tokenizer, text encoder and guardrails, read whole and checked before they are placed.

A file that was checked here is known again later by its size, a sample of it and its time of writing
(``file_digests``), so that a training or a sampling reads its weights once.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from cosmos_worker.config.stages import FetchModelConfig
from cosmos_worker.errors import CheckpointError
from cosmos_worker.storage.file_digests import check_folder_whole, check_recorded, digest_of_files
from cosmos_worker.storage.file_kinds import (
    SAFETENSORS,
    TORCH_ZIP,
    recognise_file,
    refuse_pointers,
)
from cosmos_worker.storage.files import counted
from cosmos_worker.storage.volumes import MEAN_STD_FILE, Volumes
from cosmos_worker.tokenizer.load import load_mean_std
from cosmos_worker.weights.fetch import fetch_artifact
from cosmos_worker.weights.files import refuse_unused_corrections
from cosmos_worker.weights.forms import (
    ADAPTER_FILES,
    SUFFIX,
    choose_weights,
)
from cosmos_worker.weights.load import read_network_tensors
from cosmos_worker.weights.tensor_files import open_tensors
from cosmos_worker.weights.tensors import (
    count_not_finite,
    refuse_not_finite,
)
from cosmos_worker.weights.torch_zip import check_zip

logger = logging.getLogger(__name__)

REMEDY = "fetch it again, or correct the source"


def verify_files(kind: str, files: Mapping[str, Path], folder: Path | None = None) -> None:
    """Check the files of an artifact.

    Args:
        kind: of `ArtifactKind`.
        files: name in the target → file.
        folder: that they were chosen in; None = a single file, beside which nothing is looked at.

    Raises:
        CheckpointError: a damaged file, weights of a type that is no weight's, values that are not finite or no
            statistics of latents, or LoRA corrections in the folder under a name by which they are not applied.
    """
    refuse_pointers(files.values())
    if kind == "model" and folder is not None:
        refuse_unused_corrections(folder, list(files.values()))
    mib = sum(path.stat().st_size for path in files.values()) >> 20
    logger.info("checking kind=%s files=%d mib=%d", kind, len(files), mib)
    for path in files.values():
        _check_whole(path)
    if kind == "model":
        _check_model(files)
    elif kind == "tokenizer":
        load_mean_std(files[MEAN_STD_FILE], torch.device("cpu"), REMEDY)


def _check_whole(path: Path) -> None:
    """Checksums of zip files, and the size that the header of safetensors says."""
    kind = recognise_file(path) if path.stat().st_size else None
    if kind == TORCH_ZIP:
        check_zip(path, REMEDY)
    elif kind == SAFETENSORS or path.suffix == SUFFIX:
        try:
            with safe_open(path, framework="pt"):
                pass
        except (SafetensorError, OSError) as error:
            raise CheckpointError(
                f"{path}: cannot be read as a weight file ({error}); {REMEDY}"
            ) from None


def _check_model(files: Mapping[str, Path]) -> None:
    """Types and values of the network and of its corrections."""
    chosen = choose_weights(files, "the source")
    assert chosen is not None
    for name in (chosen, *(one for one in ADAPTER_FILES if one in files)):
        path = files[name]
        tensors = (
            read_network_tensors(path, is_known=True) if name == chosen else open_tensors(path)
        )
        counts, strange = {}, []
        for tensor_name in tensors:
            value = tensors[tensor_name]
            if not value.is_floating_point() and tensor_name.endswith(".weight"):
                strange.append(f"{tensor_name} ({str(value.dtype).removeprefix('torch.')})")
            if count := count_not_finite(value):
                counts[tensor_name] = count
        if strange:
            raise CheckpointError(
                f"{path}: {counted(len(strange), 'weight')} of another type than floating point, such as {strange[0]}; "
                "give the network in bfloat16 or float32"
            )
        refuse_not_finite(counts, path)


def run(config: FetchModelConfig, volumes: Volumes) -> dict[str, Any]:
    """Fetch all artifacts.

    Returns:
        ``artifacts``: for each its ``name``, ``kind``, ``folder``, ``commit`` of its repository (None for other
        sources), ``sha256`` of all files together and ``files``: file name → ``size_bytes`` and ``sha256``; ``note``:
        the digests for people, if there is any.

    Raises:
        DataError: an artifact lacks files, or a target holds others.
        CheckpointError: damaged files, or weights that are no finite floating-point numbers.
        RetryableError: the network fails.
    """
    artifacts = []
    for artifact in config.artifacts:
        logger.info("fetching artifact=%s kind=%s", artifact.name, artifact.kind)
        fetched = fetch_artifact(artifact, volumes, verify_files)
        artifacts.append(
            {
                "name": artifact.name,
                "kind": artifact.kind,
                "folder": artifact.target_uri,
                "commit": fetched.commit,
                "sha256": digest_of_files(fetched.files),
                "files": fetched.files,
            }
        )
    digests = ", ".join(f"{one['kind']} {one['sha256']}" for one in artifacts)
    return {"artifacts": artifacts, **({"note": f"sha256: {digests}"} if digests else {})}


def find_lacking(
    config: FetchModelConfig, volumes: Volumes, result: Mapping[str, Any]
) -> Path | None:
    """A file that an earlier run fetched and that is no longer there; None if all are.

    Args:
        config: of the stage.
        volumes: where its targets are.
        result: of that run.

    Raises:
        CheckpointError: one is not the file that was fetched.
    """
    for artifact, found in zip(config.artifacts, result["artifacts"], strict=True):
        for name in found["files"]:
            path = volumes.resolve(artifact.target_uri) / name
            if not path.is_file():
                return path
            check_recorded(path)
        if config.verify == "full":
            check_folder_whole(volumes.resolve(artifact.target_uri))
    return None
