"""Prompts on their way from the user to the network: upsampled, judged by guardrails, embedded by T5.

The upsampler, the text classifier and the text encoder are loaded one after the other, each for all inputs at once,
and freed before the next.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cosmos_worker.config.stages import GenerateConfig
from cosmos_worker.errors import CheckpointError
from cosmos_worker.guardrails import upsampler
from cosmos_worker.guardrails.apply import Guardrails
from cosmos_worker.guardrails.pretrained import give_back_memory
from cosmos_worker.guardrails.verdict import VIDEO_FILTER, Blocked
from cosmos_worker.sample.conditioning import read_last_known_frame
from cosmos_worker.sample.inputs import SampleInput
from cosmos_worker.storage.volumes import Volumes
from cosmos_worker.text.t5 import T5Encoder
from cosmos_worker.text.tokens import MOSTLY_UNKNOWN, TextTokenizer, shown

logger = logging.getLogger(__name__)

DEFAULT_NEGATIVE_PROMPT = (
    "A bad recording: blurred, noisy, blocky, flickering or frozen, with a shaking camera, wrong exposure and dull "
    "colours; objects melt, jump, vanish or pass through each other, and the motion obeys no physics."
)
"""The text that guidance moves away from where a job names none."""

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
    """Embed the final prompts, and the negative prompt if there is guidance; the encoder is freed on return.

    Raises:
        CheckpointError: the encoder cannot be loaded, or is not the one that the network was trained with.
        DataError: a text that the encoder cannot embed.
    """
    sampling = config.sampling
    texts = list(dict.fromkeys(prompts))
    if sampling.guidance > 0:
        negative = sampling.negative_prompt
        texts.append(DEFAULT_NEGATIVE_PROMPT if negative is None else negative)
    encoder = T5Encoder(volumes.resolve(config.encoder_uri), device)
    if encoder.dim != config.net.text_channels:
        raise CheckpointError(
            f"{config.encoder_uri}: embeddings are {encoder.dim} wide, the network takes "
            f"{config.net.text_channels} (net.text_channels); use the encoder that the model was trained with"
        )
    embeddings = encoder.encode(texts, config.text.max_length)
    return PromptEmbeddings(
        by_prompt=dict(zip(texts, embeddings, strict=True)),
        negative_LD=embeddings[-1] if sampling.guidance > 0 else None,
        unknown=unknown_shares(encoder.tokenizer, texts),
    )


def unknown_shares(tokenizer: TextTokenizer, texts: Sequence[str]) -> dict[str, float]:
    """Text → share of its characters that the encoder does not know, of the texts that have some; each is logged."""
    shares = {
        text: round(facts.unknown, 4)
        for text, facts in zip(texts, tokenizer.facts(texts), strict=True)
        if facts.unknown
    }
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
