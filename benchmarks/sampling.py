"""Measure Video2World sampling beside diffusers' CosmosVideoToWorldPipeline: a video from a frame and an embedding.

Run ``OMP_NUM_THREADS=1 .venv/bin/python benchmarks/sampling.py [--rounds 9] [--json FILE]``. Both have the same
weights, frame, noise and embeddings, take the same steps with guidance, and are first shown to compute the same video.
Counted are encoding, sampling and decoding; no text encoder, no guardrails, no file. Ways: diffusers' pipeline as it
is, with its network in the type of the column; ours with guidance as two evaluations a step and as one; and networks
whose blocks are compiled. In bfloat16 ours holds its matrices in bfloat16 and computes norms and the residual stream in
float32. ``--tiny`` is the quickstart's network in place of one of 1024 channels.
"""

from __future__ import annotations

import argparse
import copy
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent))

from autoencoders import random_autoencoder, their_autoencoder
from networks import our_network, their_network
from side_by_side import Comparison, add_options, compare, finish

from cosmos_worker.config.network import NetConfig, TextConfig
from cosmos_worker.config.sampling import SamplingConfig
from cosmos_worker.model.compiled_blocks import compile_blocks
from cosmos_worker.model.dit import CosmosDiT
from cosmos_worker.sample import sampler
from cosmos_worker.sample.passes import Models, generate_videos
from cosmos_worker.sample.sampler import Sample, Settings
from cosmos_worker.tokenizer.network import AutoencoderConfig, CausalVideoAutoencoder

REFERENCE = "diffusers, eager"
LARGE = NetConfig(model_channels=1024, num_blocks=4, num_heads=8)
TINY = NetConfig(
    model_channels=128, num_blocks=4, num_heads=4, text_channels=128, adaln_lora_dim=32,
    max_latent_size=64, max_latent_frames=16,
)  # fmt: skip
FRAMES, HEIGHT, WIDTH, FPS = 17, 128, 160, 8
STEPS, GUIDANCE, SIGMA_MIN, SIGMA_DATA = 4, 3.0, 0.002, 0.5
TEXT_TOKENS = 32
TOKENIZER = AutoencoderConfig(channels=8, num_res_blocks=1)
SAME_PIXELS = 1.0
"""Largest mean difference of two videos, of 255: diffusers draws new noise of 0.001 on the known frame at each step."""


class NetworkTokenizer:
    """The tokenizer network alone, for one chunk and without statistics."""

    digest, latent_channels = "", 16

    def __init__(self, network: CausalVideoAutoencoder) -> None:
        self.network = network

    def encode(self, video_BCTHW: Tensor) -> Tensor:
        """Pixels to latents."""
        return self.network.encode(video_BCTHW)

    def decode(self, latent_BCTHW: Tensor) -> Tensor:
        """Latents to pixels."""
        return self.network.decode(latent_BCTHW)

    def move(self, device: torch.device) -> None:
        """It stays where it is."""


class Unguarded:
    """Diffusers' pipeline demands guardrails; these pass everything."""

    def to(self, *_: object) -> Unguarded:
        """They have no weights."""
        return self

    def check_text_safety(self, _: str) -> bool:
        """True."""
        return True

    def check_video_safety(self, video: object) -> object:
        """The video as it is."""
        return video


@dataclass(frozen=True)
class Given:
    """Inputs of a video: a frame (C, H, W) in [-1, 1], embeddings (L, D), and the noise that ours draws."""

    frame_CHW: Tensor
    text_LD: Any
    negative_LD: Any
    noise_BCTHW: Tensor


