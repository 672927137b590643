"""Floating-point operations of the network's products, by formula; a multiplication with its addition counts two.

Modulations, norms, rotations and what activation checkpointing computes again are not counted. A test compares the
formula with PyTorch's count. No torch here.
"""

from __future__ import annotations

from cosmos_worker.config.experiment import Experiment
from cosmos_worker.config.network import NetConfig
from cosmos_worker.memory.sizes import MASK_CHANNELS, tokens_per_sample

BACKWARD_FACTOR = 2
"""Operations of a backward pass in units of its forward pass."""


def block_flops(net: NetConfig, tokens: int, text_tokens: int) -> int:
    """Operations of one block's forward pass on one sample."""
    D, hidden = net.model_channels, int(net.model_channels * net.mlp_ratio)
    image = 2 * tokens * (4 * D * D + 2 * D * D + 2 * D * hidden)
    text = 2 * text_tokens * 2 * net.text_channels * D
    attention = 4 * tokens * D * (tokens + text_tokens)
    return image + text + attention


def forward_flops(net: NetConfig, tokens: int, text_tokens: int) -> int:
    """Operations of the network's forward pass on one sample, embedding and final layer included."""
    patch = net.patch_size**2
    outside = 2 * tokens * net.model_channels * patch * (2 * net.latent_channels + MASK_CHANNELS)
    return net.num_blocks * block_flops(net, tokens, text_tokens) + outside


def sample_flops(experiment: Experiment) -> int:
    """Operations of one forward pass on a window of an experiment."""
    return forward_flops(experiment.net, tokens_per_sample(experiment), experiment.text.max_length)


def step_flops(experiment: Experiment, samples: int) -> int:
    """Operations of forward and backward of a micro-batch."""
    return (1 + BACKWARD_FACTOR) * samples * sample_flops(experiment)
