"""Floating-point operations of the network's matrix products, from its sizes alone. No torch here.

A product of (M, K) and (K, N) counts 2 M K N. Operations on single values do not count, and neither does what is
computed a second time: utilisation of a device is measured in these figures.
"""

from __future__ import annotations

from cosmos_worker.config.experiment import Experiment
from cosmos_worker.config.network import LATENT_SCALE, NetConfig

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


def run_flops(experiment: Experiment) -> int:
    """Operations of a whole training, all of whose windows have the size of ``video``."""
    video, trainer = experiment.video, experiment.trainer
    size = (experiment.num_latent_frames, video.height // LATENT_SCALE, video.width // LATENT_SCALE)
    return trainer.max_steps * trainer.global_batch_size * training_flops(experiment, size)
