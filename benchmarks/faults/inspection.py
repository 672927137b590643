"""What lies under finished names after a fault, compared with the same names of the uninterrupted run."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import torch

from cosmos_worker.errors import CheckpointError
from cosmos_worker.storage.volumes import sha256_of_file
from cosmos_worker.train.checkpoint import SavedState, check_files, list_states, read_progress
from faults import job

TEMPORARY = re.compile(r"(^|/)\.(?!metadata$)")
"""Names that no reader takes for finished files."""
MADE_WHOLE = re.compile(
    r"(latents-\d+|embeddings-\w+)\.safetensors$|captions-\w+\.json$|index\.jsonl$|model\.pt$|\.mp4$|\.txt$"
)
"""Files whose bytes are the same in every run of the job."""
EXPORT = re.compile(r"iter_\d{9}_(reg|ema)_model\.pt$")
VARYING = re.compile(r"(metrics\.jsonl|config\.yaml|\.json|\.md)$")
"""Files with times and durations, which must be whole but differ from run to run."""


def same_weights(one: Path, other: Path) -> bool:
    """True if two weight files have the same tensors to the last bit; False if one cannot be read."""
    try:
        left, right = (torch.load(path, weights_only=True) for path in (one, other))
    except Exception:  # a damaged file fails in many ways
        return False
    return left.keys() == right.keys() and all(
        torch.equal(left[name], right[name]) for name in left
    )


def find_partial(work: Path, expected: Path) -> list[str]:
    """Files under finished names that are not whole: what a reader would take for finished and is not.

    Args:
        work: volumes after a fault.
        expected: the same volumes after the uninterrupted stage.
    """
    found = []
    for path in sorted(work.rglob("*")):
        name = str(path.relative_to(work))
        if not path.is_file() or TEMPORARY.search(name):
            continue
        twin = expected / name
        if EXPORT.search(name):
            is_whole = not twin.exists() or same_weights(path, twin)
            is_whole = is_whole and _loads(path)
        elif MADE_WHOLE.search(name):
            is_whole = twin.exists() and sha256_of_file(path) == sha256_of_file(twin)
        elif path.suffix == ".json":
            is_whole = _is_json(path)
        else:
            continue
        if not is_whole:
            found.append(name)
    return found + _partial_checkpoints(work)


def _partial_checkpoints(work: Path) -> list[str]:
    found = []
    for step, folder in list_states(work / job.RUN_FOLDER):
        try:
            check_files(SavedState(folder, read_progress(folder)))
        except (CheckpointError, OSError) as error:
            found.append(f"checkpoint {step}: {error}")
    return found


def _is_json(path: Path) -> bool:
    try:
        json.loads(path.read_text())
    except ValueError:
        return False
    return True


def _loads(path: Path) -> bool:
    try:
        torch.load(path, weights_only=True)
    except Exception:  # a damaged file fails in many ways
        return False
    return True


def compare_end(work: Path, expected: Path) -> list[str]:
    """Differences of a finished stage from the uninterrupted one: bytes, weights, results, and files left over."""
    found = []
    names = {str(p.relative_to(work)) for p in work.rglob("*") if p.is_file()}
    wanted = {str(p.relative_to(expected)) for p in expected.rglob("*") if p.is_file()}
    found += [f"missing {name}" for name in sorted(wanted - names) if not TEMPORARY.search(name)]
    found += [f"left over {name}" for name in sorted(names - wanted)]
    for name in sorted(names & wanted):
        one, other = work / name, expected / name
        if EXPORT.search(name):
            if not same_weights(one, other):
                found.append(f"differs {name}")
        elif MADE_WHOLE.search(name) and sha256_of_file(one) != sha256_of_file(other):
            found.append(f"differs {name}")
        elif Path(name).name.startswith("complete-") and _facts(one) != _facts(other):
            found.append(f"differs {name}: {_facts(one)} instead of {_facts(other)}")
    return found + _partial_checkpoints(work)


UNSTABLE = {
    "seconds", "encoded", "reused", "computed", "imported", "loss", "edm_loss", "validation_loss_before", "note", "mse",
}  # fmt: skip
"""Entries of a result that say how the work was divided between the attempts, not what came of it."""


def _facts(marker: Path) -> Any:  # noqa: ANN401 - JSON
    result = json.loads(marker.read_text()).get("result") or {}
    return {name: value for name, value in result.items() if name not in UNSTABLE}
