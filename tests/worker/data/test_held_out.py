"""Held-out episodes: the choice of those that become the split val."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosmos_worker.data.check import CheckedClips
from cosmos_worker.data.held_out import hold_out
from cosmos_worker.data.index import Clip
from cosmos_worker.data.layouts.candidate import (
    Candidate,
    Listing,
)


def make_clips(
    episodes: dict[str, str | None], split: str = "train", videos: dict[str, str] | None = None
) -> tuple[CheckedClips, Listing]:
    """Usable clips of these names, each with its episode."""
    candidates = tuple(
        Candidate(
            f"{split}/{name}", split, name, (videos or {}).get(name, name), ("a",), episode=episode
        )  # type: ignore[arg-type]
        for name, episode in episodes.items()
    )
    kept = tuple(
        Clip(one.clip_id, one.split, one.video, ("a",), 9, 10.0, 32, 48, (0,), "")
        for one in candidates
    )
    return CheckedClips(kept, (), ()), Listing(candidates, ())


def val_of(clips: CheckedClips) -> set[str]:
    return {clip.clip_id.removeprefix("val/") for clip in clips.kept if clip.split == "val"}


@given(st.integers(0, 99), st.floats(0.01, 0.99), st.integers(2, 12), st.randoms())
def test_the_draw_depends_on_the_seed_alone(seed, fraction, number, random):
    episodes = {f"clip{i}": f"episode{i % number}" for i in range(2 * number)}
    shuffled = dict(random.sample(sorted(episodes.items()), len(episodes)))

    clips, told = hold_out(*make_clips(episodes), fraction, seed)
    again, _ = hold_out(*make_clips(shuffled), fraction, seed)

    drawn = val_of(clips)
    assert drawn == val_of(again)
    assert told is not None
    assert told.episodes == min(max(1, round(fraction * number)), number - 1)
    assert told.clips == len(drawn) == 2 * told.episodes
    of_val, of_train = (
        {episodes[name] for name in names} for names in (drawn, episodes.keys() - drawn)
    )
    assert not of_val & of_train
    assert [clip.clip_id.split("/")[0] for clip in clips.kept] == [
        clip.split for clip in clips.kept
    ]


def test_another_seed_draws_others():
    episodes = {f"clip{i}": f"\ud800{i}" for i in range(20)}

    draws = {frozenset(val_of(hold_out(*make_clips(episodes), 0.3, seed)[0])) for seed in range(5)}

    assert len(draws) == 5


def test_clips_of_one_file_stay_together():
    videos = {name: f"{name[0]}.mp4" for name in ("a0", "a1", "a2", "b0", "b1")}
    clips, told = hold_out(*make_clips(dict.fromkeys(videos), videos=videos), 0.5, seed=1)

    assert val_of(clips) in ({"a0", "a1", "a2"}, {"b0", "b1"})
    assert told is not None
    assert told.sentence.startswith(f"1 of 2 training episodes ({told.clips} clips) is held out")


def test_only_usable_episodes_are_drawn_from():
    clips, listing = make_clips({f"clip{i}": None for i in range(10)})
    usable = dataclasses.replace(clips, kept=clips.kept[:2])

    held, _ = hold_out(usable, listing, 0.1, seed=0)

    assert len(val_of(held)) == 1


@pytest.mark.parametrize(
    ("split", "episodes", "sentence"),
    [
        (
            "val",
            {"a": None, "b": None},
            "validation_fraction 0.5 is not used: the source has a split val of",
        ),
        (
            "train",
            {"a": "e", "b": "e"},
            "validation_fraction 0.5 holds nothing out: all usable training",
        ),
    ],
)
def test_what_cannot_be_held_out_is_told(split: str, episodes: dict, sentence: str):
    clips, listing = make_clips(episodes, split)

    held, told = hold_out(clips, listing, 0.5, seed=0)

    assert held == clips
    assert told is not None
    assert told.sentence.startswith(sentence)


def test_nothing_is_held_out_of_nothing():
    clips, listing = make_clips({"a": None})

    _, told = hold_out(dataclasses.replace(clips, kept=()), listing, 0.5, seed=0)

    assert told is not None
    assert told.sentence.endswith("holds nothing out: no training clip is usable")


def test_nothing_is_held_out_unasked():
    clips, listing = make_clips({"a": None, "b": None})

    assert hold_out(clips, listing, 0.0, seed=0) == (clips, None)
