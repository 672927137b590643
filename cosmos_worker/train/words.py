"""What a run's text encoder loses of its captions: told in the log and in the run's folder."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from cosmos_worker.data.captions import (
    CAPTION_UNKNOWN,
    leave_out_unknown,
    name_clips,
)
from cosmos_worker.data.index import read_index
from cosmos_worker.errors import DataError
from cosmos_worker.storage.volumes import (
    WORDS_FILE,
    write_json,
)
from cosmos_worker.text.embeddings import CaptionFacts
from cosmos_worker.text.words import count_words
from cosmos_worker.train.data import WindowDataset

logger = logging.getLogger(__name__)


def check_enough_windows(dataset: WindowDataset, global_batch_size: int) -> None:
    """Raise DataError if clips were left out because of their captions and less than one batch remains."""
    dropped = [name for name in dataset.words.dropped if name.startswith("train/")]
    if dropped and len(dataset) < global_batch_size:
        raise DataError(
            f"dataset: {len(dataset)} training windows are left without {len(dropped)} clips whose captions are more "
            f"than half unknown to the text encoder ({name_clips(dropped)}), fewer than one batch of "
            f"{global_batch_size}; translate these captions, use an encoder that knows their characters, or lower "
            "trainer.global_batch_size"
        )


def describe_words(index_folder: Path, store: Path, max_length: int) -> dict[str, Any]:
    """What the text encoder loses of a dataset's captions.

    Args:
        index_folder: of prepare-dataset.
        store: of embed-text.
        max_length: tokens that the encoder was given.

    Returns:
        captions: distinct ones of all splits; truncated, with_unknown, unknown: of these, see ``WordCounts``; reason
        and dropped_clips: clips that are left out, by id.
    """
    index, facts = read_index(index_folder), CaptionFacts(store)
    left = leave_out_unknown(index, facts)
    if left.num_unnoted:
        logger.warning(
            "%s: of %d captions nothing is noted, so unknown ones among them are trained on; run embed-text again",
            store, left.num_unnoted,
        )  # fmt: skip
    return {
        "captions": len(index.captions),
        **count_words(facts, index.captions, max_length).as_dict(),
        "reason": CAPTION_UNKNOWN,
        "dropped_clips": list(left.dropped),
    }


def tell_words(run: Path, words: dict[str, Any]) -> None:
    """Log what :func:`describe_words` found, and keep it in the run's folder for the report."""
    dropped = words["dropped_clips"]
    logger.info(
        "words captions=%d truncated=%d with_unknown=%d unknown=%d left_out_clips=%d",
        words["captions"], words["truncated"], words["with_unknown"], words["unknown"], len(dropped),
    )  # fmt: skip
    if dropped:
        logger.warning(
            "left out clips=%d reason=%s: %s", len(dropped), CAPTION_UNKNOWN, name_clips(dropped)
        )
    write_json(run / WORDS_FILE, words)
