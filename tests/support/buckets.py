"""A dataset of two sizes and lengths, real videos, taken through the stages before training."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from cosmos_worker.config.experiment import Experiment
from cosmos_worker.config.network import VideoConfig
from cosmos_worker.config.source import Source
from cosmos_worker.config.stages import CacheLatentsConfig, PrepareDatasetConfig
from cosmos_worker.config.training import ParallelConfig
from cosmos_worker.data.index import read_index
from cosmos_worker.stages import cache_latents, prepare_dataset
from cosmos_worker.storage.volumes import Volumes
from cosmos_worker.text.embeddings import EmbeddingStore
from support.clips import annotation, write_clip
from support.tiny_tokenizer import write_tiny_tokenizer
from support.training import small_experiment, write_model

WIDE = VideoConfig(num_pixel_frames=17, height=32, width=48)
TALL = VideoConfig(num_pixel_frames=9, height=48, width=32, fps=5)
CLIPS = {
    "train/wide0": (18, 32, 48),
    "train/tall0": (10, 48, 32),
    "train/wide1": (18, 34, 48),
    "train/wide2": (18, 32, 48),
    "train/tall1": (10, 48, 32),
    "train/brief": (12, 32, 48),
    "val/wide": (17, 32, 48),
    "val/tall0": (9, 48, 32),
    "val/tall1": (9, 48, 32),
}
"""Clip id → frames, rows, columns; ``brief`` is wide and fills the tall bucket only."""


def bucket_experiment(parallel: ParallelConfig | None = None, **trainer: object) -> Experiment:
    """The small network on both buckets; steps of 4 windows."""
    experiment = small_experiment(parallel=parallel, **trainer)
    values = experiment.model_dump() | {"buckets": (WIDE, TALL)}
    return Experiment.model_validate(values)


def write_mixed_dataset(root: Path, clips: dict[str, tuple[int, int, int]] | None = None) -> Path:
    """A bridge dataset of clips of these frames, rows and columns."""
    for number, (clip_id, (frames, height, width)) in enumerate((clips or CLIPS).items()):
        split, episode = clip_id.split("/")
        path = root / "annotation" / split / f"{episode}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        document = annotation(episode, split, frames, texts=[f"push {number % 3}"])
        path.write_text(json.dumps(document), encoding="utf-8")
        video = root / "videos" / split / episode / "rgb.mp4"
        write_clip(video, frames, height, width, shade=20 * number)
    return root


def prepare_config(
    root: Path, source: Path, experiment: Experiment, **changes: object
) -> PrepareDatasetConfig:
    """Stage document that writes root/index."""
    return PrepareDatasetConfig(
        key="k",
        target_uri=str(root / "index"),
        data_uri=str(root / "data"),
        source=Source(path=str(source)),
        layout="bridge",
        video=experiment.video,
        buckets=experiment.buckets,
        min_clips=experiment.trainer.global_batch_size,
        **changes,
    )


def cache_config(
    root: Path, experiment: Experiment, target: Path | None = None
) -> CacheLatentsConfig:
    """Stage document that writes root/latents with the tokenizer in root/tokenizer."""
    return CacheLatentsConfig(
        key="k",
        target_uri=str(target or root / "latents"),
        dataset_uri=str(root / "index"),
        tokenizer_uri=str(root / "tokenizer"),
        video=experiment.video,
        buckets=experiment.buckets,
        tokenizer=experiment.tokenizer,
        tokenizer_runtime="torchscript",
    )


def write_bucket_inputs(root: Path) -> Path:
    """Write root/{index,text,latents,model.pt} from videos of two sizes and lengths."""
    experiment = bucket_experiment()
    source = write_mixed_dataset(root / "source")
    write_tiny_tokenizer(root / "tokenizer")
    prepare_dataset.run(prepare_config(root, source, experiment), Volumes())
    cache_latents.run(cache_config(root, experiment), Volumes())
    generator = torch.Generator().manual_seed(7)
    EmbeddingStore(root / "text", "random").add(
        {
            caption: torch.randn(4, 16, generator=generator).numpy().astype(np.float16)
            for caption in read_index(root / "index").captions
        }
    )
    write_model(root / "model.pt")
    return root
