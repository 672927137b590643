"""Sizes that are measured: the 7B on a GPU, or tiny ones with which every part runs on a CPU. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from benchmarks.gpu.parts import LONG, SHORT
from cosmos_worker.config.experiment import Experiment
from cosmos_worker.config.network import (
    DiffusionConfig,
    NetConfig,
    TextConfig,
    TokenizerConfig,
    VideoConfig,
)
from cosmos_worker.config.presets import (
    BRIDGE_57,
    BRIDGE_57_1GPU,
    BRIDGE_57_LORA,
    VIDEO2WORLD,
)
from cosmos_worker.config.training import EmaConfig, LoraConfig, OptimizerConfig, ParallelConfig


@dataclass(frozen=True)
class Sizes:
    """Sizes of the networks and inputs that are measured.

    Attributes:
        device_type: cuda or cpu.
        windows: experiments by the name of their window.
        blocks: of the true width, in the training step, by the name of the window.
        whole: experiments of the whole network by kind.
        tokenizer_channels: width of its network's first level in units of its multiples.
        square: side of the matrices whose product gives the rate of the device.
        least_s: each figure is the median of as many repetitions as fit into this time, of three at least.
        sampler_steps: that are measured of the 35 of a video.
    """

    device_type: str
    windows: Mapping[str, Experiment]
    blocks: Mapping[str, int]
    whole: Mapping[str, Experiment]
    tokenizer_channels: int
    square: int
    least_s: float
    sampler_steps: Mapping[str, int]

    def stack(self, window: str, num_blocks: int | None = None) -> Experiment:
        """The experiment of a window with a number of blocks in place of all."""
        experiment = self.windows[window]
        net = experiment.net.model_copy(update={"num_blocks": num_blocks or self.blocks[window]})
        return experiment.model_copy(
            update={"net": net, "ema": EmaConfig(enabled=False), "parallel": ParallelConfig()}
        )


WITHOUT_AVERAGE = EmaConfig(enabled=False)
TRUE = Sizes(
    "cuda",
    windows={SHORT: BRIDGE_57, LONG: VIDEO2WORLD},
    blocks={SHORT: 8, LONG: 2},
    whole={
        "all weights": BRIDGE_57_1GPU.model_copy(
            update={"parallel": ParallelConfig(activation_checkpointing="block")}
        ),
        "LoRA": BRIDGE_57_LORA.model_copy(
            update={
                "ema": WITHOUT_AVERAGE,
                "parallel": ParallelConfig(activation_checkpointing="selective"),
            }
        ),
    },
    tokenizer_channels=128,
    square=8192,
    least_s=1.5,
    sampler_steps={SHORT: 35, LONG: 3},
)
"""The 7B."""

_NET = NetConfig(
    model_channels=64,
    num_blocks=2,
    num_heads=2,
    text_channels=32,
    adaln_lora_dim=16,
    max_latent_size=16,
    max_latent_frames=8,
)


def _tiny(name: str, frames: int, compute_dtype: Literal["float32", "bfloat16"]) -> Experiment:
    return Experiment(
        name=name,
        net=_NET,
        video=VideoConfig(num_pixel_frames=frames, height=32, width=32),
        tokenizer=TokenizerConfig(chunk_pixel_frames=frames),
        text=TextConfig(max_length=16),
        diffusion=DiffusionConfig(compute_dtype=compute_dtype),
        ema=WITHOUT_AVERAGE,
    )


_SHORT = _tiny("tiny", 17, "float32")
TINY = Sizes(
    "cpu",
    windows={SHORT: _SHORT, LONG: _tiny("tiny_long", 33, "bfloat16")},
    blocks={SHORT: 2, LONG: 1},
    whole={
        "all weights": _SHORT.model_copy(
            update={
                "optimizer": OptimizerConfig(state_bits=8),
                "parallel": ParallelConfig(activation_checkpointing="block"),
            }
        ),
        "LoRA": _SHORT.model_copy(update={"lora": LoraConfig(rank=4, targets=("q", "v", "mlp"))}),
    },
    tokenizer_channels=16,
    square=64,
    least_s=0.0,
    sampler_steps={SHORT: 3, LONG: 3},
)
"""Every part runs with these on a CPU, in no time; their figures say nothing."""
