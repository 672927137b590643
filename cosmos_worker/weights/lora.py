"""LoRA corrections in weight files, merged into the weights that they correct, tensor by tensor.

Source: peft 0.21, tuners/lora/layer.py (pissa_init, olora_init, merge) and tuners/lora/variants.py (DoRA): where an
initialisation has taken a part out of the base, PEFT takes it out again when it loads the adapter onto the base.

Whoever has named them (``lora_names``): beside ``to_q.0.weight`` as NVIDIA's LoRA post-training of Predict1 has them,
or beside ``base_layer.weight`` as PEFT. The first keeps its scale in the experiment and not in the file, so that it
must be given.

Source: cosmos_predict1/diffusion/training/utils/peft/lora_attn.py (upstream main): q + scale * up(down(x)).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from cosmos_worker.errors import CheckpointError, ConfigError
from cosmos_worker.weights.lora_names import (
    refuse_other_kinds,
    split_name,
)
from cosmos_worker.weights.tensors import (
    Described,
    LazyMapping,
    describe,
)

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


PEFT_PREFIX = "base_model.model."
BASE_SUFFIX = ".base_layer.weight"


@dataclass
class Correction:
    """Names of a correction's tensors; the weight W becomes W + scale B A."""

    A: str | None = None
    """(rank, in)."""
    B: str | None = None
    """(out, rank)."""
    alpha: str | None = None
    """A number; scale = alpha / rank."""
    magnitude: str | None = None
    """Norms of the merged rows, (out), of DoRA."""


def plain_names(names: Iterable[str]) -> dict[str, str]:
    """Name in a file → name without what PEFT adds around a network; one that would be there twice stays."""
    found = {name: name for name in names}
    for name in list(found):
        plain = name.removeprefix(PEFT_PREFIX)
        if plain.endswith(BASE_SUFFIX):
            plain = plain.removesuffix(BASE_SUFFIX) + ".weight"
        if plain not in found:
            found[name] = plain
    return found


def find_corrections(names: Iterable[str], where: Path) -> dict[str, Correction]:
    """Name of a weight → its correction; empty where there is none.

    Raises:
        CheckpointError: several adapters for one weight, half of one, or corrections of another kind.
    """
    names = list(names)
    refuse_other_kinds(names, where)
    found: dict[str, Correction] = {}
    alphas = {}
    for name in names:
        split = split_name(name)
        if split is None:
            continue
        weight, part = f"{split[0]}.weight", split[1]
        if part == "alpha":
            alphas[weight] = name
            continue
        correction = found.setdefault(weight, Correction())
        if getattr(correction, part) is not None:
            raise CheckpointError(
                f"{where}: two LoRA corrections of {weight} ({getattr(correction, part)}, {name}); keep one adapter"
            )
        setattr(correction, part, name)
    for weight, correction in found.items():
        correction.alpha = alphas.get(weight)
        if correction.A is None or correction.B is None:
            raise CheckpointError(
                f"{where}: the LoRA correction of {weight} lacks its {'A' if correction.A is None else 'B'}; "
                "save the adapter again"
            )
    return found


class Merged(LazyMapping):
    """The tensors of a network with its corrections added when asked for, in float32."""

    def __init__(
        self,
        state: Mapping[str, Tensor],
        corrections: Mapping[str, Correction],
        scale: float | None,
    ) -> None:
        self._state, self._corrections, self._scale = state, corrections, scale
        used = {n for c in corrections.values() for n in (c.A, c.B, c.alpha, c.magnitude)}
        self._names = [name for name in state if name not in used]

    def __getitem__(self, name: str) -> Tensor:
        weight = self._state[name]
        correction = self._corrections.get(name)
        if correction is None:
            return weight
        assert correction.A is not None
        assert correction.B is not None
        A, B = self._state[correction.A], self._state[correction.B]
        scale = self._scale
        if correction.alpha is not None:
            scale = float(self._state[correction.alpha]) / len(A)
        assert scale is not None
        magnitude = None if correction.magnitude is None else self._state[correction.magnitude]
        return merge_layer(weight, A, B, scale, magnitude)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def describe(self, name: str) -> Described:
        """See :class:`LazyMapping`."""
        shape, dtype = describe(self._state, name)
        is_corrected = name in self._corrections and dtype.is_floating_point
        return Described(shape, torch.float32 if is_corrected else dtype)


def merge_corrections(
    state: Mapping[str, Tensor], where: Path, scale: float | None
) -> Mapping[str, Tensor]:
    """The same tensors with all corrections merged.

    Args:
        state: under our names.
        where: for messages.
        scale: factor of B A; None = as alpha in the file says, or there are no corrections.

    Raises:
        CheckpointError: an adapter without its network, half of one, shapes that do not fit, or no scale.
        ConfigError: a scale is given, and there is nothing that it could scale.
    """
    corrections = find_corrections(state, where)
    if scale is not None and not any(c.alpha is None for c in corrections.values()):
        what = (
            "says the scale of its LoRA corrections itself"
            if corrections
            else "holds no LoRA corrections"
        )
        raise ConfigError(f"LoRA scale: got {scale:g}, but {where} {what}; leave it out")
    if not corrections:
        return state
    _check(state, corrections, where)
    if scale is None and any(c.alpha is None for c in corrections.values()):
        raise CheckpointError(
            f"{where}: holds LoRA corrections of {len(corrections)} layers and not their scale; give the factor of "
            "B A: spec.model.loraScale of a job, --lora-scale of export (NVIDIA's experiments: 1; PEFT: alpha / rank)"
        )
    return Merged(state, corrections, scale)


def _check(state: Mapping[str, Tensor], corrections: Mapping[str, Correction], where: Path) -> None:
    absent = [weight for weight in corrections if weight not in state]
    if absent:
        raise CheckpointError(
            f"{where}: holds LoRA corrections without the {len(absent)} weights that they correct, such as "
            f"{absent[0]}; give a file that holds the network too, as NVIDIA's trainer saves it"
        )
    for weight, correction in corrections.items():
        A, B = (describe(state, str(name)).shape for name in (correction.A, correction.B))
        wanted = describe(state, weight).shape
        if len(A) != 2 or len(B) != 2 or (B[0], A[1]) != wanted or A[0] != B[1]:
            raise CheckpointError(
                f"{where}: the LoRA correction of {weight} has shapes A {A}, B {B}; expected "
                f"A (rank, {wanted[-1]}), B ({wanted[0]}, rank)"
            )
