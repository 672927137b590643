"""Ids of a run at its trackers, kept in the run's folder: a continued run goes on under the same ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from cosmos_worker.storage.volumes import write_json

TRACKERS_FILE = "trackers.json"


def remembered_id(run: Path, name: str, make: Callable[[], str]) -> str:
    """The id of a run at a tracker; it is made once and written beside the metrics.

    Args:
        run: folder of the run.
        name: of the tracker.
        make: makes a new id.
    """
    path = run / TRACKERS_FILE
    ids: dict[str, str] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if name not in ids:
        ids[name] = make()
        write_json(path, ids)
    return ids[name]
