"""The text that guidance moves away from where a job names none, and prompts that the text encoder does not know."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from cosmos_worker.text.tokens import MOSTLY_UNKNOWN, TextTokenizer, shown

DEFAULT_NEGATIVE_PROMPT = (
    "A bad recording: blurred, noisy, blocky, flickering or frozen, with a shaking camera, wrong exposure and dull "
    "colours; objects melt, jump, vanish or pass through each other, and the motion obeys no physics."
)


logger = logging.getLogger(__name__)

UNKNOWN_TEXT = "unknown_text"
"""Where a record has the share of its prompt that is unknown to the encoder; absent = nothing."""


def unknown_shares(tokenizer: TextTokenizer, texts: Sequence[str]) -> dict[str, float]:
    """The share of each text that is unknown to the encoder, without those that it knows wholly; each is logged."""
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


def with_unknown(
    requests: Mapping[str, dict[str, Any]],
    prompts: Mapping[str, str],
    shares: Mapping[str, float],
) -> dict[str, dict[str, Any]]:
    """Requests that say how much of their final prompt is unknown.

    Args:
        requests: by id.
        prompts: final prompts by id.
        shares: of :func:`unknown_shares`, by prompt.
    """
    return {
        key: {**one, UNKNOWN_TEXT: shares[prompts[key]]} if prompts.get(key) in shares else one
        for key, one in requests.items()
    }


def count_unknown(records: Sequence[Mapping[str, Any]]) -> int:
    """Records whose prompt is more than half unknown."""
    return sum(record.get(UNKNOWN_TEXT, 0) > MOSTLY_UNKNOWN for record in records)
