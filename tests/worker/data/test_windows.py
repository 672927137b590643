"""Windows that are decoded in threads, and the number that waits in memory."""

import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from support.numbered_videos import Kind, number_of, write_numbered

from cosmos_worker.config.network import VideoConfig
from cosmos_worker.data import windows as module
from cosmos_worker.data.index import Clip, DatasetIndex
from cosmos_worker.data.video.facts import decode_fully
from cosmos_worker.data.windows import Means, cut_runs, decode_ahead, num_ahead, own_means
from cosmos_worker.errors import DataError

BRIDGE = VideoConfig(num_pixel_frames=57, height=256, width=320)
SMALL = VideoConfig(num_pixel_frames=9, height=48, width=64)
MEMORY = 1 << 30
HD = VideoConfig(num_pixel_frames=121, height=704, width=1280)


@pytest.mark.parametrize(
    ("video", "batch_size", "cpus", "expected"),
    [(BRIDGE, 8, 16, 9), (BRIDGE, 8, 4, 4), (HD, 1, 16, 3), (HD, 8, 16, 1), (BRIDGE, 1, 1, 1)],
)
def test_batches_ahead_fit_memory_and_cpus(video, batch_size, cpus, expected):
    assert num_ahead(video, batch_size, Means(cpus, 1 << 30)) == expected


def test_processes_of_a_node_share_its_cpus_and_memory(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "available_cpus", lambda: 16)
    monkeypatch.setattr(module, "available_memory", lambda: 80 << 30)

    assert own_means(1) == Means(16, 8 << 30)
    assert own_means(8, pins=True) == Means(2, 1 << 30, pins=True)
    assert own_means(32).cpus == 1


@pytest.fixture
def index(tmp_path: Path) -> DatasetIndex:
    """Three clips of 40 numbered frames, the second sampled at twice its rate."""
    root = tmp_path / "data"
    root.mkdir()
    clips = []
    for number in range(3):
        path = write_numbered(root / f"{number}.mp4", Kind("libx264"))
        facts = decode_fully(path, path.name, min_frames=10, spacing=6)
        clip = Clip(
            f"train/{number}", "train", path.name, ("go",), 40, 30.0, 48, 64, tuple(range(32)), "ab",
            entry_points=facts.entry_points,
        )  # fmt: skip
        clips.append(clip)
    doubled = tuple(frame for frame in range(40) for _ in range(2))
    clips[1] = replace(clips[1], num_frames=80, frame_numbers=doubled, window_starts=(0, 7, 60, 71))
    return DatasetIndex(root, tuple(clips))


def test_sampled_clips_and_windows_in_any_order_are_their_frames(index: DatasetIndex):
    windows = index.windows("train")
    shuffled = [*windows[40:], *windows[:40:3], windows[5], windows[2]]
    batches = [shuffled[start : start + 4] for start in range(0, len(shuffled), 4)]
    found = []

    for batch, pixels in decode_ahead(index, batches, SMALL, Means(2, MEMORY)):
        for window, frames in zip(batch, pixels.numpy(), strict=True):
            wanted = index.clip(window.clip_id).frames_in_file(window.start, 9)
            assert [number_of(frame) for frame in frames] == list(wanted)
            found.append(window)

    assert found == shuffled


def test_only_frames_that_a_window_takes_are_converted(
    index: DatasetIndex, monkeypatch: pytest.MonkeyPatch
):
    """Every fourth frame of a clip that is sampled at a quarter of its rate."""
    whole = index.clips[0]
    clip = replace(whole, num_frames=10, frame_numbers=tuple(range(0, 40, 4)), window_starts=(0, 1))
    windows = DatasetIndex(index.root, (clip,)).windows("train")
    converted, convert = [], module.picture_of

    def noted(path, shown, *size):
        converted.append(shown.number)
        return convert(path, shown, *size)

    monkeypatch.setattr(module, "picture_of", noted)
    first, second = module.read_run(index.video_path(clip), module.Run(clip, windows), SMALL)

    assert converted == list(clip.frame_numbers)
    assert [number_of(frame) for frame in first] == converted[:9]
    assert [number_of(frame) for frame in second] == converted[1:]


