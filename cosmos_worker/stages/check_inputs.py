"""check-inputs: lists, images, videos and ground truth of all inference items, before the training takes its GPUs.

It calls what the generate stage calls, loads no model and needs no GPU.
"""

from __future__ import annotations

import logging
from collections import Counter
from typing import Any

from cosmos_worker.config.stages import CheckInputsConfig
from cosmos_worker.errors import UserError, plain_kind
from cosmos_worker.sample.checks import check_item
from cosmos_worker.sample.inputs import raise_all
from cosmos_worker.storage.volumes import Volumes

logger = logging.getLogger(__name__)


def run(config: CheckInputsConfig, volumes: Volumes) -> dict[str, Any]:
    """Read everything that the inference items read.

    Returns:
        inputs: how many of each item; notes: what is done to images and videos, and to how many.

    Raises:
        UserError: with what is wrong in every item.
        OSError: a volume does not give the content of a file.
    """
    problems: list[UserError] = []
    num_inputs: dict[str, int] = {}
    notes: Counter[str] = Counter()
    for item in config.items:
        try:
            inputs = check_item(item, config.net, config.tokenizer, volumes)
        except UserError as error:
            problems.append(plain_kind(error)(f"inference item {item.name}: {error}"))
            continue
        num_inputs[item.name] = len(inputs)
        notes.update(note for one in inputs for note in one.notes)
        logger.info("check-inputs item=%s inputs=%d", item.name, len(inputs))
    raise_all(problems)
    return {"inputs": num_inputs, "notes": dict(notes.most_common())}
