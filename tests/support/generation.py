"""Everything that the generate stage needs, tiny and random: network, tokenizer, encoder, clips."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cosmos_worker.config.network import NetConfig
from cosmos_worker.config.stages import GenerateConfig
from cosmos_worker.data.video.files import write_video
from cosmos_worker.model.dit import CosmosModel
from cosmos_worker.storage.volumes import GENERATED_FILE
from cosmos_worker.weights.load import save_weight_file
from support.text_encoders import write_t5
from support.tiny_tokenizer import write_tiny_tokenizer

HEIGHT, WIDTH, NUM_FRAMES = 32, 64, 17
TEXT_CHANNELS = 32
TINY_NET = NetConfig(
    model_channels=32,
    num_blocks=1,
    num_heads=2,
    text_channels=TEXT_CHANNELS,
    adaln_lora_dim=8,
    max_latent_size=16,
    max_latent_frames=4,
)


def moving_square(
    num_frames: int = NUM_FRAMES, height: int = HEIGHT, width: int = WIDTH, shift: int = 0
) -> NDArray[np.uint8]:
    """A red square that moves to the right over a grey gradient, uint8 (T, H, W, 3)."""
    frames = np.zeros((num_frames, height, width, 3), dtype=np.uint8)
    frames[:] = np.linspace(60, 160, width, dtype=np.uint8)[None, None, :, None]
    for t, frame in enumerate(frames):
        left = (4 + shift + t) % (width - 8)
        frame[height // 3 : height // 3 + 10, left : left + 10] = (210, 30, 30)
    return frames


def write_tiny_model(folder: Path, seed: int = 0) -> Path:
    """model.pt with random weights of `TINY_NET`, every modulation active."""
    model = CosmosModel(TINY_NET, extra_pos_emb=False)
    generator = torch.Generator().manual_seed(seed)
    model.init_weights(generator)
    for block in model.net.blocks.values():
        for sub_layer in block.blocks:
            torch.nn.init.normal_(
                sub_layer.adaLN_modulation[2].weight, std=0.3, generator=generator
            )
    path = folder / "model.pt"
    save_weight_file(path, model.state_dict(), torch.float32)
    return path


def write_models(folder: Path) -> None:
    """model.pt, tokenizer/ and encoder/ below the folder."""
    write_tiny_model(folder)
    write_tiny_tokenizer(folder / "tokenizer")
    write_t5(folder / "encoder", d_model=TEXT_CHANNELS)


def write_clips(folder: Path, num_clips: int) -> list[Path]:
    """MP4 files of the moving square, each shifted."""
    paths = [folder / f"clip-{index}.mp4" for index in range(num_clips)]
    for index, path in enumerate(paths):
        write_video(path, moving_square(shift=4 * index), 4.0)
    return paths


def inputs_of(clips: Sequence[Path], prompts: Sequence[str]) -> list[dict[str, Any]]:
    """Inputs of the generate stage, as many as there are prompts and clips."""
    return [
        {"prompt": prompt, "visual_input_uri": str(clip)}
        for prompt, clip in zip(prompts, clips, strict=False)
    ]


def read_json(path: Path) -> dict[str, Any]:
    """A record of a video."""
    return json.loads(path.read_text())


def read_list(folder: Path) -> list[dict[str, Any]]:
    """All records of a folder, from its list."""
    return [json.loads(line) for line in (folder / GENERATED_FILE).read_text().splitlines()]


def generate_config(
    models: Path, target: Path, inputs: Sequence[dict[str, Any]] = (), **changes: Any
) -> GenerateConfig:
    """A document of the generate stage over `write_models`; ``sampling`` in changes is merged."""
    sampling = {
        "num_steps": 3,
        "guidance": 0.0,
        "num_pixel_frames": NUM_FRAMES,
        "height": HEIGHT,
        "width": WIDTH,
        "fps": 4.0,
        "input_frames": "first",
        "batch_size": 2,
        **changes.pop("sampling", {}),
    }
    document = {
        "key": "k",
        "target_uri": str(target),
        "name": "after",
        "checkpoint_uri": str(models / "model.pt"),
        "net": TINY_NET.model_dump(),
        "text": {"max_length": 24},
        "tokenizer_uri": str(models / "tokenizer"),
        "tokenizer": {"chunk_pixel_frames": NUM_FRAMES, "dtype": "float32"},
        "tokenizer_runtime": "torchscript",
        "encoder_uri": str(models / "encoder"),
        "inputs": tuple(inputs),
        "sampling": sampling,
        **changes,
    }
    return GenerateConfig.model_validate(document)
