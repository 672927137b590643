"""Folders that transformers loads, checked strictly. Never opens a connection.

Here and in its neighbours transformers is imported where it is used: it takes seconds.
"""

from __future__ import annotations

import gc
import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from cosmos_worker.errors import CheckpointError
from cosmos_worker.runtime.imports import importing_transformers
from cosmos_worker.storage.file_kinds import refuse_pointers_in
from cosmos_worker.text.t5 import update_digest

CONFIG_FILE = "config.json"
ADAPTER_FILE = "adapter_config.json"
SUFFIXES = (".json", ".jinja", ".model", ".txt", ".safetensors", ".bin")
"""Files of a folder that decide what its model says."""
OUR_FILES = ("fetched-", "complete-")


def read_model_type(folder: Path, what: str) -> str:
    """The model_type of a folder's config.json.

    Args:
        folder: folder of a whole model.
        what: its role, for messages.

    Raises:
        CheckpointError: no folder, no config that can be read, a Git LFS pointer, or an adapter without its base.
    """
    path = folder / CONFIG_FILE
    refuse_pointers_in(folder)
    if (folder / ADAPTER_FILE).is_file():
        raise CheckpointError(
            f"{folder}: an adapter ({ADAPTER_FILE}), not a whole {what}; give the folder of both, merged"
        )
    try:
        kind = json.loads(path.read_text(encoding="utf-8"))["model_type"]
    except FileNotFoundError:
        raise CheckpointError(
            f"{path}: no such file; give the folder of a {what} that transformers can load"
        ) from None
    except OSError as error:
        raise CheckpointError(
            f"{path}: cannot be read ({error.strerror}); give this user the right to read it, or fetch the {what} again"
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path}: no configuration of a model ({error!r}); fetch the {what} again"
        ) from None
    return str(kind)


def folder_identity(folder: Path) -> str:
    """What decides a model's answers: names and contents of its files; large files are sampled.

    Returns:
        20 hex digits, independent of where the folder lies.
    """
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix in SUFFIXES and path.is_file() and not path.name.startswith(OUR_FILES):
            update_digest(digest, path)
    return digest.hexdigest()[:20]


@contextmanager
def loading(folder: Path, what: str) -> Iterator[None]:
    """Turn what transformers raises while it loads into one line.

    Raises:
        CheckpointError: with the reason.
    """
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    try:
        with importing_transformers():
            yield
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:500]
        raise CheckpointError(
            f"{folder}: transformers cannot load the {what} ({reason}); fetch it again"
        ) from None
    except ImportError as error:
        reason = " ".join(str(error).split())[:500]
        raise CheckpointError(
            f"{folder}: the {what} needs a package that is not installed ({reason}); "
            "install the extra 'guardrails' of this package"
        ) from None


def load_model(
    load: Callable[..., Any],
    folder: Path,
    what: str,
    device: torch.device,
    dtype: torch.dtype,
) -> Any:  # noqa: ANN401 - a class of transformers
    """A model in eval mode, with every weight that its network has.

    Args:
        load: from_pretrained of a class.
        folder: folder of a whole model.
        what: its role, for messages.
        device: where to compute.
        dtype: of the weights.

    Raises:
        CheckpointError: it cannot be loaded, or weights are missing or of another shape.
    """
    with loading(folder, what):
        model, report = load(folder, local_files_only=True, output_loading_info=True, dtype=dtype)
    wrong = sorted(map(str, [*report["missing_keys"], *(report.get("mismatched_keys") or ())]))
    if wrong:
        raise CheckpointError(
            f"{folder}: {len(wrong)} weights of the {what} missing or of another shape, first {wrong[0]}; "
            "fetch it again"
        )
    return model.to(device).eval()


def give_back_memory() -> None:
    """Return to the machine what models that nothing refers to any more have held."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
