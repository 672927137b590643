"""Sizes and steps that network, tokenizer and sampler admit."""

from __future__ import annotations

import pytest
from support.generation import HEIGHT, NUM_FRAMES, TINY_NET, WIDTH

from cosmos_worker.config.network import NetConfig, TokenizerConfig
from cosmos_worker.config.sampling import SamplingConfig
from cosmos_worker.errors import ConfigError
from cosmos_worker.sample.checks import check_admitted

SAMPLING = SamplingConfig(
    num_steps=4,
    guidance=0.0,
    num_pixel_frames=NUM_FRAMES,
    height=HEIGHT,
    width=WIDTH,
    fps=4.0,
    sigma_min=0.002,
)
TOKENIZER_CONFIG = TokenizerConfig(chunk_pixel_frames=NUM_FRAMES, dtype="float32")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"height": 144},
            r"sampling\.height: 144 is more .* use at most 128 \(net\.max_latent_size 16",
        ),
        ({"width": 256}, r"sampling\.width: 256 is more .* use at most 128"),
        ({"num_pixel_frames": 33}, r"num_pixel_frames: 33 is more than .* use at most 25"),
        (
            {"num_pixel_frames": 25},
            r"num_pixel_frames: 25 is more than one chunk .* use at most 17",
        ),
        ({"num_pixel_frames": 9, "num_input_frames": 9}, r"9 leaves no frame to generate"),
        ({"num_pixel_frames": 1}, r"1 leaves no frame to generate after num_input_frames 1"),
        ({"num_steps": 1, "sampler": "res_2mid"}, r"num_steps: 1 is no step of res_2mid; use 2"),
        ({"sigma_min": 90.0}, r"sigma_min: 90\.0 is not below sigma_max 80\.0"),
    ],
)
def test_sizes_that_are_not_admitted_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_admitted(TINY_NET, TOKENIZER_CONFIG, SAMPLING.model_copy(update=changes))


def test_sizes_of_the_released_models_are_admitted() -> None:
    net = NetConfig(model_channels=4096, num_blocks=28, num_heads=32)

    check_admitted(net, TokenizerConfig(chunk_pixel_frames=121), SamplingConfig())
