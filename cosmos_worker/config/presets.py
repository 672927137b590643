"""Named experiments: complete, typed presets. No torch here.

Numbers: cosmos-predict1, experiments ``video2world_instruction_bridge_57frames`` and
``video2world_7b_example_cosmos_nemo_assets`` with its smaller variants, and the recommended ones where the reference
has bugs (learning rate 0, 720 rows that are no multiple of 16, warm-up beyond the end). A window begins every 8 frames
where it is long: one of 121 frames at 720p takes 7 MB of latents.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from cosmos_worker.config.experiment import Experiment, check_changes
from cosmos_worker.config.network import (
    ConditioningConfig,
    DiffusionConfig,
    NetConfig,
    TextConfig,
    TokenizerConfig,
    VideoConfig,
)
from cosmos_worker.config.overrides import apply_overrides
from cosmos_worker.config.training import (
    EmaConfig,
    LoraConfig,
    OptimizerConfig,
    ParallelConfig,
    TrainerConfig,
)
from cosmos_worker.errors import ConfigError

NET_7B = NetConfig(model_channels=4096, num_blocks=28, num_heads=32)
NET_14B = NetConfig(
    model_channels=5120,
    num_blocks=36,
    num_heads=40,
    rope_ratio_t=2.0,
    rope_ratio_h=2.0,
    rope_ratio_w=2.0,
)
NET_TINY = NetConfig(
    model_channels=128,
    num_blocks=4,
    num_heads=4,
    text_channels=128,
    adaln_lora_dim=32,
    max_latent_size=64,
    max_latent_frames=16,
)

BRIDGE_57 = Experiment(
    name="video2world_instruction_bridge_57frames",
    net=NET_7B,
    video=VideoConfig(num_pixel_frames=57, height=256, width=320),
    tokenizer=TokenizerConfig(chunk_pixel_frames=57),
    parallel=ParallelConfig(sharding="full", activation_checkpointing="auto"),
)
BRIDGE_57_14B = BRIDGE_57.model_copy(
    update={"name": "video2world_instruction_bridge_57frames_14b", "net": NET_14B}
)
BRIDGE_57_LORA = BRIDGE_57.model_copy(
    update={
        "name": "video2world_instruction_bridge_57frames_lora",
        "lora": LoraConfig(rank=16, alpha=16.0, targets=("q", "k", "v", "out", "mlp")),
        "optimizer": OptimizerConfig(learning_rate=2**-10, weight_decay=0.0),
    }
)
BRIDGE_57_1GPU = BRIDGE_57.model_copy(
    update={
        "name": "video2world_instruction_bridge_57frames_1gpu_80gb",
        "optimizer": OptimizerConfig(state_bits=8),
        "ema": EmaConfig(enabled=False),
        "parallel": ParallelConfig(activation_checkpointing="auto"),
    }
)
PUSH_TINY = Experiment(
    name="video2world_instruction_push_tiny",
    net=NET_TINY,
    video=VideoConfig(num_pixel_frames=17, height=128, width=160),
    tokenizer=TokenizerConfig(chunk_pixel_frames=17, dtype="float32"),
    text=TextConfig(max_length=32, dropout=0.1),
    conditioning=ConditioningConfig(
        min_cond_latent_frames=1, max_cond_latent_frames=1, flag_dropout=0.0
    ),
    diffusion=DiffusionConfig(p_mean=0.4, p_std=1.4),
    optimizer=OptimizerConfig(
        learning_rate=1.5e-3,
        weight_decay=0.01,
        beta2=0.99,
        warmup_steps=20,
        final_factor=0.0,
        decay_start=0.4,
    ),
    ema=EmaConfig(rate=0.05),
    trainer=TrainerConfig(
        max_steps=700,
        global_batch_size=16,
        micro_batch_size=8,
        save_every_steps=200,
        log_every_steps=10,
        threads_per_process=1,
    ),
)

VIDEO2WORLD = Experiment(
    name="video2world_7b_example_cosmos_nemo_assets",
    group="diffusion_video2world",
    net=NET_7B,
    video=VideoConfig(num_pixel_frames=121, height=704, width=1280, window_stride=8),
    tokenizer=TokenizerConfig(chunk_pixel_frames=121, batch_size=1),
    conditioning=ConditioningConfig(max_cond_latent_frames=2, flag_dropout=0.0),
    diffusion=DiffusionConfig(sigma_multiplier=4.0),
    trainer=TrainerConfig(save_every_steps=200),
    parallel=ParallelConfig(sharding="full", activation_checkpointing="auto"),
)


def _video2world(suffix: str, frames: int, size: int, gpus: int, has_ema: bool) -> Experiment:
    """A smaller plain Video2World; the reference keeps the sigma multiplier of 121 frames for all of them."""
    changes = {
        "name": f"{VIDEO2WORLD.name}_{suffix}",
        "video": VideoConfig(num_pixel_frames=frames, height=size, width=size, window_stride=8),
        "tokenizer": TokenizerConfig(chunk_pixel_frames=frames),
        "ema": EmaConfig(enabled=has_ema),
        "trainer": TrainerConfig(global_batch_size=gpus, save_every_steps=200),
    }
    return VIDEO2WORLD.model_copy(update=changes)


VIDEO2WORLD_4GPU_80GB = _video2world("4gpu_80gb", frames=121, size=384, gpus=4, has_ema=True)
VIDEO2WORLD_8GPU_40GB = _video2world("8gpu_40gb", frames=25, size=384, gpus=8, has_ema=False)
VIDEO2WORLD_4GPU_40GB = _video2world("4gpu_40gb", frames=17, size=192, gpus=4, has_ema=False)
VIDEO2WORLD_14B = VIDEO2WORLD.model_copy(
    update={
        "name": "video2world_14b_example_cosmos_nemo_assets",
        "net": NET_14B,
        "trainer": TrainerConfig(global_batch_size=16, save_every_steps=200),
        "parallel": VIDEO2WORLD.parallel.model_copy(update={"context_parallel": 2}),
    }
)


# --- the list --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Hardware:
    """GPUs that a preset is made for."""

    num_gpus: int
    gpu_memory_gib: int


@dataclass(frozen=True)
class Preset:
    """An experiment, what it is for, and where it runs."""

    experiment: Experiment
    description: str
    """One line."""
    hardware: Hardware | None
    """None = a CPU."""


PRESETS = (
    Preset(BRIDGE_57, "7B follows instructions of a robot dataset (Bridge)", Hardware(8, 80)),
    Preset(BRIDGE_57_14B, "14B follows instructions of a robot dataset", Hardware(8, 80)),
    Preset(BRIDGE_57_1GPU, "7B, all weights, on one GPU: moments of 8 bits", Hardware(1, 80)),
    Preset(BRIDGE_57_LORA, "7B with LoRA, for one GPU of 40 GB", Hardware(1, 40)),
    Preset(VIDEO2WORLD, "7B, plain Video2World at 720p", Hardware(8, 80)),
    Preset(VIDEO2WORLD_4GPU_80GB, "7B, plain, long and small, for 4 GPUs", Hardware(4, 80)),
    Preset(VIDEO2WORLD_8GPU_40GB, "7B, plain, short and small, for 40 GB GPUs", Hardware(8, 40)),
    Preset(VIDEO2WORLD_4GPU_40GB, "7B, plain, smallest, for 4 GPUs of 40 GB", Hardware(4, 40)),
    Preset(VIDEO2WORLD_14B, "14B, plain Video2World at 720p", Hardware(32, 80)),
    Preset(PUSH_TINY, "the quickstart: a tiny network on a simulated robot arm", None),
)
EXPERIMENTS: dict[str, Experiment] = {
    preset.experiment.name: preset.experiment for preset in PRESETS
}


def get_experiment(name: str, overrides: Sequence[str] = ()) -> Experiment:
    """Look up an experiment and apply overrides.

    Raises:
        ConfigError: unknown name (with the nearest one), a bad override, or one of what the checkpoint decides.
    """
    return _find_experiment(name, tuple(overrides))


@lru_cache(maxsize=256)
def _find_experiment(name: str, overrides: tuple[str, ...]) -> Experiment:
    """See :func:`get_experiment`; an operator asks for the same few again and again."""
    if name not in EXPERIMENTS:
        near = difflib.get_close_matches(name, EXPERIMENTS, n=1, cutoff=0.0)
        raise ConfigError(
            f"experiment: got {name!r}; did you mean {near[0]!r}? allowed: {', '.join(EXPERIMENTS)}"
        )
    experiment = apply_overrides(EXPERIMENTS[name], overrides)
    check_changes(EXPERIMENTS[name], experiment)
    return experiment
