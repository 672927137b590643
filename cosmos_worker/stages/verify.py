"""The files that a stage reads, compared whole with the digests that were recorded when they were made.

By default sizes, samples and checksums are compared while files are read: what was cut off is always found. With
``verify: full`` a stage reads all of it once before it begins, so that a single flipped bit is found too.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from pathlib import Path

from cosmos_worker.config.stages import GenerateConfig, StageConfig
from cosmos_worker.storage.file_digests import check_folder_whole
from cosmos_worker.storage.volumes import Volumes
from cosmos_worker.text.embeddings import FACTS_PATTERN, EmbeddingStore
from cosmos_worker.text.embeddings import SHARD_PATTERN as EMBEDDINGS
from cosmos_worker.tokenizer.latents import SHARD_PATTERN as LATENTS
from cosmos_worker.tokenizer.latents import LatentStore

logger = logging.getLogger(__name__)

READ_FIELDS = (
    "model_uri", "checkpoint_uri", "tokenizer_uri", "encoder_uri", "embeddings_uri", "latents_uri",
    "prompt_upsampler_uri",
)  # fmt: skip
"""Fields of stage documents with addresses of what other stages have made."""
GUARDRAIL_FIELDS = ("folder_uri", "text_classifier_uri", "image_encoder_uri")


def verify_inputs(config: StageConfig, volumes: Volumes, rank: int = 0, world_size: int = 1) -> int:
    """Compare everything that a stage reads with its recorded digests; nothing unless the document asks for it.

    Args:
        config: the stage's document.
        volumes: where its addresses lie.
        rank: number of this process, which compares its share of the files.
        world_size: number of the processes of the stage.

    Returns:
        Number of folders that were looked at.

    Raises:
        CheckpointError: files of models that are not the recorded ones.
        DataError: embeddings or latents that are not what was written.
    """
    if config.verify != "full":
        return 0
    started, folders = time.monotonic(), list(dict.fromkeys(_folders(config, volumes)))
    for folder in folders:
        check_folder_whole(folder, rank, world_size)
        if any(folder.glob(EMBEDDINGS)) or any(folder.glob(FACTS_PATTERN)):
            EmbeddingStore(folder).verify(rank, world_size)
        if any(folder.glob(LATENTS)):
            LatentStore(folder).verify(rank, world_size)
    logger.info("verified whole folders=%d seconds=%.1f", len(folders), time.monotonic() - started)
    return len(folders)


def _folders(config: StageConfig, volumes: Volumes) -> Iterator[Path]:
    """The folders that a document names as read; those that are not there are left to the stage."""
    addresses = [getattr(config, name, None) for name in READ_FIELDS]
    if isinstance(config, GenerateConfig) and config.guardrails is not None:
        addresses += [getattr(config.guardrails, name) for name in GUARDRAIL_FIELDS]
    for address in addresses:
        if not address or address == "embedded":
            continue
        path = volumes.resolve(address)
        folder = path.parent if path.is_file() else path
        if folder.is_dir():
            yield folder
