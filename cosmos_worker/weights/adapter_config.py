"""What PEFT's ``adapter_config.json`` and diffusers' metadata say of LoRA corrections, and what of it is merged here.

Source: peft 0.21, tuners/lora: scale = lora_alpha / r, or lora_alpha / sqrt(r) with use_rslora; ranks and alphas by
layer; initialisations that take a part out of the base, again at every load.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cosmos_worker.errors import CheckpointError
from cosmos_worker.storage.file_kinds import read_json_file
from cosmos_worker.weights.forms import ADAPTER_FILE
from cosmos_worker.weights.lora import Residual

OTHER_MATHEMATICS = (
    "use_qalora", "use_bdlora", "lora_bias", "layer_replication", "target_parameters", "trainable_token_indices",
    "arrow_config", "kasa_config", "monteclora_config", "velora_config", "alora_invocation_tokens", "megatron_config",
)  # fmt: skip
"""What changes the meaning of PEFT's adapters, if it is used, and is not known here."""
PLAIN_INITIALISATIONS = (True, False, None, "gaussian", "eva", "orthogonal", "mica")
"""Those that leave the base as it is."""
RESIDUALS: dict[str, Residual] = {"pissa": "pissa", "olora": "olora"}
SAVE_CONVERTED = (
    "load it with PEFT onto the base as it was in the training, call merge_and_unload() and give the whole weights, or "
    "save it as a plain LoRA: save_pretrained(..., path_initial_model_for_weight_conversion=...)"
)


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


@dataclass(frozen=True)
class LoraRules:
    """What a configuration says of each layer, by the names that PEFT sees."""

    config: Mapping[str, Any]
    where: str
    """File, for messages."""

    @property
    def base(self) -> str | None:
        """The model that the adapter says it belongs to."""
        value = self.config.get("base_model_name_or_path")
        return value if isinstance(value, str) else None

    @property
    def residual(self) -> Residual | None:
        """The initialisation, if it took a part out of the base.

        Raises:
            CheckpointError: one whose part cannot be found again from the base alone.
        """
        value = self.config.get("init_lora_weights", True)
        name = value.lower() if isinstance(value, str) else value
        if isinstance(name, str) and name in RESIDUALS:
            return RESIDUALS[name]
        if name in PLAIN_INITIALISATIONS:
            return None
        raise CheckpointError(
            f"{self.where}: init_lora_weights: got {value!r}, which changed the base in a way that follows from more "
            f"than the base and is not in the adapter; {SAVE_CONVERTED}"
        )

    def rank(self, module: str) -> int:
        """R of a layer. Raises like :meth:`scale`."""
        value = self._by_layer("rank_pattern", "r", module)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise CheckpointError(
                f"{self.where}: r: got {value!r}; expected a whole number of at least 1; save the adapter again"
            )
        return value

    def scale(self, module: str) -> float:
        """Factor of B A of a layer.

        Raises:
            CheckpointError: rank or alpha is no positive number.
        """
        rank, alpha = self.rank(module), self._by_layer("alpha_pattern", "lora_alpha", module)
        if (
            not isinstance(alpha, int | float)
            or isinstance(alpha, bool)
            or not 0 < alpha < math.inf
        ):
            raise CheckpointError(
                f"{self.where}: lora_alpha: got {alpha!r}; expected a positive number; save the adapter again"
            )
        return float(alpha) / (math.sqrt(rank) if self.config.get("use_rslora") else rank)

    def _by_layer(self, patterns: str, default: str, module: str) -> object:
        """A value of a layer: of the first pattern that fits its name, else that of all."""
        given = self.config.get(patterns) or {}
        if not isinstance(given, dict):
            raise CheckpointError(
                f"{self.where}: {patterns}: got {given!r}; save the adapter again"
            )
        for pattern, value in given.items():
            if _matches(rf"(.*\.)?({pattern})$", module, self.where):
                return value
        return self.config.get(default)

    def is_target(self, module: str) -> bool:
        """Whether PEFT gives a layer a correction at all."""
        targets, excluded = self.config.get("target_modules"), self.config.get("exclude_modules")
        if excluded and self._names(excluded, module):
            return False
        if targets is None or targets == "all-linear":
            return True
        return self._names(targets, module) and (
            isinstance(targets, str) or self._is_chosen(module)
        )

    def _names(self, given: object, module: str) -> bool:
        if isinstance(given, str):
            return _matches(rf"(?:{given})\Z", module, self.where)
        return isinstance(given, list) and any(
            module == one or module.endswith(f".{one}") for one in given
        )

    def _is_chosen(self, module: str) -> bool:
        """Whether layers_to_transform admits the number of a layer's block."""
        chosen = self.config.get("layers_to_transform")
        if chosen is None or chosen == []:
            return True
        patterns = self.config.get("layers_pattern") or []
        patterns = [patterns] if isinstance(patterns, str) else patterns
        expressions = [rf"(?:^|.*?\.){one}\.(?P<idx>\d+)\." for one in patterns]
        for expression in expressions or [r".*?\.[^.]*\.(?P<idx>\d+)\."]:
            if match := re.match(expression, module):
                return int(match["idx"]) in ([chosen] if isinstance(chosen, int) else chosen)
        return False


def _matches(pattern: str, module: str, where: str) -> bool:
    try:
        return re.match(pattern, module) is not None
    except re.error as error:
        raise CheckpointError(
            f"{where}: {pattern!r} is no regular expression ({error}); save the adapter again"
        ) from None


def read_adapter_config(path: Path) -> LoraRules:
    """adapter_config.json of corrections that can be merged.

    Raises:
        CheckpointError: a missing or damaged file, or corrections of a kind that is not known here.
    """
    try:
        config = read_json_file(path, "save the adapter again")
    except FileNotFoundError:
        raise CheckpointError(
            f"{path}: no such file, and {ADAPTER_FILE} beside it does not say its scale; add it, or remove both"
        ) from None
    kind = config.get("peft_type") if isinstance(config, dict) else None
    if not isinstance(config, dict) or kind != "LORA":
        raise CheckpointError(f"{path}: peft_type: got {kind!r}; only 'LORA' can be merged")
    return checked_rules(config, str(path))


def read_diffusers_metadata(metadata: Mapping[str, str], where: Path) -> LoraRules | None:
    """What diffusers has written about an adapter into its file; None if it has not.

    Raises:
        CheckpointError: damaged, or corrections of a kind that is not known here.
    """
    text = metadata.get("lora_adapter_metadata")
    if text is None:
        return None
    try:
        whole = json.loads(text)
        config = {
            key.removeprefix("transformer."): value
            for key, value in whole.items()
            if key.startswith("transformer.")
        }
    except (ValueError, AttributeError) as error:
        raise CheckpointError(
            f"{where}: lora_adapter_metadata: not JSON ({error}); save the adapter again"
        ) from None
    return checked_rules(config, f"{where}: lora_adapter_metadata") if config else None


def checked_rules(config: dict[str, Any], where: str) -> LoraRules:
    """The rules of a configuration.

    Raises:
        CheckpointError: it uses what cannot be merged here.
    """
    used = [name for name in OTHER_MATHEMATICS if config.get(name)]
    if config.get("bias", "none") != "none":
        used.append("bias")
    if used:
        raise CheckpointError(
            f"{where}: uses {', '.join(f'{name}={config[name]!r}' for name in used)}, which cannot be merged here; "
            "merge it with PEFT and give the whole weights"
        )
    rules = LoraRules(config, where)
    _ = rules.residual
    return rules
