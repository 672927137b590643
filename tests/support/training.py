"""Inputs of the train stage without video and text: an index, embeddings and latents of random numbers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
import yaml
from torch import Tensor

from cosmos_worker.config.experiment import Experiment
from cosmos_worker.config.network import (
    ConditioningConfig,
    NetConfig,
    TextConfig,
    TokenizerConfig,
    VideoConfig,
)
from cosmos_worker.config.stages import TrainConfig
from cosmos_worker.config.training import (
    LoraConfig,
    OptimizerConfig,
    ParallelConfig,
    TrainerConfig,
)
from cosmos_worker.data.index import Clip, write_index
from cosmos_worker.model.dit import CosmosModel
from cosmos_worker.storage.volumes import (
    SUMMARY_FILE,
    VIDEO_READER_VERSION,
    write_json,
)
from cosmos_worker.text.embeddings import EmbeddingStore
from cosmos_worker.tokenizer.latents import LatentWriter
from cosmos_worker.weights.load import save_weight_file
from support.forked_processes import run_forked

SMALL_NET = NetConfig(
    model_channels=32,
    num_blocks=2,
    num_heads=2,
    text_channels=16,
    adaln_lora_dim=8,
    max_latent_size=16,
    max_latent_frames=8,
)


def small_experiment(
    num_latent_frames: int = 3,
    parallel: ParallelConfig | None = None,
    lora: LoraConfig | None = None,
    **trainer: object,
) -> Experiment:
    """A network of 2 blocks and 32 channels on latents of a few frames of 4x4."""
    num_pixel_frames = 8 * (num_latent_frames - 1) + 1
    return Experiment(
        name="small",
        net=SMALL_NET,
        video=VideoConfig(num_pixel_frames=num_pixel_frames, height=32, width=32),
        tokenizer=TokenizerConfig(chunk_pixel_frames=num_pixel_frames, dtype="float32"),
        parallel=parallel or ParallelConfig(),
        lora=lora or LoraConfig(),
        text=TextConfig(max_length=8),
        conditioning=ConditioningConfig(max_cond_latent_frames=1),
        optimizer=OptimizerConfig(learning_rate=1e-3, warmup_steps=2),
        trainer=TrainerConfig(
            **{
                "max_steps": 6,
                "global_batch_size": 4,
                "micro_batch_size": 2,
                "save_every_steps": 2,
                "log_every_steps": 1,
                "device": "cpu",
                "threads_per_process": 1,
                "keep_last": 8,
                **trainer,
            }
        ),
    )


def small_model(seed: int = 0, extra_pos_emb: bool = True) -> CosmosModel:
    """The network of :func:`small_experiment` with fresh weights whose every layer does something."""
    model = CosmosModel(SMALL_NET, extra_pos_emb)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        model.init_weights(generator)
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return model


def write_model(path: Path, **options: object) -> Path:
    """Write :func:`small_model` as a weight file."""
    save_weight_file(path, small_model(**options).state_dict(), torch.float32)
    return path


CORRECTED = "net.blocks.block0.blocks.0.block.attn.to_v.0.weight"
"""The weight that :func:`with_correction` corrects."""


def with_correction(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], Tensor]:
    """Weights with a LoRA correction beside them, as NVIDIA names it, and B A of it."""
    generator = torch.Generator().manual_seed(9)
    rows, columns = state[CORRECTED].shape
    A = 0.3 * torch.randn(2, columns, generator=generator)
    B = 0.3 * torch.randn(rows, 2, generator=generator)
    layer = CORRECTED.removesuffix(".0.weight")
    return {**state, f"{layer}_lora.net.0.weight": A, f"{layer}_lora.net.1.weight": B}, B @ A


def write_training_inputs(
    root: Path,
    num_windows: int = 10,
    bad_latent: Tensor | None = None,
    num_latent_frames: int = 3,
    latent_size: tuple[int, int] = (4, 4),
    text_channels: int = 16,
    num_captions: int = 1,
) -> None:
    """Write root/{index,text,latents} with train windows and two val windows.

    Args:
        root: is created.
        num_windows: training windows.
        num_latent_frames: of every window.
        latent_size: rows and columns of every window.
        text_channels: of every embedding.
        num_captions: of every clip, 1 to 3: clip i has push i % 3, then the following ones.
        bad_latent: multiplied into the first latent, such as infinity-free huge values.
    """
    generator = torch.Generator().manual_seed(7)
    names = [("train", i) for i in range(num_windows)] + [("val", i) for i in range(2)]
    clips = [
        Clip(
            f"{split}/{i}",
            split,
            f"{i}.mp4",
            tuple(f"push {(i + more) % 3}" for more in range(num_captions)),
            17,
            10.0,
            32,
            32,
            (0,),
            "0" * 64,
        )
        for split, i in names
    ]
    (root / "index").mkdir(parents=True)
    digest = write_index(root / "index", clips)
    write_json(
        root / "index" / SUMMARY_FILE,
        {"root": ".", "index_sha256": digest, "video_reader": VIDEO_READER_VERSION},
    )
    store = EmbeddingStore(root / "text", "random")
    store.add(
        {
            f"push {i}": torch.randn(3 + i, text_channels, generator=generator)
            .numpy()
            .astype(np.float16)
            for i in range(3)
        }
    )
    with LatentWriter(root / "latents", "random") as writer:
        for clip in clips:
            latent = torch.randn(16, num_latent_frames, *latent_size, generator=generator)
            if bad_latent is not None and clip.clip_id == "train/0":
                latent = latent * bad_latent
            writer.add(f"{clip.clip_id}@0", latent)


def train_config(
    root: Path, experiment: Experiment, target: Path | None = None, tokenizer: Path | None = None
) -> TrainConfig:
    """Stage document for inputs of :func:`write_training_inputs` and root/model.pt."""
    return TrainConfig(
        key="k",
        target_uri=str(target or root / "out"),
        experiment=experiment,
        run_name="small",
        model_uri=str(root / "model.pt"),
        dataset_uri=str(root / "index"),
        embeddings_uri=str(root / "text"),
        latents_uri=str(root / "latents"),
        tokenizer_uri=None if tokenizer is None else str(tokenizer),
        tokenizer_runtime="torchscript",
    )


def run_path(target: Path) -> Path:
    """Folder of the run below an output root."""
    return target / "posttraining" / "diffusion_video2world_instruction" / "small"


def train_with_processes(config: TrainConfig, target: Path, processes: int) -> str:
    """Train with several processes of this machine; returns their log."""
    document = target / "train.yaml"
    document.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    ended = run_forked(["train", "--config", str(document)], processes)
    assert set(ended.codes) == {0}, ended.log
    return ended.log
