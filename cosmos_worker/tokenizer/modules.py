"""The encoder and the decoder of a tokenizer's folder as modules, from encoder.jit and decoder.jit.

Native: the weights are read out of the files and put into our own network; nothing in the files is run. TorchScript:
the programs in the files are run, which can do whatever the process can, so this is done only where it is asked for.
"""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from cosmos_worker.config.network import LATENT_SCALE, TokenizerRuntime
from cosmos_worker.errors import CheckpointError
from cosmos_worker.storage.file_kinds import TORCH_ZIP, recognise_file, refuse_pointers
from cosmos_worker.tokenizer.network import AutoencoderConfig, load_autoencoder
from cosmos_worker.weights.torch_zip import check_program
from cosmos_worker.weights.torchscript import read_script_tensors

REMEDY = "run fetch-model again"
CHANNELS = 16
"""Latent channels of the released continuous tokenizers."""
RUN_THE_PROGRAM = (
    "use a tokenizer of the kind Cosmos-Tokenize1-CV8x8x8, or, if you trust the files, let the programs in them run: "
    "spec.tokenizer.runtime: TorchScript"
)
"""Advice for files of another network than ours."""

Modules = tuple[nn.Module, nn.Module]
"""Encoder and decoder, in evaluation mode."""


def load_modules(
    encoder: Path,
    decoder: Path,
    runtime: TokenizerRuntime,
    device: torch.device,
    dtype: torch.dtype,
) -> Modules:
    """Load encoder and decoder.

    Args:
        encoder: encoder.jit.
        decoder: decoder.jit.
        runtime: our network with the weights of the files, or the programs in them.
        device: of the weights.
        dtype: of the weights.

    Raises:
        CheckpointError: a file is damaged, of another kind, or holds another network than ours.
    """
    refuse_pointers([encoder, decoder])
    load: Callable[[Path, Path, torch.device, torch.dtype], Modules]
    load = _load_native if runtime == "native" else _load_programs
    return load(encoder, decoder, device, dtype)


@torch.no_grad()
def _load_native(encoder: Path, decoder: Path, device: torch.device, dtype: torch.dtype) -> Modules:
    files = f"{encoder} and {decoder.name}"
    state: dict[str, Tensor] = {}
    for path in (encoder, decoder):
        state |= _read_weights(path, dtype)
    try:
        shapes = {name: tuple(value.shape) for name, value in state.items()}
        config = AutoencoderConfig.from_weights(shapes)
    except CheckpointError as error:
        names = ", ".join(list(state)[:3])
        raise CheckpointError(
            f"{files}: not the network of Cosmos-Tokenize1-CV8x8x8: {error}; they hold {len(state)} tensors: {names}, "
            f"...; {RUN_THE_PROGRAM}"
        ) from None
    _check_compression(config, files)
    network = load_autoencoder(state, config, files, RUN_THE_PROGRAM).to(device)
    encode = OrderedDict(encoder=network.encoder, quant_conv=network.quant_conv)
    decode = OrderedDict(post_quant_conv=network.post_quant_conv, decoder=network.decoder)
    return nn.Sequential(encode).eval(), nn.Sequential(decode).eval()


def _read_weights(path: Path, dtype: torch.dtype) -> Mapping[str, Tensor]:
    """The tensors of a file in memory of their own, floating-point ones in the type."""
    if not path.is_file() or recognise_file(path) != TORCH_ZIP:
        raise CheckpointError(f"{path}: not a TorchScript file; {REMEDY}")
    tensors = read_script_tensors(path, REMEDY)
    return {
        name: value.to(dtype if value.is_floating_point() else value.dtype, copy=True)
        for name, value in ((name, tensors[name]) for name in tensors)
    }


def _check_compression(config: AutoencoderConfig, files: str) -> None:
    got = (config.temporal_compression, config.spatial_compression, config.latent_channels)
    wanted = (LATENT_SCALE, LATENT_SCALE, CHANNELS)
    if got != wanted:
        time, space, channels = got
        raise CheckpointError(
            f"{files}: a tokenizer of {time}x{space}x{space} with {channels} channels; use a causal 8x8x8 tokenizer "
            f"with {CHANNELS} channels"
        )


def _load_programs(
    encoder: Path, decoder: Path, device: torch.device, dtype: torch.dtype
) -> Modules:
    return _load_program(encoder, device, dtype), _load_program(decoder, device, dtype)


def _load_program(path: Path, device: torch.device, dtype: torch.dtype) -> nn.Module:
    if recognise_file(path) == TORCH_ZIP:
        check_program(path, REMEDY)
    try:
        with warnings.catch_warnings():  # NVIDIA releases TorchScript, whatever PyTorch advises
            warnings.filterwarnings("ignore", r"`torch\.jit\.load` is (deprecated|not supported)")
            module = torch.jit.load(path, map_location=device)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0]
        raise CheckpointError(f"{path}: not a TorchScript file ({reason}); {REMEDY}") from None
    loaded: nn.Module = module.to(dtype).eval()
    return loaded
