"""Captions of a dataset where the reference keeps them, and a dataset without captions unknown to the encoder."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from cosmos_worker.data.dataset_files import find_files
from cosmos_worker.data.index import DatasetIndex
from cosmos_worker.data.layouts.bridge import (
    ANNOTATION_ENDINGS,
    ANNOTATION_FOLDER,
    read_bridge_caption,
)
from cosmos_worker.data.layouts.videos import (
    find_captions,
    read_folder_caption,
)
from cosmos_worker.data.problems import BadClip
from cosmos_worker.text.embeddings import CaptionFacts
from cosmos_worker.text.reference_pickles import CaptionFile

logger = logging.getLogger(__name__)

PICKLE_FOLDER = "t5_xxl"
"""Beside metas/, with its names."""


def find_caption_files(root: Path) -> Iterator[CaptionFile]:
    """All captions of a dataset in either layout, in the order of their names.

    A caption that cannot be read is told in the log and left out: prepare-dataset has dropped its clip, with the
    reason in its report.

    Raises:
        OSError: the volume does not give names or captions.
    """
    annotations = find_files(root, ANNOTATION_FOLDER, ANNOTATION_ENDINGS).names
    sources = [(name, PurePosixPath(name), read_bridge_caption) for name in annotations]
    sources += [
        (name, PurePosixPath(PICKLE_FOLDER, f"{stem}.txt"), read_folder_caption)
        for name, stem in find_captions(root)
    ]
    for name, target, read in sources:
        try:
            caption = read(root, name)
        except BadClip as problem:
            logger.warning("unreadable caption: %s", problem)
            continue
        yield CaptionFile(caption, Path(target.with_suffix(".pickle")))


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
