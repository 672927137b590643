"""Run a stage, unless its completion marker says that it is done. Importing this file imports no torch.

A stage is a module of this package with ``run(config, volumes)``, which returns its result. It may have
``check_done``, which refuses to serve a finished result of inputs that have changed since, or ``find_lacking``, which
names files of a finished result that are gone.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import time

from cosmos_worker.config.addresses import recorded
from cosmos_worker.config.stages import StageConfig
from cosmos_worker.errors import EXIT_OK
from cosmos_worker.runtime.outcome import Outcome
from cosmos_worker.runtime.process_group import ProcessGroup
from cosmos_worker.storage.volumes import Volumes, marker_path, read_marker, write_json

logger = logging.getLogger(__name__)

CHECKED_STAGES = ("prepare-dataset",)
"""Stages with a ``check_done``."""
RENEWED_STAGES = ("fetch-model", "publish")
"""Stages with a ``find_lacking``; they run again where somebody has removed what they made."""


def run_stage(stage: str, config: StageConfig, volumes: Volumes) -> Outcome:
    """Run a stage unless its completion marker exists, then write the marker.

    Raises:
        WorkerError: of the stage.
    """
    target = volumes.resolve(config.target_uri)
    marker = read_marker(target, config.key)
    name = f"cosmos_worker.stages.{stage.replace('-', '_')}"
    if marker is not None and stage in RENEWED_STAGES:
        lacking = importlib.import_module(name).find_lacking(config, volumes, marker["result"])
        if lacking is not None:
            logger.warning("%s was done, but %s is gone; running again", stage, lacking)
            marker = None
    if marker is not None:
        if stage in CHECKED_STAGES:
            importlib.import_module(name).check_done(config, volumes)
        logger.info("%s already done key=%s folder=%s", stage, config.key, target)
        message = f"{stage} was already done"
        return Outcome(EXIT_OK, "Succeeded", message, result=marker.get("result"))
    module = importlib.import_module(name)
    started = time.monotonic()
    result = module.run(config, volumes)
    seconds = time.monotonic() - started
    if ProcessGroup.from_environment(os.environ).is_main:
        document = {
            "stage": stage,
            "config": recorded(config.model_dump(mode="json")),
            "result": result,
        }
        write_json(marker_path(target, config.key), document)
        logger.info("%s done seconds=%.1f result=%s", stage, seconds, json.dumps(result))
    said = [f"{stage} done in {seconds:.1f} s", *([result["note"]] if "note" in result else [])]
    return Outcome(EXIT_OK, "Succeeded", "; ".join(said), result=result)
