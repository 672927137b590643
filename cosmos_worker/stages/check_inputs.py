"""check-inputs: lists, images, videos and ground truth of all inference items, before the training takes its GPUs.

It calls what the generate stage calls, loads no model and needs no GPU.
"""

from __future__ import annotations

import logging
from typing import Any

from cosmos_worker.config import CheckInputsConfig
from cosmos_worker.errors import UserError
from cosmos_worker.layout import Volumes
from cosmos_worker.sample.checks import check_item
from cosmos_worker.sample.inputs import raise_all

logger = logging.getLogger(__name__)


def run(config: CheckInputsConfig, volumes: Volumes) -> dict[str, Any]:
    """Read everything that the inference items read.

    Returns:
        inputs: how many of all items; notes: on what is done to images and videos, by item and input id.

    Raises:
        UserError: with what is wrong in every item.
        OSError: a volume does not give the content of a file.
    """
    problems: list[UserError] = []
    num_inputs = 0
    notes: dict[str, dict[str, list[str]]] = {}
    for item in config.items:
        try:
            inputs = check_item(item, config.net, config.tokenizer, volumes)
        except UserError as error:
            problems.append(type(error)(f"inference item {item.name}: {error}"))
            continue
        num_inputs += len(inputs)
        logger.info("check-inputs item=%s inputs=%d", item.name, len(inputs))
        told = {one.id: list(one.notes) for one in inputs if one.notes}
        if told:
            notes[item.name] = told
    raise_all(problems)
    return {"inputs": num_inputs, "notes": notes}
