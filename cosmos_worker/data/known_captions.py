"""A dataset without the captions that its text encoder does not know, and without clips that have no other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from cosmos_worker.data.index import DatasetIndex
from cosmos_worker.text.facts import CaptionFacts

CAPTION_UNKNOWN = "caption_unknown"
"""Reason for which a clip is left out: more than half of each of its captions is unknown to the encoder."""
NAMED = 10
"""Clips that a message names."""


@dataclass(frozen=True)
class KnownCaptions:
    """What is left of a dataset, and what was left out of it."""

    index: DatasetIndex
    """Clips with the captions that the encoder knows."""
    dropped: tuple[str, ...] = ()
    """Ids of the clips that have no such caption."""
    num_unnoted: int = 0
    """Distinct captions of which nothing was noted; they count as known."""


def leave_out_unknown(index: DatasetIndex, facts: CaptionFacts) -> KnownCaptions:
    """The dataset as it can be trained on: captions that are more than half unknown teach nothing.

    Args:
        index: all usable clips.
        facts: of their captions, from the store of the embeddings.
    """
    unknown = set[str]()
    unnoted = 0
    for caption in index.captions:
        found = facts.get(caption)
        unnoted += found is None
        if found is not None and found.is_mostly_unknown:
            unknown.add(caption)
    kept, dropped = [], []
    for clip in index.clips:
        captions = tuple(caption for caption in clip.captions if caption not in unknown)
        if not captions:
            dropped.append(clip.clip_id)
        else:
            kept.append(clip if captions == clip.captions else replace(clip, captions=captions))
    if dropped or unknown:
        index = DatasetIndex(index.root, tuple(kept))
    return KnownCaptions(index, tuple(dropped), unnoted)


def name_clips(clip_ids: Sequence[str]) -> str:
    """The first of some clips, for messages."""
    rest = len(clip_ids) - NAMED
    return ", ".join(clip_ids[:NAMED]) + (f" and {rest} more" if rest > 0 else "")
