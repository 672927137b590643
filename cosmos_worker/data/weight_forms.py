"""Which files of a folder or repository are a network's weights. Knows names only, and reads no tensor.

Forms, best first: NVIDIA's ``model.pt``; ``transformer/`` of diffusers, or what is in it; safetensors in one file or
shards with an index; what a trainer saves, ``iter_*_{ema,reg}_model.pt``. Where a folder holds several forms, the best
one is taken and the others are not looked at.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from cosmos_worker.errors import CheckpointError
from cosmos_worker.layout import MODEL_FILE

SUFFIX = ".safetensors"
INDEX_SUFFIX = ".safetensors.index.json"
TRANSFORMER_FOLDER = "transformer"
"""Where diffusers keeps the network of a pipeline."""
CONFIG_FILE = "config.json"
LOGVAR_FILE = f"logvar{SUFFIX}"
"""Lies beside ``transformer/``, which has no place for the uncertainty head."""
ADAPTER_FILE = f"adapter_model{SUFFIX}"
"""PEFT's name for LoRA corrections alone; in a folder of weights they correct these."""
ADAPTER_CONFIG_FILE = "adapter_config.json"
TRAINER_FILE = re.compile(r"^iter_(\d+)_(?:(ema|reg)_)?model\.pt$")
KINDS = ("ema", None, "reg")
"""What the trainer saves of a step, best first; None is the ``{model, ema}`` of its LoRA runs."""
ACCEPTED = (
    f"{MODEL_FILE}, {TRANSFORMER_FOLDER}/*{SUFFIX} with {TRANSFORMER_FOLDER}/{CONFIG_FILE}, *{SUFFIX} (several with "
    f"*{INDEX_SUFFIX}), or iter_*_{{ema,reg}}_model.pt"
)
"""For messages."""
SHOWN_NAMES = 8


def list_names(folder: Path) -> list[str]:
    """Names that :func:`choose_weights` may be asked about: the folder's own files, and those of ``transformer/``."""
    nested = folder / TRANSFORMER_FOLDER
    folders = [folder, *([nested] if nested.is_dir() else [])]
    return [
        path.relative_to(folder).as_posix()
        for parent in folders
        for path in sorted(parent.iterdir())
        if path.is_file()
    ]


def choose_weights(names: Iterable[str], where: str) -> str | None:
    """The weight file to load, or the index of its shards; None if there is none.

    Args:
        names: relative paths of all files; only the first level and ``transformer/`` count.
        where: folder or repository, for messages.

    Raises:
        CheckpointError: several files of the best form.
    """
    there = [PurePosixPath(name) for name in names]
    if PurePosixPath(MODEL_FILE) in there:
        return MODEL_FILE
    for parent in (PurePosixPath(TRANSFORMER_FOLDER), PurePosixPath()):
        for suffix in (INDEX_SUFFIX, SUFFIX):
            found = [
                str(name)
                for name in there
                if name.parent == parent
                and name.name.endswith(suffix)
                and name.name not in (LOGVAR_FILE, ADAPTER_FILE)
            ]
            if len(found) > 1:
                shown = ", ".join(sorted(found)[:SHOWN_NAMES])
                raise CheckpointError(
                    f"{where}: holds {len(found)} weight files and no index ({shown}); name the one to load"
                    if suffix == SUFFIX
                    else f"{where}: holds {len(found)} indexes of shards ({shown}); name the one to load"
                )
            if found:
                return found[0]
    return _latest_of_trainer([str(name) for name in there if name.parent == PurePosixPath()])


def _latest_of_trainer(names: Sequence[str]) -> str | None:
    """The averaged weights of the last step, else the regular ones; as publish takes them from a run of ours."""
    matches = [match for name in names if (match := TRAINER_FILE.match(name))]
    if not matches:
        return None
    return max(matches, key=lambda match: (int(match[1]), -KINDS.index(match[2])))[0]


def companions(weights: str, names: Iterable[str]) -> tuple[list[str], list[str]]:
    """Files that belong to the weights, without the shards of an index.

    Returns:
        Those that are there, and those that are needed and are not.
    """
    there = set(names)
    parent = PurePosixPath(weights).parent
    config = str(parent / CONFIG_FILE)
    needed = [config] if parent.name == TRANSFORMER_FOLDER else []
    wanted = [config, *([LOGVAR_FILE] if parent.name == TRANSFORMER_FOLDER else [])]
    if ADAPTER_FILE in there:
        needed.append(ADAPTER_CONFIG_FILE)
        wanted += [ADAPTER_FILE, ADAPTER_CONFIG_FILE]
    return [name for name in wanted if name in there], [
        name for name in needed if name not in there
    ]


def read_index(path: Path) -> dict[str, str]:
    """Tensor → file name, of an index of shards.

    Raises:
        CheckpointError: not such an index, or a shard in another folder.
    """
    try:
        index: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
        strangers = [file for file in index.values() if PurePosixPath(file).name != file]
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{path}: not an index of shards ({type(error).__name__}: {error}); fetch the model again"
        ) from None
    if strangers:
        raise CheckpointError(
            f"{path}: names {strangers[0]!r}; shards lie beside their index: fetch the model again"
        )
    return index


def shards_of(path: Path) -> list[str]:
    """Names of the shards of an index, in order; empty for any other file.

    Raises:
        CheckpointError: not an index of shards.
    """
    return sorted(set(read_index(path).values())) if path.name.endswith(INDEX_SUFFIX) else []
