"""Objects of a file with one JSON value a line. No torch here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cosmos_worker.view.folders import Folders


def parse_objects(text: str) -> list[dict[str, Any]]:
    """The objects of a text with one JSON value a line; lines that hold something else are left out."""
    found = []
    for line in text.split("\n"):  # splitlines() would split at U+2028 in a caption
        try:
            value = json.loads(line) if line.strip() else None
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict):
            found.append(value)
    return found


def read_objects(folders: Folders, path: Path) -> list[dict[str, Any]]:
    """The objects of a file; none if it is absent or cannot be read."""
    return parse_objects(folders.text(path) or "")
