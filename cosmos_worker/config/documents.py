"""Reading a stage document from a file, with overrides. No torch here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cosmos_worker.config.overrides import apply_overrides
from cosmos_worker.config.stages import (
    STAGE_CONFIGS,
    StageConfig,
    load_yaml,
    parse_document,
)
from cosmos_worker.errors import ConfigError


def load_stage_config(stage: str, path: Path, overrides: Sequence[str]) -> StageConfig:
    """Read and validate a stage document, with ``key.sub=value`` overrides applied.

    Raises:
        ConfigError: missing file, not a mapping, or values that are not allowed; all problems at once.
    """
    document = load_yaml(path)
    if not isinstance(document, dict):
        raise ConfigError(f"{path}: expected a mapping, got {type(document).__name__}")
    config = parse_document(STAGE_CONFIGS[stage], document, str(path))
    return apply_overrides(config, overrides)
