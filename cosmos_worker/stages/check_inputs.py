"""check-inputs: checks lists, prompts, images, videos and ground truth of all inference items, before the training.

Its checks are those of the generate stage, including folders and packages of upsampler and guardrails. It needs no GPU.
The name under which the job publishes is checked with them.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from typing import Any

from cosmos_worker.config.stages import CheckInputsConfig, ItemConfig
from cosmos_worker.errors import CheckpointError, DataError, UserError, plain_kind
from cosmos_worker.guardrails.check import auxiliary_model_lines
from cosmos_worker.sample.checks import check_item
from cosmos_worker.sample.inputs import SampleInput, raise_all
from cosmos_worker.storage.published import check_name_is_free
from cosmos_worker.storage.volumes import Volumes
from cosmos_worker.text.tokens import TextTokenizer, shown

logger = logging.getLogger(__name__)


def run(config: CheckInputsConfig, volumes: Volumes) -> dict[str, Any]:
    """Check all inference items, and that the published name is free.

    Returns:
        inputs: number of inputs of each item by name; notes: change to images and videos → number of inputs.

    Raises:
        UserError: with the problems of every item.
        OSError: a volume does not give the content of a file.
    """
    tokenizer = TextTokenizer(volumes.resolve(config.encoder_uri)) if config.encoder_uri else None
    problems: list[UserError] = []
    try:
        check_name_is_free(config.published_uri, config.job, config.job_namespace, volumes)
    except UserError as error:
        problems.append(error)
    num_inputs: dict[str, int] = {}
    notes: Counter[str] = Counter()
    for item in config.items:
        try:
            inputs = check_item(item, config.net, config.tokenizer, volumes)
            _check_auxiliary_models(item, volumes)
            _check_words(item, inputs, tokenizer)
        except UserError as error:
            problems.append(plain_kind(error)(f"inference item {item.name}: {error}"))
            continue
        num_inputs[item.name] = len(inputs)
        notes.update(note for one in inputs for note in one.notes)
        logger.info("check-inputs item=%s inputs=%d", item.name, len(inputs))
    raise_all(problems)
    return {"inputs": num_inputs, "notes": dict(notes.most_common())}


def _check_auxiliary_models(item: ItemConfig, volumes: Volumes) -> None:
    """Check the folders and packages of the item's upsampler and guardrails.

    Raises:
        CheckpointError: a folder or a package is absent, or a folder holds another model.
    """
    lacking = [line for line in auxiliary_model_lines(item, volumes) if line.is_missing]
    if lacking:
        raise CheckpointError(
            "; ".join(f"{line.name}: {line.finding.detail}; {line.remedy}" for line in lacking)
        )


def _check_words(
    item: ItemConfig, inputs: Sequence[SampleInput], tokenizer: TextTokenizer | None
) -> None:
    """Check that the text encoder knows the prompts, unless an upsampler rewrites them.

    Raises:
        DataError: prompts are more than half unknown to it.
    """
    if tokenizer is None or item.prompt_upsampler_uri is not None:
        return
    where = {one.prompt: one.where for one in reversed(inputs)}
    facts = zip(where, tokenizer.facts(list(where)), strict=True)
    unknown = [prompt for prompt, found in facts if found.is_mostly_unknown]
    if unknown:
        first = unknown[0]
        raise DataError(
            f"{len(unknown)} of {len(where)} prompts are more than half unknown to the encoder {tokenizer.folder}, "
            f"such as {where[first]}: {shown(first)}; their videos would not follow them: write them in a language "
            "that it knows"
        )