def given_inputs(net: NetConfig) -> Given:
    """Inputs that are always the same."""
    random = np.random.default_rng(1)
    texts = random.normal(size=(2, TEXT_TOKENS, net.text_channels)).astype(np.float16)
    shape = (16, 1 + (FRAMES - 1) // 8, HEIGHT // 8, WIDTH // 8)
    noise, _ = sampler.draw_sample_noise(0, ["video"], shape, torch.device("cpu"))
    frame = torch.from_numpy(random.uniform(-1, 1, (3, HEIGHT, WIDTH)).astype(np.float32))
    return Given(frame, texts[0], texts[1], noise)


Make = Callable[[], Any]
"""Makes one video, uint8 (T, H, W, 3)."""


def make_ours(
    net: CosmosDiT, tokenizer: NetworkTokenizer, given: Given, dtype: torch.dtype, max_positions: int
) -> Make:  # fmt: skip
    """One video by the functions of the generate stage."""
    net = copy.deepcopy(net).requires_grad_(False).eval()
    for module in net.modules():
        if isinstance(module, torch.nn.Linear):
            module.to(dtype)
    sampling = SamplingConfig(
        num_steps=STEPS, guidance=GUIDANCE, seed=0, num_pixel_frames=FRAMES, height=HEIGHT, width=WIDTH,
        fps=FPS, sigma_min=SIGMA_MIN,
    )  # fmt: skip
    text = TextConfig(max_length=TEXT_TOKENS)
    frames = given.noise_BCTHW.shape[2]
    settings = Settings(sampling, frames, text, SIGMA_DATA, given.negative_LD, dtype)
    sample = Sample("video", given.text_LD, given.frame_CHW[:, None])
    models = Models(net, tokenizer, torch.device("cpu"))

    def make() -> Any:  # noqa: ANN401 - frames
        sampler.MAX_POSITIONS_IN_ONE_BATCH = max_positions
        return generate_videos(models, [sample], settings)[0]

    return make


def make_theirs(
    transformer: torch.nn.Module,
    vae: torch.nn.Module,
    given: Given,
    dtype: torch.dtype,
    compiled: bool = False,
) -> Make:
    """One video by diffusers' pipeline, of a copy of the network."""
    from diffusers import CosmosVideoToWorldPipeline, EDMEulerScheduler

    network = copy.deepcopy(transformer).to(dtype).eval()
    for block in network.transformer_blocks if compiled else ():
        block.compile(fullgraph=True)  # copies of compiled blocks would not be compiled
    scheduler = EDMEulerScheduler(sigma_min=SIGMA_MIN, sigma_data=SIGMA_DATA)
    pipeline = CosmosVideoToWorldPipeline(None, None, network, vae, scheduler, Unguarded())
    pipeline.set_progress_bar_config(disable=True)
    texts = [torch.from_numpy(one).to(dtype)[None] for one in (given.text_LD, given.negative_LD)]
    frame = given.frame_CHW[None] * 0.5 + 0.5

    def make() -> Any:  # noqa: ANN401 - frames
        video = pipeline(
            image=frame, prompt_embeds=texts[0], negative_prompt_embeds=texts[1], height=HEIGHT, width=WIDTH,
            num_frames=FRAMES, num_inference_steps=STEPS, guidance_scale=GUIDANCE, fps=FPS,
            latents=given.noise_BCTHW, output_type="np", generator=torch.Generator().manual_seed(0),
        ).frames[0]  # fmt: skip
        return (video * 255).round().astype(np.uint8)

    return make


def ways_of(net: NetConfig, dtype: torch.dtype, compiled: bool) -> dict[str, Make]:
    """Name → one video of that way, all shown to be the same video."""
    given, model, network = given_inputs(net), our_network(net), random_autoencoder(TOKENIZER)
    ours = model.net
    tokenizer = NetworkTokenizer(network)
    vae = their_autoencoder(network, latents_mean=None, latents_std=None)
    theirs = their_network(model, takes_padding_mask=False)
    one, two = 1 << 15, 0
    ways = {
        REFERENCE: make_theirs(theirs, vae, given, dtype),
        "ours, two evaluations a step": make_ours(ours, tokenizer, given, dtype, two),
        "ours, eager": make_ours(ours, tokenizer, given, dtype, one),
    }
    if compiled:
        ways["diffusers, compiled"] = make_theirs(theirs, vae, given, dtype, compiled=True)
        compiled_ours = copy.deepcopy(ours)
        compile_blocks(compiled_ours)
        ways["ours, compiled"] = make_ours(compiled_ours, tokenizer, given, dtype, one)
    videos = {name: make() for name, make in ways.items()}
    for name, video in videos.items():
        difference = np.abs(video.astype(float) - videos[REFERENCE].astype(float)).mean()
        print(f"{dtype}: {name}: differs by {difference:.3f} of 255", file=sys.stderr)
        assert difference < SAME_PIXELS, f"{name} makes another video"
    return ways


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Run the benchmark; returns what is written as JSON."""
    parser = add_options(argparse.ArgumentParser(description=__doc__))
    parser.add_argument("--tiny", action="store_true", help="the quickstart's network")
    parser.add_argument("--without", choices=["compiled"], help="ways to leave out")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], help="default: both")
    options = parser.parse_args(arguments)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    net = TINY if options.tiny else LARGE
    comparisons: list[Comparison] = []
    for dtype in [options.dtype] if options.dtype else ["float32", "bfloat16"]:
        ways = ways_of(net, getattr(torch, dtype), options.without != "compiled")
        comparisons.append(compare(dtype, ways, options, REFERENCE))
    facts = {
        "network": net.model_dump(), "frames": FRAMES, "height": HEIGHT, "width": WIDTH,
        "steps": STEPS, "text_tokens": TEXT_TOKENS, "guidance": GUIDANCE,
    }  # fmt: skip
    return finish("sampling", comparisons, options, facts)


if __name__ == "__main__":
    main()
