"""Models of transformers from local folders, checked strictly; and questions put to chat models. Opens no connection.

In this folder transformers is imported inside functions, since its import takes seconds.
"""

from __future__ import annotations

import gc
import hashlib
import json
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from cosmos_worker.errors import CheckpointError
from cosmos_worker.runtime.imports import importing_transformers
from cosmos_worker.runtime.load_errors import LOAD_ERRORS, describe_load_error
from cosmos_worker.storage.file_kinds import refuse_pointers_in
from cosmos_worker.text.t5 import update_digest

WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
"""Names of weight files, in the order in which transformers prefers them; each may be cut into shards with an index."""
LIST_SUFFIX = ".index.json"

Parts = Mapping[str, Collection[str]]
"""Name of a weight file → names of the weights that its index says are in it; empty without an index."""


def check_weight_files(folder: Path, role: str) -> None:
    """Check that every weight file is there and whole; a damaged ``.bin`` is noticed only when it is loaded.

    Args:
        folder: folder of a whole model.
        role: of the model, for messages.

    Raises:
        CheckpointError: no weights, a part that is absent or empty, or a safetensors file that is cut off or lacks a
            weight of the list.
    """
    parts = _find_parts(folder, role)
    gone = sorted(name for name in parts if not (folder / name).is_file())
    if gone:
        raise CheckpointError(
            f"{folder}: {len(gone)} of {len(parts)} weight files of the {role} absent, first {gone[0]}; fetch it again"
        )
    for name, weights in parts.items():
        _check_part(folder / name, weights, role)


def _find_parts(folder: Path, role: str) -> Parts:
    for name in WEIGHT_FILES:
        if (folder / name).is_file():
            return {name: ()}
        index = folder / f"{name}{LIST_SUFFIX}"
        if index.is_file():
            return _read_list(index, role)
    raise CheckpointError(
        f"{folder}: no weights of the {role} ({' or '.join(WEIGHT_FILES)}, or a list of their parts); fetch it again"
    )


def _read_list(index: Path, role: str) -> Parts:
    parts: dict[str, set[str]] = {}
    try:
        for weight, name in json.loads(index.read_text(encoding="utf-8"))["weight_map"].items():
            parts.setdefault(name, set()).add(weight)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{index}: no list of weight files ({error!r}); fetch the {role} again"
        ) from None
    return parts


def _check_part(path: Path, weights: Collection[str], role: str) -> None:
    try:
        found = _names_in(path)
    except (OSError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"{path}: cannot be read ({reason}); fetch the {role} again"
        ) from None
    if found is None:
        return
    absent = sorted(set(weights) - found)
    if absent:
        raise CheckpointError(
            f"{path}: lacks {len(absent)} weights that the list of the {role} says are in it, first {absent[0]}; "
            "fetch it again"
        )


def _names_in(path: Path) -> set[str] | None:
    """Names of the weights in a safetensors file, whose header must match its size; None for a non-empty ``.bin``."""
    if path.suffix == ".safetensors":
        with safe_open(path, framework="np") as content:
            return set(content.keys())
    with path.open("rb") as stream:
        if not stream.read(1):
            raise OSError("empty")
    return None


CONFIG_FILE = "config.json"
ADAPTER_FILE = "adapter_config.json"
SUFFIXES = (".json", ".jinja", ".model", ".txt", ".safetensors", ".bin")
"""Suffixes of the files that decide the answers of a model."""
OUR_FILES = ("fetched-", "complete-")
"""Prefixes of the markers that fetch-model writes into a folder; they decide nothing."""


def read_model_type(folder: Path, role: str) -> str:
    """The model_type of a folder's config.json.

    Args:
        folder: folder of a whole model.
        role: of the model, for messages.

    Raises:
        CheckpointError: no folder, no config that can be read, a Git LFS pointer, or an adapter without its base.
    """
    path = folder / CONFIG_FILE
    refuse_pointers_in(folder)
    if (folder / ADAPTER_FILE).is_file():
        raise CheckpointError(
            f"{folder}: an adapter ({ADAPTER_FILE}), not a whole {role}; give the folder of both, merged"
        )
    try:
        kind = json.loads(path.read_text(encoding="utf-8"))["model_type"]
    except FileNotFoundError:
        raise CheckpointError(
            f"{path}: no such file; give the folder of a {role} that transformers can load"
        ) from None
    except OSError as error:
        raise CheckpointError(
            f"{path}: cannot be read ({error.strerror}); give this user the right to read it, or fetch the {role} again"
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path}: no configuration of a model ({error!r}); fetch the {role} again"
        ) from None
    return str(kind)


