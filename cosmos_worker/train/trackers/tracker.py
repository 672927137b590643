"""What a tracker of figures is, several of them that can never stop a training, and their ids in the run's folder."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from cosmos_worker.storage.volumes import write_json

logger = logging.getLogger(__name__)


class Tracker(Protocol):
    """Takes in what a run reports; any of its methods may fail."""

    name: str
    """As in ``trainer.trackers``."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Figures after this many steps."""

    def videos(self, step: int, paths: Mapping[str, Path]) -> None:
        """Sample videos after this many steps, MP4 files by name."""

    def close(self) -> None:
        """Hand over what is left."""


class Trackers:
    """Hands everything to each tracker; one that fails is named once and left out from then on."""

    def __init__(self, trackers: Sequence[Tracker] = ()) -> None:
        self._trackers = list(trackers)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """See :class:`Tracker`."""
        self._each(lambda tracker: tracker.scalars(step, values))

    def videos(self, step: int, paths: Mapping[str, Path]) -> None:
        """See :class:`Tracker`."""
        self._each(lambda tracker: tracker.videos(step, paths))

    def close(self) -> None:
        """See :class:`Tracker`; nothing is tracked afterwards."""
        self._each(lambda tracker: tracker.close())
        self._trackers = []

    def _each(self, act: Callable[[Tracker], None]) -> None:
        for tracker in list(self._trackers):
            try:
                act(tracker)
            except Exception as error:  # whatever a service does, the training goes on
                self._trackers.remove(tracker)
                reason = " ".join(str(error).split())[:200] or type(error).__name__
                logger.warning(
                    "tracker=%s failed and is off (%s); metrics.jsonl has everything",
                    tracker.name,
                    reason,
                )


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
