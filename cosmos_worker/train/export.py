"""Exported weights, ``checkpoints/iter_{step:09d}_{reg,ema}_model.pt`` with NVIDIA's key names; and the best of them.

With LoRA these contain the corrections, which are also written alone to
``checkpoints/iter_{step:09d}_{reg,ema}_adapter/``. The best checkpoint follows from files: every checkpoint contains
the held-out loss of its step, so a run that was killed between a checkpoint and best.json finds the same best one.
"""

from __future__ import annotations

import json
import logging
import math
import re
import shutil
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cosmos_worker.errors import CheckpointError
from cosmos_worker.storage.files import reporting_full_disk
from cosmos_worker.storage.volumes import (
    BEST_FILE,
    EXPORT_FOLDER,
    adapter_name,
    export_name,
    remove_leftovers,
    write_json,
)
from cosmos_worker.train.checkpoint import list_states, read_progress
from cosmos_worker.train.validation import HeldOutLoss
from cosmos_worker.weights.adapter import (
    Adapter,
    write_adapter,
)
from cosmos_worker.weights.files import replacing_folder
from cosmos_worker.weights.load import save_weight_file

logger = logging.getLogger(__name__)

NAME = re.compile(r"^iter_(\d{9})_(reg|ema)_model\.pt$")


def list_exports(run: Path, weights: str) -> dict[int, Path]:
    """Exported weight files of a run by step, oldest first; ``weights`` is reg or ema."""
    found = {}
    for path in sorted((run / EXPORT_FOLDER).glob(f"iter_*_{weights}_model.pt")):
        match = NAME.match(path.name)
        if match:
            found[int(match[1])] = path
    return found


def find_export(run: Path, weights: str, step: int | None) -> tuple[int, Path]:
    """The export of a step, or the latest.

    Raises:
        CheckpointError: no such export; the message lists the steps that exist.
    """
    exports = list_exports(run, weights)
    if not exports or (step is not None and step not in exports):
        steps = ", ".join(str(step) for step in exports) or "none"
        wanted = "latest" if step is None else str(step)
        raise CheckpointError(
            f"{run / EXPORT_FOLDER}: no {weights} weights of step {wanted}; there are: {steps}; "
            "choose one of them (spec.outputs.step, or spec.training.steps) or train further"
        )
    chosen = max(exports) if step is None else step
    return chosen, exports[chosen]


def remove_unfinished_exports(run: Path) -> None:
    """Remove partly written exports of killed processes; the caller has the run's lock."""
    remove_leftovers(run / EXPORT_FOLDER, NAME)


def write_exports(
    run: Path,
    step: int,
    state: Mapping[str, Tensor],
    average: Mapping[str, Tensor] | None,
    reg_dtype: torch.dtype,
) -> None:
    """Write the weights of a step.

    Args:
        run: folder of the run.
        step: optimizer steps done.
        state: state dict of the model under ``net.*`` and ``logvar.*``.
        average: averaged parameters, written in float32; None = no EMA.
        reg_dtype: dtype of the regular weights in the file (the reference: bfloat16).

    Raises:
        RetryableError: disk full or another failed write; earlier exports are intact.
    """
    folder = run / EXPORT_FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    with reporting_full_disk(folder):
        save_weight_file(folder / export_name(step, "reg"), state, reg_dtype)
        if average is not None:
            save_weight_file(folder / export_name(step, "ema"), {**state, **average}, torch.float32)


def write_adapters(run: Path, step: int, adapters: Mapping[str, Adapter]) -> None:
    """Write the LoRA corrections of a step in float32; before its weights, which then never lack their adapter.

    Args:
        run: folder of the run.
        step: optimizer steps done.
        adapters: by kind, reg or ema.

    Raises:
        RetryableError: disk full or another failed write; earlier exports are intact.
    """
    folder = run / EXPORT_FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    with reporting_full_disk(folder):
        for weights, adapter in adapters.items():
            with replacing_folder(folder / adapter_name(step, weights)) as new:
                write_adapter(new, adapter, torch.float32)


def prune_exports(run: Path, keep: int, spared: Collection[int] = ()) -> None:
    """Delete all but the newest exports of each kind and those of the spared steps, and adapters without weights."""
    for weights in ("reg", "ema"):
        for step, path in list(list_exports(run, weights).items())[:-keep]:
            if step not in spared:
                path.unlink()
        kept = list_exports(run, weights)
        for folder in (run / EXPORT_FOLDER).glob(f"iter_*_{weights}_adapter"):
            if folder.name not in {adapter_name(step, weights) for step in kept}:
                shutil.rmtree(folder, ignore_errors=True)


LOSS, WEIGHTS = "validation_loss", "validation_weights"
"""Keys of the held-out loss in a checkpoint's progress, and of the weights that it was taken with: reg or ema."""


def judged_loss(found: HeldOutLoss) -> dict[str, Any]:
    """The entries of a checkpoint's progress by which the best one is found; none if the loss is not finite.

    Args:
        found: the held-out losses of the checkpoint's weights. The average is judged, if its loss was taken.
    """
    found = found.rounded()
    loss, weights = (found.loss, "reg") if found.of_average is None else (found.of_average, "ema")
    return {LOSS: loss, WEIGHTS: weights} if math.isfinite(loss) else {}


@dataclass(frozen=True)
class Best:
    """Step of a checkpoint, its held-out loss, and the weights that it was taken with: reg or ema."""

    step: int
    validation_loss: float
    validation_weights: str = "reg"


def read_best(run: Path) -> Best:
    """The best checkpoint so far.

    Raises:
        CheckpointError: none was kept, or the file is damaged.
    """
    path = run / EXPORT_FOLDER / BEST_FILE
    if not path.is_file():
        raise CheckpointError(
            f"{path}: no such file, so no checkpoint is known as the best; train with trainer.keep_best=true and "
            "held-out clips, or choose a step"
        )
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        return _best(int(document["step"]), document)
    except (ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"{path}: damaged ({error}); choose a step") from None


def update_best(run: Path, done_steps: int) -> Best | None:
    """Find the best checkpoint up to the steps done and write it to best.json; None = none has a held-out loss.

    Of equal losses the earlier step counts. A best step after the steps done is ignored: its checkpoint was deleted
    before the run was continued from an earlier one. Losses of the average are not compared with others, which a run
    has if an earlier version began it.
    """
    found = [best for best in (*_of_states(run), *_noted(run)) if best.step <= done_steps]
    found = [best for best in found if best.validation_weights == "ema"] or found
    path = run / EXPORT_FOLDER / BEST_FILE
    if not found:
        path.unlink(missing_ok=True)
        return None
    best = min(found, key=lambda one: (one.validation_loss, one.step))
    if _noted(run) != [best]:
        write_json(path, asdict(best))
    return best


def _of_states(run: Path) -> list[Best]:
    found = []
    for step, folder in list_states(run):
        try:
            document = read_progress(folder)
            if LOSS in document:
                found.append(_best(step, document))
        except (CheckpointError, ValueError, TypeError) as error:
            logger.warning("%s; its held-out loss does not count", error)
    return found


def _best(step: int, document: Mapping[str, Any]) -> Best:
    return Best(step, float(document[LOSS]), str(document.get(WEIGHTS, "reg")))


def _noted(run: Path) -> list[Best]:
    """The best checkpoint that best.json names, if its weights still exist."""
    try:
        best = read_best(run)
    except CheckpointError:
        return []
    return [best] if best.step in list_exports(run, "reg") else []
