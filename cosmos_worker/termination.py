"""The termination message: a small JSON that says why the worker ended. No torch here."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

MAX_BYTES = 4096
VARIABLE = "COSMOS_TERMINATION_LOG"
"""Where to write; Kubernetes reads /dev/termination-log, on one machine the runner names a file."""


def write(reason: str, message: str, **details: Any) -> None:  # noqa: ANN401 - JSON values
    """Write ``{reason, message, ...}`` in at most 4 KiB; nothing happens where nobody reads it."""
    target = os.environ.get(VARIABLE)
    if not target:
        return
    record = {"reason": reason, "message": message, **details}
    while len(text := json.dumps(record)) > MAX_BYTES:
        record["message"] = record["message"][: len(record["message"]) // 2] + "…"
    Path(target).write_text(text, encoding="utf-8")
