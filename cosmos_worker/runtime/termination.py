"""The termination message: a small JSON that says why the worker ended. No torch here."""

from __future__ import annotations

import json
import logging
import math
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

MAX_BYTES = 4096
VARIABLE = "COSMOS_TERMINATION_LOG"
"""Where to write; Kubernetes reads /dev/termination-log, on one machine the runner names a file."""
NODE_VARIABLE = "NODE_NAME"
"""The node's name; the host's where it is not set."""


def node_name(environment: Mapping[str, str]) -> str:
    """The node that this process runs on."""
    return environment.get(NODE_VARIABLE) or socket.gethostname()


def _strict(value: Any) -> Any:  # noqa: ANN401 - JSON values
    """The value with null for numbers that JSON does not have."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _strict(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(one) for one in value]
    return value


def _one_line(message: str) -> str:
    """Lines joined by semicolons."""
    return "; ".join(line.strip() for line in message.splitlines() if line.strip())


def build(reason: str, message: str, details: Mapping[str, Any]) -> str:
    """The JSON text, at most 4 KiB: the largest results are dropped first, then the message is cut.

    A result that lost values names them in ``omitted``.
    """
    record = {"reason": reason, "message": _one_line(message), **_strict(dict(details))}
    while len(text := json.dumps(record)) > MAX_BYTES:
        result = record.get("result") or {}
        sizes = {name: len(json.dumps(value)) for name, value in result.items()}
        omitted = result.get("omitted", [])
        sizes.pop("omitted", None)
        if sizes:
            largest = max(sizes, key=sizes.__getitem__)
            kept = {name: value for name, value in result.items() if name != largest}
            record["result"] = {**kept, "omitted": [*omitted, largest]}
        elif result:
            del record["result"]
        else:
            record["message"] = record["message"][: len(record["message"]) // 2] + "…"
    return text


def write(reason: str, message: str, **details: Any) -> None:  # noqa: ANN401 - JSON values
    """Write ``{reason, message, ...}``; nothing happens where nobody reads it.

    Args:
        reason: CamelCase word of the contract.
        message: for people; becomes one line.
        details: step, checkpoint, rank, result.
    """
    target = os.environ.get(VARIABLE)
    if not target:
        return
    text = build(reason, message, {"node": node_name(os.environ), **details})
    try:
        Path(target).write_text(text, encoding="utf-8")
    except OSError as error:  # the exit code says the most important part
        logger.warning("%s: the termination message cannot be written: %s", target, error)
