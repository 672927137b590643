"""Texts as an encoder reads them: how many it truncates or does not know, and which of them it cannot tell apart."""

from __future__ import annotations

import logging
import unicodedata
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from cosmos_worker.errors import DataError
from cosmos_worker.text.embeddings import CaptionFacts, EmbeddingStore
from cosmos_worker.text.tokens import TextTokenizer, shown

logger = logging.getLogger(__name__)

NAMED = 3
"""Texts that a message shows."""


@dataclass(frozen=True)
class WordCounts:
    """Numbers of distinct texts."""

    truncated: int
    """Texts of more tokens than the encoder is given."""
    with_unknown: int
    """Texts with unknown tokens."""
    unknown: int
    """Texts that are more than half unknown."""

    def as_dict(self) -> dict[str, int]:
        """By name."""
        return asdict(self)

    @property
    def has_losses(self) -> bool:
        """Whether the encoder loses anything of them."""
        return self.truncated > 0 or self.with_unknown > 0

    def describe(self, total: int) -> str:
        """One clause for people; total: number of all the texts."""
        return (
            f"{total} captions and prompts: {self.truncated} truncated, {self.with_unknown} with unknown tokens, "
            f"{self.unknown} more than half unknown"
        )


def note_facts(facts: CaptionFacts, texts: Sequence[str], tokenizer: Path) -> None:
    """Store the facts that are missing, also of texts that an earlier version embedded; needs no weights.

    Args:
        facts: of the store.
        texts: captions and prompts.
        tokenizer: folder of the encoder.

    Raises:
        DataError: a text with NUL or half of a surrogate pair.
        CheckpointError: the folder has no tokenizer that can be loaded.
    """
    missing = facts.missing(texts)
    if missing:
        found = TextTokenizer(tokenizer).facts(missing)
        facts.add(dict(zip(missing, found, strict=True)))


def count_words(facts: CaptionFacts, texts: Sequence[str], max_length: int) -> WordCounts:
    """What the encoder loses of distinct texts; those of which nothing is noted count as known."""
    known = [found for text in dict.fromkeys(texts) if (found := facts.get(text)) is not None]
    return WordCounts(
        truncated=sum(one.tokens > max_length for one in known),
        with_unknown=sum(one.unknown > 0 for one in known),
        unknown=sum(one.is_mostly_unknown for one in known),
    )


def mostly_unknown(facts: CaptionFacts, texts: Sequence[str]) -> list[str]:
    """The distinct texts that are more than half unknown, in the order given."""
    return [
        text
        for text in dict.fromkeys(texts)
        if (found := facts.get(text)) is not None and found.is_mostly_unknown
    ]


def check_captions(
    facts: CaptionFacts, captions: Sequence[str], max_fraction: float, encoder: Path
) -> None:
    """Raise DataError if a larger share than max_fraction of a dataset's captions is more than half unknown."""
    unknown = mostly_unknown(facts, captions)
    share = len(unknown) / max(1, len(captions))
    if share > max_fraction:
        raise DataError(
            f"{len(unknown)} of {len(captions)} captions ({100 * share:.1f} %) are more than half unknown to the "
            f"encoder {encoder}, max_unknown_fraction allows {100 * max_fraction:g} %: {_named(unknown)}; such "
            "captions get nearly the same embedding, whatever they say: translate them, use an encoder that knows "
            "their characters, or raise spec.embeddings.maxUnknownFraction to train without their clips"
        )


def check_prompts(facts: CaptionFacts, prompts: Sequence[str], encoder: Path) -> None:
    """Raise DataError if a prompt of the job is more than half unknown."""
    if unknown := mostly_unknown(facts, prompts):
        raise DataError(
            f"spec.inference: {len(unknown)} of {len(prompts)} prompts are more than half unknown to the encoder "
            f"{encoder}: {_named(unknown)}; their videos would not follow them: write them in a language that it knows"
        )


def tell_equal(store: EmbeddingStore, captions: Sequence[str]) -> int:
    """Log which captions have the same embedding to the last bit; returns how many captions share theirs.

    Captions that differ in spaces or in forms of the same characters only are meant to have the same.
    """
    groups = []
    for group in store.equal(captions):
        different = {" ".join(unicodedata.normalize("NFKC", text).split()): text for text in group}
        if len(different) > 1:
            groups.append(list(different.values()))
    count = sum(len(group) for group in groups)
    if groups:
        examples = "; ".join(" = ".join(map(shown, group[:NAMED])) for group in groups[:NAMED])
        logger.warning(
            "equal embeddings captions=%d groups=%d: the encoder cannot tell them apart, such as %s",
            count, len(groups), examples,
        )  # fmt: skip
    return count


def _named(texts: Sequence[str]) -> str:
    rest = len(texts) - NAMED
    return ", ".join(map(shown, texts[:NAMED])) + (f" and {rest} more" if rest > 0 else "")
