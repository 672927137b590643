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
import re
import time
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from cosmos_worker.config.addresses import recorded
from cosmos_worker.config.stages import StageConfig
from cosmos_worker.errors import EXIT_OK
from cosmos_worker.runtime.outcome import Outcome
from cosmos_worker.runtime.process_group import ProcessGroup
from cosmos_worker.storage.same_work import only_maker
from cosmos_worker.storage.volumes import (
    Volumes,
    marker_path,
    read_marker,
    remove_leftovers,
    write_json,
)

logger = logging.getLogger(__name__)

CHECKED_STAGES = ("prepare-dataset",)
"""Stages with a ``check_done``."""
RENEWED_STAGES = ("fetch-model", "publish")
"""Stages with a ``find_lacking``; they run again where somebody has removed what they made."""
SHARED_STAGES = ("fetch-model", "prepare-dataset", "embed-text", "cache-latents", "generate")
"""Stages of which several jobs may want the same result at the same time; the training locks its folder itself."""


def run_stage(
    stage: str, config: StageConfig, volumes: Volumes, *, is_alone: bool = False
) -> Outcome:
    """Run a stage unless its completion marker exists, then write the marker.

    Args:
        stage: command of the worker.
        config: its document.
        volumes: where they are mounted.
        is_alone: True if no other process can be at the same work, as its launcher holds the lock of its content. A
            group that something else has started takes no lock: its processes would wait for each other.

    Raises:
        WorkerError: of the stage.
    """
    if done := _find_done(stage, config, volumes):
        return done
    if is_alone or ProcessGroup.from_environment(os.environ).world_size > 1:
        return _run(stage, config, volumes)
    with lock_content(stage, config, volumes):
        return _find_done(stage, config, volumes) or _run(stage, config, volumes)


def lock_content(stage: str, config: StageConfig, volumes: Volumes) -> AbstractContextManager[None]:
    """A block in which no other pod makes what a stage makes; it begins once such a pod has ended."""
    if stage not in SHARED_STAGES:
        return nullcontext()
    return only_maker(volumes.resolve(config.target_uri), config.key)


def _find_done(stage: str, config: StageConfig, volumes: Volumes) -> Outcome | None:
    """The outcome of a stage whose result is there; None if it is not."""
    target = volumes.resolve(config.target_uri)
    marker = read_marker(target, config.key)
    if marker is not None and stage in RENEWED_STAGES:
        lacking = _module(stage).find_lacking(config, volumes, marker["result"])
        if lacking is not None:
            logger.warning("%s was done, but %s is gone; running again", stage, lacking)
            marker = None
    if marker is None:
        return None
    if stage in CHECKED_STAGES:
        _module(stage).check_done(config, volumes)
    logger.info("%s already done key=%s folder=%s", stage, config.key, target)
    result = marker.get("result")
    return Outcome(EXIT_OK, "Succeeded", _said(f"{stage} was already done", result), result=result)


def _run(stage: str, config: StageConfig, volumes: Volumes) -> Outcome:
    """Run a stage, and write its completion marker."""
    started = time.monotonic()
    if config.verify == "full":
        processes = ProcessGroup.from_environment(os.environ)
        _module("verify").verify_inputs(config, volumes, processes.rank, processes.world_size)
    result = _module(stage).run(config, volumes)
    seconds = time.monotonic() - started
    if ProcessGroup.from_environment(os.environ).is_main:
        document = {
            "stage": stage,
            "config": recorded(config.model_dump(mode="json")),
            "result": result,
        }
        path = marker_path(volumes.resolve(config.target_uri), config.key)
        remove_leftovers(path.parent, re.compile(re.escape(path.name)))
        write_json(path, document)
        logger.info("%s done seconds=%.1f result=%s", stage, seconds, json.dumps(result))
    said = _said(f"{stage} done in {seconds:.1f} s", result)
    return Outcome(EXIT_OK, "Succeeded", said, result=result)


def _said(sentence: str, result: dict[str, Any] | None) -> str:
    """A sentence with the note of a result, if it has one."""
    return "; ".join([sentence, *([result["note"]] if result and "note" in result else [])])


def _module(stage: str) -> Any:  # noqa: ANN401 - a module
    return importlib.import_module(f"cosmos_worker.stages.{stage.replace('-', '_')}")
