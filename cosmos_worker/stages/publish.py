"""publish: a chosen export becomes ``<name>/model.pt`` with ``model.json`` beside it, verified by loading it."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

from cosmos_worker.checkpoint.best import read_best
from cosmos_worker.checkpoint.export import find_export
from cosmos_worker.checkpoint.state import reporting_full_disk
from cosmos_worker.checkpoint.weights import open_model
from cosmos_worker.config import PublishConfig
from cosmos_worker.errors import CheckpointError
from cosmos_worker.layout import (
    DESCRIPTION_FILE,
    MODEL_FILE,
    RESOLVED_CONFIG_FILE,
    Volumes,
    atomic_write,
    sha256_of_file,
    write_json,
)

logger = logging.getLogger(__name__)


def check_not_foreign(target: Path, job: str) -> None:
    """A published name belongs to the job that took it.

    Raises:
        CheckpointError: the folder holds a model that was not published, or one of another job.
    """
    description = target / DESCRIPTION_FILE
    if not (target / MODEL_FILE).exists():
        return
    owner = (
        json.loads(description.read_text(encoding="utf-8")).get("job")
        if description.is_file()
        else None
    )
    if owner != job:
        raise CheckpointError(
            f"{target / MODEL_FILE}: belongs to {owner or 'nobody that published it'}, not to {job}; "
            "choose another outputs.name, or move that folder away"
        )


def run(config: PublishConfig, volumes: Volumes) -> dict[str, Any]:
    """Copy, verify, describe.

    Raises:
        CheckpointError: no such export, a damaged one, or a name that is taken.
        RetryableError: disk full; an earlier published model is intact.
    """
    run_path, target = volumes.resolve(config.run_uri), volumes.resolve(config.target_uri)
    check_not_foreign(target, config.job)
    wanted = read_best(run_path).step if config.step == "best" else config.step
    step, source = find_export(run_path, config.weights, wanted)
    target.mkdir(parents=True, exist_ok=True)
    for marker in target.glob("complete-*.json"):  # of settings whose model is replaced now
        marker.unlink()
    with reporting_full_disk(target), atomic_write(target / MODEL_FILE) as stream:
        with source.open("rb") as weights:
            shutil.copyfileobj(weights, stream, 1 << 22)
        stream.flush()
        # raises before the earlier one is replaced
        model, _ = open_model(Path(stream.name), config.net)
    digest = sha256_of_file(target / MODEL_FILE)
    description = {
        "name": config.name,
        "job": config.job,
        "made_of": str(source.relative_to(run_path)),
        "run": config.run_uri,
        "step": step,
        "weights": config.weights,
        "sha256": digest,
        "bytes": (target / MODEL_FILE).stat().st_size,
        "parameters": sum(p.numel() for p in model.parameters()),
        "extra_pos_emb": model.net.extra_pos_embedder is not None,
        "net": config.net.model_dump(mode="json"),
        "configuration": str((run_path / RESOLVED_CONFIG_FILE).relative_to(run_path)),
    }
    write_json(target / DESCRIPTION_FILE, description)
    logger.info(
        "published %s step=%d weights=%s sha256=%s",
        target / MODEL_FILE,
        step,
        config.weights,
        digest,
    )
    return {
        "name": config.name,
        "model": str(target / MODEL_FILE),
        "step": step,
        "weights": config.weights,
        "sha256": digest,
    }
