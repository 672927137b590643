"""Floating-point operations of the network's matrix products, from its sizes alone. No torch here.

A product of (M, K) and (K, N) counts 2 M K N. Operations on single values do not count, and neither does what is
computed a second time: utilisation of a device is measured in these figures.
"""

from __future__ import annotations

import re

from cosmos_worker.config.experiment import Experiment
from cosmos_worker.config.network import LATENT_SCALE, NetConfig

PEAKS = (
    (r"H100 PCIe", 756e12),
    (r"H100 NVL|H200 NVL", 835e12),
    (r"H100|H200|H800|GH200", 989e12),
    (r"B300|GB300", 2500e12),
    (r"B200|GB200", 2250e12),
    (r"B100", 1750e12),
    (r"H20\b", 148e12),
    (r"A100|A800", 312e12),
    (r"L40S", 362e12),
    (r"RTX 6000 Ada|L40\b", 181e12),
)
"""Dense bfloat16 operations a second as NVIDIA's data sheets have them, by a pattern of the device's name."""
NUM_MASK_CHANNELS = 2
"""Condition mask and padding mask, which are channels of the network's input beside the latent's."""
TRAINING_FACTOR = 3
"""Forward and backward in units of forward: the gradients of inputs and of weights cost one each."""


def forward_flops(net: NetConfig, num_tokens: int, text_tokens: int) -> int:
    """Operations of one forward pass over one sample.

    Args:
        net: the network.
        num_tokens: of the video.
        text_tokens: of its text.
    """
    D, A, patch = net.model_channels, net.adaln_lora_dim, net.patch_size**2
    hidden = int(D * net.mlp_ratio)
    per_token = 6 * D * D + 2 * D * hidden  # q, k, v, out; q, out; MLP
    text = 2 * text_tokens * net.text_channels * D  # k, v
    attention = 2 * num_tokens * D * (num_tokens + text_tokens)
    block = num_tokens * per_token + text + attention + 3 * _modulation(D, A, 3)
    channels = net.latent_channels + NUM_MASK_CHANNELS
    patches = num_tokens * patch * D * (channels + net.latent_channels)
    outside = (
        patches + D * D + 3 * D * D + _modulation(D, A, 2)
    )  # of the noise level, and of the last layer
    return 2 * (net.num_blocks * block + outside)


def _modulation(D: int, rank: int, num_outputs: int) -> int:
    return D * rank * (1 + num_outputs)


def training_flops(experiment: Experiment, latent_shape: tuple[int, int, int]) -> int:
    """Operations of forward and backward over one sample, where all weights are trained.

    Args:
        experiment: the network, and the length of its captions.
        latent_shape: (T, H, W) of the sample's latent.
    """
    T, H, W = latent_shape
    tokens = T * H * W // experiment.net.patch_size**2
    return TRAINING_FACTOR * forward_flops(experiment.net, tokens, experiment.text.max_length)


def peak_rate(device_name: str) -> float | None:
    """Operations a second of a device in bfloat16 by its data sheet; None = not known."""
    return next((rate for pattern, rate in PEAKS if re.search(pattern, device_name)), None)


def sample_flops(experiment: Experiment) -> int:
    """Operations of one forward pass over a window of the size of ``video``."""
    scale, video = LATENT_SCALE * experiment.net.patch_size, experiment.video
    tokens = experiment.num_latent_frames * (video.height // scale) * (video.width // scale)
    return forward_flops(experiment.net, tokens, experiment.text.max_length)


def run_flops(experiment: Experiment) -> int:
    """Operations of a whole training, all of whose windows have the size of ``video``."""
    samples = experiment.trainer.max_steps * experiment.trainer.global_batch_size
    return samples * TRAINING_FACTOR * sample_flops(experiment)
