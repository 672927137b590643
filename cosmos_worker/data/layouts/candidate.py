"""A clip that a dataset names, before its video has been looked at. The layouts make them, the check eats them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from cosmos_worker.data.index import Split
from cosmos_worker.data.problems import BadClip

SEARCH_DEPTH = 3
"""Folders between the root of an archive and the dataset that are searched (opensource_robotdata/bridge is two)."""


@dataclass(frozen=True)
class Candidate:
    """One clip as annotated. Paths are relative to the dataset's root, with forward slashes."""

    clip_id: str
    split: Split
    source: str
    """File that names the clip: its annotation, or the video itself."""
    video: str
    captions: tuple[str, ...]
    """One or more; not empty."""
    num_annotated: Mapping[str, int] = field(default_factory=dict)
    """Per-frame lists of the annotation: name → length, which must be the video's number of frames."""
    num_frames: int | None = None
    """Frames that the clip has according to the dataset; None = not said."""
    start_s: float | None = None
    """Time in the file, from its first frame on, at which the clip begins; None = with the file."""
    end_s: float | None = None
    """Time in the file at which it ends, the first frame that is not part of it; None = with the file."""
    episode: str | None = None
    """What belongs together when clips are held out; None = the clip alone."""


@dataclass(frozen=True)
class Listing:
    """All clips that a dataset names."""

    candidates: tuple[Candidate, ...]
    """Clips whose video can be checked, sorted by file name."""
    bad: tuple[BadClip, ...]
    """Clips that are unusable before that."""
    passed_over: Mapping[str, int] = field(default_factory=dict)
    """Files that name no clip and look as if they might: pattern such as videos/**/*.gif → their number."""
    notes: tuple[str, ...] = ()
    """What was taken for what, in sentences for log and report."""

    @property
    def num_clips(self) -> int:
        """Clips that the dataset names, usable or not."""
        return len(self.candidates) + len(self.bad)


def without_repeated_ids(listing: Listing) -> Listing:
    """The listing with clips of the same id as bad clips: none of them is known to be the right one."""
    by_id = defaultdict(list)
    for candidate in listing.candidates:
        by_id[candidate.clip_id].append(candidate)
    bad = []
    for clip_id, several in by_id.items():
        if len(several) < 2:
            continue
        for candidate in several:
            other = several[0] if candidate is not several[0] else several[1]
            value = f"clip id {clip_id!r} is also that of {other.source}"
            bad.append(BadClip(candidate.source, "clip_id_repeated", value))
    kept = tuple(one for one in listing.candidates if len(by_id[one.clip_id]) == 1)
    return replace(listing, candidates=kept, bad=(*listing.bad, *bad))
