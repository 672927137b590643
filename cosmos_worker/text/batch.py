"""Embeddings of different lengths as one cross-attention context."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cosmos_worker.errors import DataError


def pad_text(
    embeddings: Sequence[NDArray[np.float16]], max_length: int, padding: Literal["pad", "trim"]
) -> Tensor:
    """Stack embeddings with zero rows behind the shorter ones; the network has no text mask.

    Args:
        embeddings: B arrays (L, D), L <= max_length, one D.
        max_length: tokens that the network is given at most.
        padding: pad: S = max_length, as pre-training and inference of the reference;
            trim: S = the longest L of the batch, as the reference's post-training (batch of one).

    Returns:
        float32 (B, S, D) on the CPU.

    Raises:
        DataError: an embedding that is longer than max_length, or two widths.
        ValueError: no embedding.

    Source: cosmos_predict1/auxiliary/t5_text_encoder.py (pad), scripts/get_t5_embeddings.py (trim).
    """
    if not embeddings:
        raise ValueError("pad_text: no embedding given")
    dim = embeddings[0].shape[1]
    for array in embeddings:
        if array.shape[1] != dim:
            raise DataError(
                f"text embeddings of widths {dim} and {array.shape[1]} in one batch; "
                "embed all captions with one encoder"
            )
        if array.shape[0] > max_length:
            raise DataError(
                f"text embedding of {array.shape[0]} tokens, text.max_length allows {max_length}; "
                "raise text.max_length or embed with the smaller one"
            )
    size = max_length if padding == "pad" else max(len(array) for array in embeddings)
    batch_BSD = torch.zeros(len(embeddings), size, dim)
    for row_SD, array in zip(batch_BSD, embeddings, strict=True):
        row_SD[: len(array)] = torch.from_numpy(array.astype(np.float32))
    return batch_BSD
