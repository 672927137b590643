"""``adapter_config.json`` of PEFT: what it says of LoRA corrections, and what of it can be merged here.

Source: peft 0.20, tuners/lora: scale = lora_alpha / r, or lora_alpha / sqrt(r) with use_rslora.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cosmos_worker.data.weight_forms import ADAPTER_FILE
from cosmos_worker.errors import CheckpointError

OTHER_MATHEMATICS = (
    "use_dora", "use_qalora", "use_bdlora", "fan_in_fan_out", "lora_bias", "rank_pattern", "alpha_pattern",
    "layer_replication", "target_parameters", "trainable_token_indices", "arrow_config", "kasa_config",
    "monteclora_config", "velora_config", "alora_invocation_tokens",
)  # fmt: skip
"""What changes the meaning of PEFT's adapters, if it is used, and is not known here."""


def describe_adapter(
    rank: int, alpha: float, base: str | None, targets: Sequence[str], saved: Sequence[str]
) -> dict[str, Any]:
    """What adapter_config.json says.

    Args:
        rank: of all corrections.
        alpha: their factor is alpha / rank.
        base: the model that they belong to; None = not known.
        targets: ends of the names of the corrected layers.
        saved: modules that were trained whole.
    """
    return {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": base,
        "r": rank,
        "lora_alpha": int(alpha) if float(alpha).is_integer() else alpha,
        "target_modules": list(targets),
        "modules_to_save": list(saved) or None,
        "bias": "none",
        "lora_dropout": 0.0,
        "fan_in_fan_out": False,
        "use_rslora": False,
        "use_dora": False,
        "rank_pattern": {},
        "alpha_pattern": {},
        "init_lora_weights": True,
        "inference_mode": True,
    }


def read_adapter_config(path: Path) -> dict[str, Any]:
    """adapter_config.json of corrections that can be merged.

    Raises:
        CheckpointError: a missing or damaged file, or corrections of a kind that is not known here.
    """
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(
            f"{path}: no such file, and {ADAPTER_FILE} beside it does not say its scale; add it, or remove both"
        ) from None
    except (ValueError, OSError) as error:
        raise CheckpointError(f"{path}: not JSON ({error}); save the adapter again") from None
    kind = config.get("peft_type") if isinstance(config, dict) else None
    if kind != "LORA":
        raise CheckpointError(f"{path}: peft_type: got {kind!r}; only 'LORA' can be merged")
    used = [name for name in OTHER_MATHEMATICS if config.get(name)]
    if config.get("bias", "none") != "none":
        used.append("bias")
    if used:
        raise CheckpointError(
            f"{path}: uses {', '.join(f'{name}={config[name]!r}' for name in used)}, which cannot be merged here; "
            "merge it with PEFT and give the whole weights"
        )
    return dict(config)


def alpha_of(config: Mapping[str, Any], path: Path) -> float:
    """lora_alpha; that of a rank-stabilized adapter is the one with which alpha / rank is its scale.

    Args:
        config: of :func:`read_adapter_config`.
        path: its file, for messages.

    Raises:
        CheckpointError: rank or alpha is no positive number.
    """
    rank, alpha = config.get("r"), config.get("lora_alpha")
    problem = None
    if not isinstance(rank, int) or isinstance(rank, bool) or rank < 1:
        problem = f"r: got {rank!r}; expected a whole number of at least 1"
    elif not isinstance(alpha, int | float) or isinstance(alpha, bool) or not 0 < alpha < math.inf:
        problem = f"lora_alpha: got {alpha!r}; expected a positive number"
    if problem is not None:
        raise CheckpointError(f"{path}: {problem}; save the adapter again")
    assert isinstance(rank, int)
    assert isinstance(alpha, int | float)
    return float(alpha) * math.sqrt(rank) if config.get("use_rslora") else float(alpha)
