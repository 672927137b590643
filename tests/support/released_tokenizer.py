"""A tokenizer folder with the network of Cosmos-Tokenize1-CV8x8x8, narrow, in the files that NVIDIA releases."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from pathlib import Path

import torch
from torch import nn

from cosmos_worker.tokenizer.network import AutoencoderConfig, CausalVideoAutoencoder
from support.tiny_tokenizer import tiny_mean_std, torchscript_allowed

NARROW = AutoencoderConfig(channels=8, num_res_blocks=1)
TRACED_FRAMES, TRACED_HEIGHT, TRACED_WIDTH = 9, 16, 24
"""Size of the videos that the programs in the files take: a trace of this network has it as constants."""


def random_autoencoder(config: AutoencoderConfig = NARROW, seed: int = 0) -> CausalVideoAutoencoder:
    """Random weights, in which norms and biases matter."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = CausalVideoAutoencoder(config).eval().requires_grad_(False)
        for parameter in network.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return network


def write_trace(
    module: nn.Module, example: torch.Tensor, path: Path, dtype: torch.dtype = torch.float32
) -> None:
    """Write a float32 module as torch.jit.trace makes it, as NVIDIA's files were made; its weights in the type."""
    with torchscript_allowed(), torch.no_grad():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # shapes are constants of a trace
        torch.jit.save(torch.jit.trace(module, example, check_trace=False).to(dtype), path)


def write_released_tokenizer(
    folder: Path, dtype: torch.dtype = torch.float32, network: CausalVideoAutoencoder | None = None
) -> None:
    """Write encoder.jit, decoder.jit and mean_std.pt with the names of weights that NVIDIA's have.

    Args:
        folder: receives the files.
        dtype: of the weights.
        network: whose weights, float32; None = random ones.
    """
    folder.mkdir(parents=True, exist_ok=True)
    network = network or random_autoencoder()
    encoder = OrderedDict(encoder=network.encoder, quant_conv=network.quant_conv)
    decoder = OrderedDict(post_quant_conv=network.post_quant_conv, decoder=network.decoder)
    video = torch.rand(1, 3, TRACED_FRAMES, TRACED_HEIGHT, TRACED_WIDTH) * 2 - 1
    latent = network.encode(video)
    write_trace(nn.Sequential(encoder), video, folder / "encoder.jit", dtype)
    write_trace(nn.Sequential(decoder), latent, folder / "decoder.jit", dtype)
    mean, std = tiny_mean_std()
    torch.save((mean.to(dtype), std.to(dtype)), folder / "mean_std.pt")
