"""embed-text: one T5 embedding of each distinct caption of a dataset, computed once for each encoder."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from cosmos_worker.config.sampling import DEFAULT_NEGATIVE_PROMPT
from cosmos_worker.config.stages import EmbedTextConfig
from cosmos_worker.data.captions import (
    CAPTION_UNKNOWN,
    find_caption_files,
    leave_out_unknown,
    name_clips,
)
from cosmos_worker.data.index import DatasetIndex, read_index
from cosmos_worker.storage.volumes import Volumes
from cosmos_worker.text.embeddings import CaptionFacts, EmbeddingStore
from cosmos_worker.text.reference_pickles import (
    read_pickles,
    write_pickles,
)
from cosmos_worker.text.t5 import T5Encoder, encoder_identity, read_encoder_config
from cosmos_worker.text.words import (
    check_captions,
    check_prompts,
    count_words,
    store_missing_facts,
    warn_of_equal_embeddings,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

logger = logging.getLogger(__name__)

LOG_INTERVAL_S = 10.0
SHARD_INTERVAL_S = 30.0
SHARD_CAPTIONS = 256
"""A shard is written after 256 captions or SHARD_INTERVAL_S, whichever comes first; a kill loses no more than that."""


def run(config: EmbedTextConfig, volumes: Volumes) -> dict[str, Any]:
    """Embed the texts that the store lacks: captions of all splits, extra captions, and the empty text.

    Returns:
        captions, computed, reused, imported, exported: numbers of texts; truncated, with_unknown, unknown: those of
        ``WordCounts``; dropped_clips: number of clips that training leaves out since their captions are unknown;
        equal: number of captions that share their embedding with another; dim: width D; longest: tokens of the
        longest embedding; note: a sentence on truncated and unknown texts, if there are some.

    Raises:
        DataError: no index, a store of another encoder, a damaged shard or pickle, more captions than allowed that
            the encoder does not know, or a prompt that it does not know.
        CheckpointError: the folder holds no T5 encoder.
    """
    index = read_index(volumes.resolve(config.dataset_uri))
    folder = volumes.resolve(config.encoder_uri)
    texts = list(dict.fromkeys([*index.captions, *config.extra_captions]))
    captions = list(dict.fromkeys([*texts, ""]))
    identity = encoder_identity(folder, config.max_length)
    store = EmbeddingStore(volumes.resolve(config.target_uri), identity)
    words = _check_words(index, texts, config, folder, CaptionFacts(store.folder, identity))
    missing = store.missing(captions)
    reused = len(captions) - len(missing)
    imported = 0
    if config.import_pickles and missing:
        imported = _import(store, index.root, missing, folder, config.max_length)
        missing = store.missing(missing)
    logger.info(
        "captions=%d reused=%d imported=%d to_compute=%d encoder=%s",
        len(captions), reused, imported, len(missing), identity,
    )  # fmt: skip
    if missing:
        _compute(store, missing, folder, config)
    exported = 0
    if config.export_pickles_uri is not None:
        target = volumes.resolve(config.export_pickles_uri)
        exported = write_pickles(find_caption_files(index.root), target, captions, store.get)
        logger.info("exported pickles=%d folder=%s", exported, target)
    return {
        "captions": len(captions),
        "computed": len(missing),
        "reused": reused,
        "imported": imported,
        **words,
        "equal": warn_of_equal_embeddings(store, index.captions),
        "exported": exported,
        "dim": store.dim,
        "longest": max(store.length(caption) for caption in captions),
    }


def _check_words(
    index: DatasetIndex,
    texts: Sequence[str],
    config: EmbedTextConfig,
    folder: Path,
    facts: CaptionFacts,
) -> dict[str, Any]:
    """Count the captions and prompts that the encoder truncates or does not know, before any is embedded."""
    store_missing_facts(facts, [*texts, ""], folder)
    counts = count_words(facts, texts, config.max_length)
    logger.info(
        "words texts=%d truncated=%d with_unknown=%d unknown=%d max_length=%d",
        len(texts), counts.truncated, counts.with_unknown, counts.unknown, config.max_length,
    )  # fmt: skip
    check_captions(facts, index.captions, config.max_unknown_fraction, folder)
    prompts = [text for text in config.extra_captions if text != DEFAULT_NEGATIVE_PROMPT]
    check_prompts(facts, prompts, folder)  # the negative one that nobody wrote is nobody's fault
    dropped = leave_out_unknown(index, facts).dropped
    if dropped:
        logger.warning(
            "clips=%d will be left out of the training, reason=%s: %s",
            len(dropped), CAPTION_UNKNOWN, name_clips(dropped),
        )  # fmt: skip
    found: dict[str, Any] = {**counts.as_dict(), "dropped_clips": len(dropped)}
    if counts.has_losses:
        left_out = f"; {len(dropped)} clips will be left out" if dropped else ""
        found["note"] = counts.describe(len(texts)) + left_out
    return found


def _import(
    store: EmbeddingStore, root: Path, captions: Sequence[str], encoder: Path, max_length: int
) -> int:
    dim = read_encoder_config(encoder)["d_model"]
    found = read_pickles(root, find_caption_files(root), captions, dim, max_length)
    store.add(found)
    return len(found)


def _compute(
    store: EmbeddingStore, captions: Sequence[str], folder: Path, config: EmbedTextConfig
) -> None:
    """Embed captions shard by shard."""
    encoder = T5Encoder(folder, "cuda" if torch.cuda.is_available() else "cpu")
    pending: dict[str, NDArray[Any]] = {}
    started = shard_started = logged = time.monotonic()
    ordered = sorted(captions, key=len)  # like lengths in one batch: less padding
    for start in range(0, len(ordered), config.batch_size):
        batch = ordered[start : start + config.batch_size]
        arrays = encoder.encode(batch, config.max_length, config.batch_size)
        pending.update(zip(batch, arrays, strict=True))
        now, done = time.monotonic(), start + len(batch)
        is_last = done == len(ordered)
        if is_last or len(pending) >= SHARD_CAPTIONS or now - shard_started >= SHARD_INTERVAL_S:
            store.add(pending)
            pending, shard_started = {}, now
        if is_last or now - logged >= LOG_INTERVAL_S:
            rate = done / max(now - started, 1e-6)
            eta_s = (len(ordered) - done) / rate
            logger.info("captions=%d/%d per_s=%.1f eta_s=%.0f", done, len(ordered), rate, eta_s)
            logged = now
