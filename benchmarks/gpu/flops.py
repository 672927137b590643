"""Floating-point operations of the network's products, by formula; a multiplication with its addition counts two.

Modulations, norms, rotations and what activation checkpointing computes again are not counted. A test compares the
formula with PyTorch's count. No torch here.
"""

from __future__ import annotations

from cosmos_worker.config.experiment import Experiment
from cosmos_worker.config.network import NetConfig
from cosmos_worker.memory.sizes import MASK_CHANNELS, tokens_per_sample


def block_flops(net: NetConfig, tokens: int, text_tokens: int) -> int:
    """Operations of one block's forward pass on one sample."""
    D, hidden = net.model_channels, int(net.model_channels * net.mlp_ratio)
    image = 2 * tokens * (4 * D * D + 2 * D * D + 2 * D * hidden)
    attention = 4 * tokens * D * (tokens + text_tokens)
    return image + text_flops(net, text_tokens) + attention


def text_flops(net: NetConfig, text_tokens: int) -> int:
    """Operations of the keys and values of the text in one block."""
    return 2 * text_tokens * 2 * net.text_channels * net.model_channels


def _patch_flops(net: NetConfig, tokens: int, channels: int) -> int:
    return 2 * tokens * net.model_channels * net.patch_size**2 * channels


def embedding_flops(net: NetConfig, tokens: int) -> int:
    """Operations of the embedding of the patches."""
    return _patch_flops(net, tokens, net.latent_channels + MASK_CHANNELS)


def forward_flops(net: NetConfig, tokens: int, text_tokens: int) -> int:
    """Operations of the network's forward pass on one sample, embedding and final layer included."""
    final = _patch_flops(net, tokens, net.latent_channels)
    blocks = net.num_blocks * block_flops(net, tokens, text_tokens)
    return embedding_flops(net, tokens) + blocks + final


def sample_flops(experiment: Experiment) -> int:
    """Operations of one forward pass on a window of an experiment."""
    return forward_flops(experiment.net, tokens_per_sample(experiment), experiment.text.max_length)


def step_flops(experiment: Experiment, samples: int) -> int:
    """Operations of forward and backward of a micro-batch, of which the inputs, text and patches, need no gradient."""
    net = experiment.net
    inputs = net.num_blocks * text_flops(net, experiment.text.max_length)
    inputs += embedding_flops(net, tokens_per_sample(experiment))
    return samples * (3 * sample_flops(experiment) - inputs)
