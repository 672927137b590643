"""Prompts on their way from the user to the network: upsampled, judged by guardrails, embedded by T5.

The upsampler, the text classifier and the text encoder are loaded one after the other, each for all inputs at once,
and freed before the next.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cosmos_worker.config.stages import GenerateConfig
from cosmos_worker.errors import CheckpointError, DataError
from cosmos_worker.guardrails import upsampler
from cosmos_worker.guardrails.apply import Guardrails
from cosmos_worker.guardrails.pretrained import give_back_memory
from cosmos_worker.guardrails.verdict import VIDEO_FILTER, Blocked
from cosmos_worker.sample.conditioning import read_last_known_frame
from cosmos_worker.sample.inputs import SampleInput
from cosmos_worker.storage.volumes import Volumes
from cosmos_worker.text.embeddings import CaptionFacts, EmbeddingStore
from cosmos_worker.text.t5 import T5Encoder, encoder_identity, read_encoder_config
from cosmos_worker.text.tokens import MOSTLY_UNKNOWN, TextFacts, shown

logger = logging.getLogger(__name__)

Embedding = NDArray[np.float16]
"""Hidden states of one text, shape (L, D): L tokens, D text width."""


@dataclass(frozen=True)
class PreparedPrompts:
    """The prompts of all inputs after the upsampler and the guardrails.

    Attributes:
        final: id → the prompt that the network is given.
        blocked: id → why an input without a result gets no video.
        sampled: inputs that no guardrail of prompts has blocked, finished ones included, in the order given. Batches
            are cut from these, so that after an interruption they are the same as before.
    """

    final: dict[str, str]
    blocked: dict[str, Blocked]
    sampled: list[SampleInput]


@dataclass(frozen=True)
class PromptEmbeddings:
    """The final prompts as the text encoder gives them to the network.

    Attributes:
        by_prompt: prompt → embedding, float16 (L, D).
        negative_LD: of the negative prompt; None exactly if guidance is 0.
        unknown: text → share of its characters (0 to 1) that the encoder does not know, without those that it knows.
    """

    by_prompt: dict[str, Embedding]
    negative_LD: Embedding | None
    unknown: dict[str, float]


def prepare_prompts(
    config: GenerateConfig,
    volumes: Volumes,
    device: torch.device,
    dtype: torch.dtype,
    inputs: Sequence[SampleInput],
    finished: Mapping[str, Mapping[str, Any]],
) -> PreparedPrompts:
    """Upsample and judge the prompts of the inputs without a result; those of finished ones are in their records.

    Args:
        config: of the stage; without its prompt_upsampler_uri or guardrails that step is left out.
        volumes: where the folders of the models lie.
        device: where to compute.
        dtype: of the weights of upsampler and text classifier.
        inputs: all inputs.
        finished: id → record of a finished result.

    Raises:
        CheckpointError: a model cannot be loaded.
        DataError: the upsampler answers nothing, or word lists are damaged.
    """
    pending = [one for one in inputs if one.id not in finished]
    final = {key: record.get("final_prompt", record["prompt"]) for key, record in finished.items()}
    if config.prompt_upsampler_uri is None or not pending:
        final |= {one.id: one.prompt for one in pending}
    else:
        final |= _upsample_prompts(config, volumes, device, dtype, pending)
    blocked: dict[str, Blocked] = {}
    if config.guardrails is not None:
        texts = {one.id: list(dict.fromkeys((one.prompt, final[one.id]))) for one in pending}
        guardrails = Guardrails.from_config(config.guardrails, volumes)
        blocked = guardrails.judge_prompts(texts, device, dtype)
    not_sampled = {key for key, record in finished.items() if _is_prompt_blocked(record)}
    not_sampled |= set(blocked)
    return PreparedPrompts(final, blocked, [one for one in inputs if one.id not in not_sampled])


def _upsample_prompts(
    config: GenerateConfig,
    volumes: Volumes,
    device: torch.device,
    dtype: torch.dtype,
    inputs: Sequence[SampleInput],
) -> dict[str, str]:
    """Id → the prompt that the upsampler writes from an input's prompt and its last known frame."""
    assert config.prompt_upsampler_uri is not None  # by the caller
    writer = upsampler.PromptUpsampler(volumes.resolve(config.prompt_upsampler_uri), device, dtype)
    texts = {}
    for one in inputs:
        frame = read_last_known_frame(one, config.sampling, config.fit)
        texts[one.id] = writer.write(one.prompt, frame)
        logger.info("upsampled id=%s prompt=%r", one.id, texts[one.id])
    del writer
    give_back_memory()
    return texts