def starts_of_runs(index: DatasetIndex, starts: Sequence[int]) -> list[list[int]]:
    """First frames of the windows of each run, of these windows of the first clip."""
    clip = replace(index.clips[0], window_starts=tuple(starts))
    windows = DatasetIndex(index.root, (clip,)).windows("train")
    return [[one.start for one in run.windows] for run in cut_runs(index, windows, 9)]


def test_windows_that_share_frames_are_one_run(index: DatasetIndex):
    assert len(index.clips[0].entry_points) >= 3

    assert starts_of_runs(index, range(32)) == [list(range(32))]
    assert starts_of_runs(index, range(0, 32, 8)) == [[0, 8, 16, 24]]


def test_a_gap_that_an_entry_point_leaps_over_begins_another_run(index: DatasetIndex):
    entries = [number for number, _ in index.clips[0].entry_points if number > 9]

    assert starts_of_runs(index, [0, entries[0]]) == [[0], [entries[0]]]
    assert starts_of_runs(index, [0, entries[0] - 1]) == [[0, entries[0] - 1]]
    assert starts_of_runs(index, [entries[0] - 9, entries[0]]) == [[entries[0] - 9, entries[0]]]


def test_a_long_clip_is_cut_for_the_threads(index: DatasetIndex, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "LONGEST_RUN", 1)

    runs = starts_of_runs(index, range(32))

    assert [start for run in runs for start in run] == list(range(32))
    assert len(runs) > 1
    assert all(len(run) >= 9 for run in runs[:-1])


def test_windows_of_other_clips_are_other_runs(index: DatasetIndex):
    runs = list(cut_runs(index, index.windows("train"), 9))

    # of the second clip, windows that begin at its frames 0 and 3, then after a gap at 30 and 35
    assert [run.clip.clip_id for run in runs] == ["train/0", "train/1", "train/1", "train/2"]


def test_frames_are_decoded_and_resized_once_for_all_windows(
    index: DatasetIndex, monkeypatch: pytest.MonkeyPatch
):
    clip = index.clips[0]
    windows = DatasetIndex(index.root, (clip,)).windows("train")
    converted, convert = [], module.picture_of

    def noted(path, shown, *size):
        converted.append(shown.number)
        return convert(path, shown, *size)

    monkeypatch.setattr(module, "picture_of", noted)
    batches = [[window] for window in windows]
    assert len(list(decode_ahead(index, batches, SMALL, Means(2, MEMORY)))) == 32

    assert sorted(converted) == list(range(40))


def test_few_windows_wait_in_memory(index: DatasetIndex, monkeypatch: pytest.MonkeyPatch):
    windows = index.windows("train")
    batches = [[window] for window in windows]
    made, read = [], module.read_run

    def counted(*arguments):
        for frames in read(*arguments):
            made.append(frames)
            yield frames

    monkeypatch.setattr(module, "read_run", counted)
    means = Means(4, 4 * 3 * 9 * 48 * 64)
    most = 0
    for taken, _ in enumerate(decode_ahead(index, batches, SMALL, means), start=1):
        time.sleep(0.002)  # let the threads run as far as they may
        most = max(most, len(made) - taken)

    assert len(made) == len(windows)
    assert most <= 8


def test_an_error_in_a_thread_reaches_the_caller(index: DatasetIndex):
    index.video_path(index.clips[2]).unlink()
    windows = index.windows("train")

    with pytest.raises(DataError, match=r"2\.mp4: cannot be decoded as video: No such file"):
        list(decode_ahead(index, [windows], SMALL, Means(2, MEMORY)))
    assert not [one for one in threading.enumerate() if one.name.startswith("decode")]


def test_a_clip_that_is_shorter_than_the_index_says_is_told(index: DatasetIndex):
    write_numbered(index.video_path(index.clips[0]), Kind("libx264"), range(20))

    with pytest.raises(
        DataError, match=r"0\.mp4: frame \d+ asked for, the video has 20; run prepare"
    ):
        list(decode_ahead(index, [index.windows("train")], SMALL, Means(1, MEMORY)))


def test_a_thread_ends_when_nobody_takes_its_windows(index: DatasetIndex):
    batches = [[window] for window in index.windows("train")]
    stream = decode_ahead(index, batches, SMALL, Means(2, MEMORY))
    next(stream)

    stream.close()

    assert not [one for one in threading.enumerate() if one.name.startswith("decode")]
