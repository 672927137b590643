"""Journal of the videos that were checked, so that an interrupted check does not decode them again.

One JSON line a video, appended as it is checked. A line counts for the file as it was then (same size, same time) and
for the reader that has decoded it.
"""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import IO, Any, Self

from cosmos_worker.data.problems import BadClip
from cosmos_worker.data.video.facts import VideoFacts
from cosmos_worker.storage.volumes import VIDEO_READER_VERSION

JOURNAL_FILE = ".checked.jsonl"


class Journal:
    """Results of checked videos. Results are added inside a ``with`` block; the caller removes the file in the end."""

    def __init__(self, path: Path) -> None:
        """Read the file, if there is one; a line that an interruption has cut is left out."""
        self.path = path
        self._known: dict[tuple[str, int, int], VideoFacts | BadClip] = {}
        if path.is_file():
            for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
                self._read(line)
        self._stream: IO[str]
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._stream = self.path.open("a", encoding="utf-8")
        self._stream.write("\n")  # ends a line that was cut
        return self

    def __exit__(self, *error: object) -> None:
        self._stream.close()

    def _read(self, line: str) -> None:
        try:
            entry: dict[str, Any] = json.loads(line)
            if entry["reader"] != VIDEO_READER_VERSION:
                return
            facts, problem = entry["facts"], entry["problem"]
            key = (str(entry["video"]), int(entry["size"]), int(entry["mtime_ns"]))
            self._known[key] = BadClip(**problem) if facts is None else VideoFacts.from_json(facts)
        except (ValueError, KeyError, TypeError):
            return

    def __len__(self) -> int:
        return len(self._known)

    def find(self, root: Path, video: str) -> VideoFacts | BadClip | None:
        """The result for a video, if its file was checked with the size and time that it has now.

        Args:
            root: folder of the dataset.
            video: path of an existing file relative to it.
        """
        return self._known.get(_key(root, video))

    def add(self, root: Path, video: str, outcome: VideoFacts | BadClip) -> None:
        """Note the result for a video; threads may call this at the same time."""
        _, size, mtime_ns = _key(root, video)
        facts, problem = None, None
        if isinstance(outcome, BadClip):
            problem = {"file": outcome.file, "reason": outcome.reason, "value": outcome.value}
        else:
            facts = outcome.as_json()
        entry = {
            "reader": VIDEO_READER_VERSION,
            "video": video,
            "size": size,
            "mtime_ns": mtime_ns,
            "facts": facts,
            "problem": problem,
        }
        with self._lock:
            self._stream.write(json.dumps(entry) + "\n")
            self._stream.flush()


def _key(root: Path, video: str) -> tuple[str, int, int]:
    status = (root / video).stat()
    return video, status.st_size, status.st_mtime_ns
