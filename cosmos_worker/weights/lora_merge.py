"""The weight of a layer with its low-rank correction, as PEFT merges it.

Source: peft 0.21, tuners/lora/layer.py (pissa_init, olora_init, merge) and tuners/lora/variants.py (DoRA): where an
initialisation has taken a part out of the base, PEFT takes it out again when it loads the adapter onto the base.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Residual = Literal["pissa", "olora"]
"""Initialisations that begin from a part of the base and leave it the rest."""


def corrected(weight: Tensor, A: Tensor, B: Tensor, scale: float) -> Tensor:
    """W + scale B A in float32, as a training of ours merges what it exports."""
    return weight.float() + scale * (B.float() @ A.float())


def merge_layer(
    weight: Tensor,
    A: Tensor,
    B: Tensor,
    scale: float,
    magnitude: Tensor | None = None,
    residual: Residual | None = None,
) -> Tensor:
    """The merged weight in float32.

    Args:
        weight: (out, in), of the base.
        A: (rank, in).
        B: (out, rank).
        scale: factor of B A.
        magnitude: of DoRA: the norms of the merged rows, (out); None = as they come.
        residual: how the training was begun, if that changed the base.
    """
    base = weight.float()
    if residual == "pissa":
        base = base - _principal_part(base, len(A), scale)
    elif residual == "olora":
        Q, R = torch.linalg.qr(base)
        base = base - scale * Q[:, : len(A)].contiguous() @ R[: len(A)].contiguous()
    merged = corrected(base, A, B, scale)
    if magnitude is None:
        return merged
    norms = torch.linalg.norm(merged, dim=1)
    return (magnitude.float().flatten() / norms).view(-1, 1) * merged


def _principal_part(base: Tensor, rank: int, scale: float) -> Tensor:
    """What PiSSA trains from: the largest singular values of the base, split into two factors and joined again."""
    V, S, Uh = torch.linalg.svd(base, full_matrices=False)
    root = torch.diag(torch.sqrt(S[:rank] / scale))
    part: Tensor = scale * (V[:, :rank] @ root) @ (root @ Uh[:rank])
    return part
