"""Noise of a sample, from its seed, its id and the pass alone: batch, order and device do not matter."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

from cosmos_worker.diffusion.edm import arch_invariant_noise


def noise_seeds(seed: int, sample_id: str, pass_number: int = 0) -> tuple[int, int]:
    """Seeds of a sample's initial noise and of the noise on its known frames, 32 bits each.

    Args:
        seed: of the run.
        sample_id: has no colon.
        pass_number: 0 for the first, whose seeds do not depend on whether others follow.
    """
    name = f"{seed}:{sample_id}" + (f":{pass_number}" if pass_number else "")
    digest = hashlib.sha256(name.encode()).digest()
    return int.from_bytes(digest[:4], "big"), int.from_bytes(digest[4:8], "big")


def draw_noise(
    seed: int,
    sample_ids: Sequence[str],
    shape_CTHW: tuple[int, ...],
    device: torch.device,
    pass_number: int = 0,
) -> tuple[Tensor, Tensor]:
    """Initial and augment noise of a batch, float32 (B, C, T, H, W) each."""
    seeds = [noise_seeds(seed, sample_id, pass_number) for sample_id in sample_ids]
    initial, augment = (
        torch.stack([arch_invariant_noise(shape_CTHW, one) for one in column]).to(device)
        for column in zip(*seeds, strict=True)
    )
    return initial, augment
