"""publish: copies a chosen export of a run to ``<name>/model.pt`` with ``model.json`` beside it, and verifies it."""

from __future__ import annotations

import logging
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from cosmos_worker.config.network import NetConfig
from cosmos_worker.config.stages import PublishConfig
from cosmos_worker.errors import CheckpointError
from cosmos_worker.model.dit import CosmosModel
from cosmos_worker.storage.file_digests import (
    check_folder_whole,
    check_recorded,
    stamp,
)
from cosmos_worker.storage.files import reporting_full_disk
from cosmos_worker.storage.published import check_not_foreign
from cosmos_worker.storage.volumes import (
    ADAPTER_FOLDER,
    DESCRIPTION_FILE,
    MODEL_FILE,
    RESOLVED_CONFIG_FILE,
    Volumes,
    atomic_write,
    remove_leftovers,
    sha256_of_file,
    write_json,
)
from cosmos_worker.train.export import find_export, read_best
from cosmos_worker.weights.adapter import Adapter, merge_adapter, write_adapter
from cosmos_worker.weights.adapter_reading import read_adapter
from cosmos_worker.weights.files import (
    find_adapter,
    has_adapter,
    replacing_folder,
)
from cosmos_worker.weights.load import (
    check_finite,
    open_model,
)
from cosmos_worker.weights.weight_change import (
    NOTHING_TRAINED,
    is_unchanged,
    read_change,
)

logger = logging.getLogger(__name__)


def run(config: PublishConfig, volumes: Volumes) -> dict[str, Any]:
    """Copy the export, load the copy to verify it, and describe it in model.json.

    Returns:
        name, model (path), step, weights ("reg" or "ema"), sha256, and change, if it is known.

    Raises:
        CheckpointError: no such export, a damaged one, one without the adapter that is asked for, or a name that is
            taken.
        RetryableError: disk full; an earlier published model is intact.
    """
    run_path, target = volumes.resolve(config.run_uri), volumes.resolve(config.target_uri)
    check_not_foreign(target, config.job, config.job_namespace)
    wanted = _best_step(run_path, config.last_step) if config.step == "best" else config.step
    step, source = find_export(run_path, config.weights, wanted)
    adapter = _read_adapter(config, source)
    changes = _read_change(run_path, step, config.weights)
    target.mkdir(parents=True, exist_ok=True)
    remove_leftovers(
        target, re.compile(rf"{re.escape(MODEL_FILE)}|{re.escape(DESCRIPTION_FILE)}")
    )  # of an earlier attempt
    for marker in target.glob(
        "complete-*.json"
    ):  # of earlier settings, whose model is replaced now
        marker.unlink()
    with reporting_full_disk(target), atomic_write(target / MODEL_FILE) as stream:
        copy = Path(stream.name)
        with source.open("rb") as exported:
            shutil.copyfileobj(exported, stream, 1 << 22)
        stream.flush()
        os.fsync(stream.fileno())
        # raises before the earlier one is replaced
        model, state = _open_copy(copy, source, config.net)
        check_finite(state, source)
        if adapter is not None:
            merge_adapter(state, adapter, find_adapter(source))  # raises where it does not fit
        digest = sha256_of_file(copy)
        description = _describe(config, model, adapter) | {
            "made_of": str(source.relative_to(run_path)),
            "step": step,
            "sha256": digest,
            "bytes": copy.stat().st_size,
            "configuration": RESOLVED_CONFIG_FILE,
            **stamp(copy),
            **changes,
        }
        _publish_adapter(target / ADAPTER_FOLDER, adapter)
        # before the model: a model without description belongs to no job, and the next attempt would refuse it
        write_json(target / DESCRIPTION_FILE, description)
    model_file, weights = target / MODEL_FILE, config.weights
    logger.info("published %s step=%d weights=%s sha256=%s", model_file, step, weights, digest)
    return {
        "name": config.name,
        "model": str(model_file),
        "step": step,
        "weights": weights,
        "sha256": digest,
        **changes,
    }


def _open_copy(
    copy: Path, source: Path, net: NetConfig
) -> tuple[CosmosModel, Mapping[str, Tensor]]:
    """Open the copy of an export; CheckpointError names the export, which is at fault."""
    try:
        return open_model(copy, net)
    except CheckpointError as error:
        raise CheckpointError(
            f"{str(error).replace(str(copy), str(source))}; choose another step (spec.outputs.step)"
        ) from None


def find_lacking(config: PublishConfig, volumes: Volumes, result: Mapping[str, Any]) -> Path | None:
    """Path of the model that an earlier run of this stage published, if it is gone; None if it is there.

    Args:
        config: of the stage.
        volumes: where addresses lie on this machine.
        result: of the earlier run.

    Raises:
        CheckpointError: another file is in its place.
    """
    path = volumes.resolve(config.target_uri) / Path(result["model"]).name
    if not path.is_file():
        return path
    check_recorded(path)
    if config.verify == "full":
        check_folder_whole(path.parent)
    return None


def _best_step(run: Path, last_step: int | None) -> int:
    """The step of the best checkpoint.

    Raises:
        CheckpointError: no best checkpoint is known, or it is of a step after last_step.
    """
    best = read_best(run).step
    if last_step is not None and best > last_step:
        raise CheckpointError(
            f"{run}: its best checkpoint is of step {best}, since it was trained further than the {last_step} steps "
            f"that are asked for (spec.training.steps); choose spec.outputs.step, or train {best} steps or more"
        )
    return best


def _read_change(run: Path, step: int, weights: str) -> dict[str, Any]:
    """Relative change of the published weights since the training began, by kind of layer; a warning if it is zero."""
    found = read_change(run, step)
    if is_unchanged(found):
        logger.warning(NOTHING_TRAINED, step)
    return {"change": found[weights]} if weights in found else {}


def _read_adapter(config: PublishConfig, source: Path) -> Adapter | None:
    """The LoRA adapter in an export; None if it is not to be published."""
    if config.adapter_of is None:
        return None
    return replace(read_adapter(find_adapter(source)), base=config.adapter_of)


def _publish_adapter(folder: Path, adapter: Adapter | None) -> None:
    """Write the adapter in place of that of an earlier publication, or remove the earlier one if there is none now."""
    if adapter is not None:
        with replacing_folder(folder) as new:
            write_adapter(new, adapter)
    elif has_adapter(folder):
        shutil.rmtree(folder)


def _describe(config: PublishConfig, model: CosmosModel, adapter: Adapter | None) -> dict[str, Any]:
    """Entries of model.json: names, sizes and options of the published model."""
    description: dict[str, Any] = {
        "name": config.name,
        "job": config.job,
        "namespace": config.job_namespace,
        "job_uid": config.job_uid,
        "run": config.run_uri,
        "weights": config.weights,
        "parameters": sum(p.numel() for p in model.parameters()),
        "extra_pos_emb": model.net.extra_pos_embedder is not None,
        "net": config.net.model_dump(mode="json"),
    }
    if adapter is not None:
        entry = {"rank": adapter.rank, "alpha": adapter.alpha, "base": adapter.base}
        description["adapter"] = entry
    return description