def folder_identity(folder: Path) -> str:
    """Digest of everything that decides a model's answers: names and contents of its files; large files are sampled.

    Returns:
        20 hex digits, independent of where the folder lies.
    """
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix in SUFFIXES and path.is_file() and not path.name.startswith(OUR_FILES):
            update_digest(digest, path)
    return digest.hexdigest()[:20]


@contextmanager
def loading(folder: Path, role: str) -> Iterator[None]:
    """Translate the errors that transformers raises while it loads a folder.

    Raises:
        CheckpointError: the folder cannot be loaded, or a package that it needs is absent; with the reason on one line.
    """
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    try:
        with importing_transformers():
            yield
    except ImportError as error:
        reason = " ".join(str(error).split())[:500]
        raise CheckpointError(
            f"{folder}: the {role} needs a package that is not installed ({reason}); "
            "install the extra 'guardrails' of this package"
        ) from None
    except (*LOAD_ERRORS, SafetensorError) as error:
        raise CheckpointError(
            f"{folder}: transformers cannot load the {role} ({describe_load_error(error)}); fetch it again"
        ) from None


def load_model(
    load: Callable[..., Any],
    folder: Path,
    role: str,
    device: torch.device,
    dtype: torch.dtype,
) -> Any:  # noqa: ANN401 - a class of transformers
    """Load a model in eval mode and check that the folder had all of its weights.

    Args:
        load: from_pretrained of a class of transformers.
        folder: folder of a whole model.
        role: of the model, for messages.
        device: where to compute.
        dtype: of the weights.

    Raises:
        CheckpointError: it cannot be loaded, or weights are missing or of another shape.
    """
    with loading(folder, role):
        model, report = load(folder, local_files_only=True, output_loading_info=True, dtype=dtype)
    wrong = sorted(map(str, [*report["missing_keys"], *(report.get("mismatched_keys") or ())]))
    if wrong:
        raise CheckpointError(
            f"{folder}: {len(wrong)} weights of the {role} missing or of another shape, first {wrong[0]}; "
            "fetch it again"
        )
    return model.to(device).eval()


def give_back_memory() -> None:
    """Free the host and GPU memory of models that are no longer referenced."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def greedy_settings(model: Any, tokenizer: Any, max_tokens: int) -> Any:  # noqa: ANN401 - classes of transformers
    """Settings of greedy generation, which gives the same answer every time.

    Args:
        model: a chat model; its end token ends an answer, or that of the tokenizer if it has none.
        tokenizer: the model's.
        max_tokens: of the longest answer.
    """
    with importing_transformers():
        from transformers import GenerationConfig

    end = model.generation_config.eos_token_id
    return GenerationConfig(
        max_new_tokens=max_tokens,
        do_sample=False,
        eos_token_id=end if end is not None else tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id or tokenizer.eos_token_id,
    )


def render_request(
    template: Any,  # noqa: ANN401 - a class of transformers
    content: str | list[dict[str, str]],
    said: str,
    folder: Path,
    role: str,
) -> str:
    """The text of a request: a user's message in the model's chat template.

    Args:
        template: tokenizer or processor that has the template.
        content: the message, as one text or in parts.
        said: text of the message that the request must contain.
        folder: the model's, for messages.
        role: of the model, for messages.

    Raises:
        CheckpointError: the template leaves the message out, so that the answer would be about nothing.
    """
    request: str = template.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
    )
    if said not in request:
        raise CheckpointError(
            f"{folder}: the chat template leaves out what the user says; give the {role} its own template"
        )
    return request


def generate_answer(
    model: Any,  # noqa: ANN401 - classes of transformers
    inputs: Mapping[str, Tensor],
    settings: Any,  # noqa: ANN401
    decoder: Any,  # noqa: ANN401
) -> str:
    """The model's answer to one request, without its special tokens.

    Args:
        model: a chat model.
        inputs: of one request; ``input_ids`` is (1, tokens).
        settings: of :func:`greedy_settings`.
        decoder: tokenizer or processor that turns tokens into text.
    """
    output = model.generate(**inputs, generation_config=settings)
    answer: str = decoder.decode(
        output[0][inputs["input_ids"].shape[1] :], skip_special_tokens=True
    )
    return answer
