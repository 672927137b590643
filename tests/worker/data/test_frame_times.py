"""data/frame_times.py: rates, parts of files and sampling at a rate, on times alone."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosmos_worker.data.problems import BadClip
from cosmos_worker.data.video.frame_times import (
    Timeline,
    constant_rate,
    frames_between,
    sample_at,
    stray_frames,
)


def at(*times: float, ticks: int = 1000, last: float = 0.1) -> Timeline:
    """Frames at these seconds, in ticks of 1 / ticks s."""
    return Timeline(
        tuple(round(time * ticks) for time in times), Fraction(1, ticks), round(last * ticks)
    )


def even(count: int, fps: float, ticks: int = 90_000, start: int = 0) -> Timeline:
    times = tuple(start + round(number * ticks / fps) for number in range(count))
    return Timeline(times, Fraction(1, ticks), round(ticks / fps))


@given(
    st.lists(st.integers(1, 50), max_size=30), st.integers(-100, 100), st.integers(1, 90_000), st.integers(1, 9)
)  # fmt: skip
def test_a_timeline_survives_json(gaps, start, ticks, last):
    times = [start]
    for gap in gaps:
        times.append(times[-1] + gap)
    timeline = Timeline(tuple(times), Fraction(1, ticks), last)

    assert Timeline.from_json(timeline.as_json()) == timeline


def test_a_part_of_a_file_may_be_constant_where_the_file_is_not():
    timeline = at(0, 0.1, 0.2, 0.3, 0.9, 1.0, 1.1, 1.2)

    assert constant_rate(timeline, range(4, 8), "a.mp4") == 10
    with pytest.raises(
        BadClip, match=r"frame 3 lasts 0\.6 s, others 0\.1 s; .*frameRate: Resample"
    ):
        constant_rate(timeline, range(8), "a.mp4")


def test_a_single_frame_has_the_rate_of_its_file():
    assert constant_rate(at(0, 0.1, 0.2), range(1, 2), "a.mp4") == 10
    assert constant_rate(at(3, last=0.04), range(1), "a.mp4") == 25


def test_frames_after_a_gap_are_stray_near_the_end_only():
    frames = [0.1 * number for number in range(20)]

    assert stray_frames(at(*frames)) == 0
    assert stray_frames(at(*frames, 2.3)) == 1
    assert stray_frames(at(*frames, 2.3, 2.7)) == 2
    assert stray_frames(at(*frames, *(2.3 + one for one in frames[:5]))) == 0
    assert stray_frames(at(0)) == 0


# --- parts of a file -------------------------------------------------------------------------


@pytest.mark.parametrize("start", [0, 126_000, -512])
@pytest.mark.parametrize("error", [-0.004, 0, 0.004])
def test_a_part_is_the_frames_between_its_times(start: int, error: float):
    timeline = even(300, 30, start=start)
    for first, last in ((0, 100), (100, 200), (200, 300)):
        times = (first / 30 + error, last / 30 + error)
        assert frames_between(timeline, *times, "a.mp4", "meta") == range(first, last)


def test_a_part_may_be_open():
    timeline = even(30, 30)

    assert frames_between(timeline, None, 0.5, "a.mp4", "meta") == range(15)
    assert frames_between(timeline, 0.5, None, "a.mp4", "meta") == range(15, 30)


@pytest.mark.parametrize(
    ("start", "end", "told"),
    [
        (1.0, 1.5, "1 to 1.5"),
        (0.5, 1.1, "0.5 to 1.1"),
        (-0.1, 0.5, "-0.1 to 0.5"),
        (0.5, 0.5, "0.5 to 0.5"),
        (0.8, 0.2, "0.8 to 0.2"),
        (5.0, None, "5 to the end"),
        (float("nan"), 1.0, "nan to 1"),
        (0.0, float("inf"), "0 to inf"),
    ],
)
def test_a_part_outside_of_the_file_is_refused(start, end, told):
    message = f"^meta: the clip is {told} s of a.mp4, which has 30 frames in 1 s; correct the times"
    with pytest.raises(BadClip, match=message) as caught:
        frames_between(even(30, 30), start, end, "a.mp4", "meta")

    assert caught.value.reason == "clip_outside"


# --- sampling --------------------------------------------------------------------------------


def sampled(timeline: Timeline, fps: float, frames: range | None = None) -> list[int]:
    return list(sample_at(timeline, frames or range(timeline.num_frames), fps, "a.mp4"))


@pytest.mark.parametrize("fps", [24, 30, 60])
@pytest.mark.parametrize("ticks", [60, 1000, 15_360, 90_000])
@pytest.mark.parametrize("count", [98, 99, 100, 101])
def test_sampling_at_the_own_rate_keeps_every_frame_once(fps: int, ticks: int, count: int):
    if ticks % fps == 0 or ticks > 60:
        assert sampled(even(count, fps, ticks, start=7), fps) == [*range(count)]


def test_sampling_halves_and_doubles():
    assert sampled(even(10, 30), 15) == [0, 2, 4, 6, 8]
    assert sampled(even(4, 15), 30) == [0, 0, 1, 1, 2, 2, 3, 3]


def test_sampling_repeats_the_frame_before_one_that_is_missing():
    times = [number / 30 for number in range(10) if number != 4]

    assert sampled(at(*times, ticks=90_000, last=1 / 30), 30) == [0, 1, 2, 3, 3, 4, 5, 6, 7, 8]


def test_sampling_takes_the_frame_that_is_shown_at_each_time():
    timeline = at(0, 0.042, 0.066, 0.095, 0.135, last=0.03)  # 9 ms of jitter around 30 fps

    assert sampled(timeline, 30) == [0, 0, 2, 3, 3]


def test_sampling_2997_at_30_repeats_one_frame_in_a_thousand():
    numbers = sampled(even(2000, 30000 / 1001), 30)

    assert len(numbers) in (2002, 2003)
    assert sorted(set(numbers)) == [*range(2000)]


def test_sampling_a_part_begins_and_ends_with_it():
    assert sampled(even(90, 30, start=11), 10, range(30, 60)) == [*range(30, 60, 3)]


@pytest.mark.parametrize("fps", [12, 45])
@pytest.mark.parametrize("ticks", [30, 1000, 90_000])
def test_rounded_times_give_the_frames_of_exact_ones(fps: int, ticks: int):
    """AVI has a tick a frame, MKV milliseconds; 41 frames: half a frame at the end is shown, too."""
    timeline = even(100, 30, ticks)
    count = -(-41 * fps // 30)

    for start in range(50):
        exact = [start + sample * 30 // fps for sample in range(count)]
        assert sampled(timeline, fps, range(start, start + 41)) == exact


@given(
    st.lists(st.integers(1, 300), min_size=1, max_size=40), st.integers(1, 60), st.integers(1, 300)
)  # fmt: skip
def test_samples_are_the_frames_shown_at_their_times(gaps, fps, last):
    times = [0]
    for gap in gaps:
        times.append(times[-1] + gap)
    timeline = Timeline(tuple(times), Fraction(1, 1000), last)
    try:
        numbers = sampled(timeline, fps)
    except BadClip:
        return

    for sample, number in enumerate(numbers):
        early = min(Fraction(1), Fraction(timeline.usual_gap, 10))  # times are rounded to ticks
        time = Fraction(sample * 1000, fps) + early
        assert times[number] < time
        assert number + 1 == len(times) or times[number + 1] >= time
    assert Fraction(len(numbers), fps) >= Fraction(times[-1] + last - 1, 1000) - Fraction(
        1, 2 * fps
    )


def test_a_picture_that_stands_for_hours_is_no_video():
    with pytest.raises(BadClip, match=r"a\.mp4: 2 frames in 3600\.\d s; .*or remove the clip"):
        sampled(at(0, 3600), 30)
