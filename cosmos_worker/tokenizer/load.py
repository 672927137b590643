"""One entry for both tokenizers."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

import torch

from cosmos_worker.config.experiment import TokenizerConfig
from cosmos_worker.tokenizer.embedded import EmbeddedTokenizer
from cosmos_worker.tokenizer.released import JitTokenizer
from cosmos_worker.tokenizer.tokenizer import VideoTokenizer

EMBEDDED: Final = "embedded"
"""In place of a folder: the exact tokenizer that needs no files."""


def load_tokenizer(
    folder: Path | Literal["embedded"], config: TokenizerConfig, device: torch.device | str
) -> VideoTokenizer:
    """The tokenizer of a folder with encoder.jit, decoder.jit and mean_std.pt, or the embedded one.

    Args:
        folder: folder, or the word "embedded".
        config: chunk, type and batch size.
        device: where to compute.

    Raises:
        CheckpointError: a file is missing or is not what it should be.
    """
    if str(folder) == EMBEDDED:
        return EmbeddedTokenizer(config, torch.device(device))
    return JitTokenizer(Path(folder), config, torch.device(device))
