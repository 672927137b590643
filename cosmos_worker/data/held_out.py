"""A split for validation where the source has none: some episodes of the training data, drawn by a seed.

An episode is drawn or not by a hash of the seed and its name, so neither the order of files nor other episodes that
come or go change much of the draw. All clips of an episode stay together, and where no episode is known all that are
cut from one file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace

from cosmos_worker.data.check import CheckedClips
from cosmos_worker.data.index import Clip
from cosmos_worker.data.layouts.candidate import Listing


@dataclass(frozen=True)
class HeldOut:
    """What became of ``validation_fraction``."""

    episodes: int
    """Training episodes that became the split val."""
    clips: int
    """Their clips."""
    sentence: str
    """The same for people, with the reason where there are none."""


def hold_out(
    clips: CheckedClips, listing: Listing, fraction: float, seed: int
) -> tuple[CheckedClips, HeldOut | None]:
    """The clips with a share of the training episodes in the split val; as they are where the source has that split.

    Args:
        clips: whose videos have been checked; only usable ones are drawn from.
        listing: says which clips belong to one episode.
        fraction: of the episodes with usable training clips, 0 <= fraction < 1; of two and more at least one is held
            out, and one is left.
        seed: of the draw.

    Returns:
        The clips in the same order, and what was done; None if fraction is 0.
    """
    if not fraction:
        return clips, None
    of_source = sum(candidate.split == "val" for candidate in listing.candidates)
    if of_source:
        why = f"the source has a split val of its own ({of_source} clips)"
        return clips, HeldOut(0, 0, f"validation_fraction {fraction:g} is not used: {why}")
    episode_of = _episodes(clips, listing)
    episodes = sorted(set(episode_of.values()), key=lambda episode: _rank(episode, seed))
    if len(episodes) < 2:
        why = (
            "all usable training clips are of one episode"
            if episodes
            else "no training clip is usable"
        )
        return clips, HeldOut(0, 0, f"validation_fraction {fraction:g} holds nothing out: {why}")
    number = min(max(1, round(fraction * len(episodes))), len(episodes) - 1)
    drawn = set(episodes[:number])
    kept = tuple(
        _as_validation(clip) if episode_of.get(clip.clip_id) in drawn else clip
        for clip in clips.kept
    )
    moved = sum(episode in drawn for episode in episode_of.values())
    sentence = (
        f"{number} of {len(episodes)} training episodes ({moved} clips) are held out as split val, drawn by seed {seed}"
        f" (validation_fraction {fraction:g})"
    )
    return replace(clips, kept=kept), HeldOut(number, moved, sentence)


def _episodes(clips: CheckedClips, listing: Listing) -> Mapping[str, str]:
    """Id of each usable training clip → its episode, or the file that it is of."""
    named = {
        candidate.clip_id: f"file {candidate.video}"
        if candidate.episode is None
        else f"episode {candidate.episode}"
        for candidate in listing.candidates
    }
    return {clip.clip_id: named[clip.clip_id] for clip in clips.kept if clip.split == "train"}


def _rank(episode: str, seed: int) -> tuple[str, str]:
    name = f"{seed} {episode}".encode("utf-8", "surrogatepass")  # a document may say anything
    return hashlib.sha256(name).hexdigest(), episode


def _as_validation(clip: Clip) -> Clip:
    """The clip in the split val, which its id begins with."""
    return replace(clip, split="val", clip_id=f"val/{clip.clip_id.removeprefix('train/')}")