def _is_prompt_blocked(record: Mapping[str, Any]) -> bool:
    """Say whether a guardrail of prompts has blocked a finished input, which was then never sampled."""
    verdict = record.get("blocked")
    return verdict is not None and verdict["by"] != VIDEO_FILTER


def embed_prompts(
    config: GenerateConfig, volumes: Volumes, device: torch.device, prompts: Sequence[str]
) -> PromptEmbeddings:
    """Embed the final prompts, and the negative prompt if there is guidance.

    Embeddings that embed-text has stored are taken from there. The encoder is loaded for the other texts only, and
    freed on return.

    Raises:
        CheckpointError: the encoder cannot be loaded, or is not the one that the network was trained with.
        DataError: a text that the encoder cannot embed.
    """
    negative = config.sampling.guided_away_from
    texts = list(dict.fromkeys([*prompts, *([] if negative is None else [negative])]))
    folder = volumes.resolve(config.encoder_uri)
    dim = read_encoder_config(folder)["d_model"]
    if dim != config.net.text_channels:
        raise CheckpointError(
            f"{config.encoder_uri}: embeddings are {dim} wide, the network takes "
            f"{config.net.text_channels} (net.text_channels); use the encoder that the model was trained with"
        )
    embeddings, facts = _read_stored(config, volumes, folder, texts)
    missing = [text for text in texts if text not in embeddings]
    logger.info(
        "prompts texts=%d stored=%d to_compute=%d", len(texts), len(embeddings), len(missing)
    )
    if missing:
        encoder = T5Encoder(folder, device)
        computed = encoder.encode(missing, config.text.max_length)
        embeddings |= zip(missing, computed, strict=True)
        facts |= zip(missing, encoder.tokenizer.facts(missing), strict=True)
    return PromptEmbeddings(
        by_prompt=embeddings,
        negative_LD=None if negative is None else embeddings[negative],
        unknown=unknown_shares({text: facts[text] for text in texts}),
    )


def _read_stored(
    config: GenerateConfig, volumes: Volumes, encoder: Path, texts: Sequence[str]
) -> tuple[dict[str, Embedding], dict[str, TextFacts]]:
    """The embeddings and the facts of those texts of which embed-text has stored both; of a damaged store none."""
    embeddings: dict[str, Embedding] = {}
    facts: dict[str, TextFacts] = {}
    if config.embeddings_uri is None:
        return embeddings, facts
    folder = volumes.resolve(config.embeddings_uri)
    identity = encoder_identity(encoder, config.text.max_length)
    try:
        store, stored_facts = EmbeddingStore(folder, identity), CaptionFacts(folder, identity)
        for text in texts:
            found = stored_facts.get(text)
            if text in store and found is not None:
                embeddings[text], facts[text] = store.get(text), found
    except DataError as error:
        logger.warning("stored embeddings are not used, all prompts are computed: %s", error)
        return {}, {}
    return embeddings, facts


def unknown_shares(facts: Mapping[str, TextFacts]) -> dict[str, float]:
    """Text → share of its characters that the encoder does not know, of the texts that have some; each is logged."""
    shares = {text: round(one.unknown, 4) for text, one in facts.items() if one.unknown}
    for text, share in shares.items():
        advice = (
            "the result does not follow it; write it in a language that the encoder knows"
            if share > MOSTLY_UNKNOWN
            else "the rest of it counts"
        )
        logger.warning(
            "%.0f %% of the text %s is unknown to the encoder: %s", 100 * share, shown(text), advice
        )
    return shares
