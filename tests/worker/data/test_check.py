"""Checking clips: every way in which a clip can be unusable, on real files."""

import errno
from pathlib import Path

import numpy as np
import pytest
from support.clips import (
    add_bridge_clip,
    fail_reads_of,
    write_bridge_dataset,
    write_clip,
    write_clip_with_times,
)

from cosmos_worker.config.network import VideoConfig
from cosmos_worker.data.check import check_clips
from cosmos_worker.data.index import Clip
from cosmos_worker.data.journal import Journal
from cosmos_worker.data.layouts.bridge import list_bridge
from cosmos_worker.data.layouts.candidate import (
    Candidate,
    Listing,
)
from cosmos_worker.data.problems import BadClip
from cosmos_worker.data.video.facts import decode_fully
from cosmos_worker.data.video.frame_times import constant_rate
from cosmos_worker.storage.volumes import sha256_of_file

VIDEO = VideoConfig(num_pixel_frames=9, height=32, width=48, window_stride=4)


def check(root: Path, path: Path, **num_annotated: int) -> Clip:
    name = path.relative_to(root).as_posix()
    candidate = Candidate("train/a", "train", "annotation/a.json", name, ("go",), num_annotated)
    with Journal(root / "journal") as journal:
        clips = check_clips(root, Listing((candidate,), ()), VIDEO, 1, journal)
    for problem in (*clips.bad, *clips.too_short):
        raise problem
    return clips.kept[0]


def test_check_clip_measures_a_sound_clip(tmp_path: Path):
    path = write_clip(tmp_path / "a.mp4", frames=17, height=64, width=96, fps=12.5)

    clip = check(tmp_path, path, state=17)

    assert clip == Clip(
        "train/a", "train", "a.mp4", ("go",), 17, 12.5, 64, 96, (0, 4, 8), sha256_of_file(path)
    )


def test_check_clip_accepts_rounded_timestamps(tmp_path: Path):
    times = [round(index * 1000 / 30) for index in range(12)]  # 33 and 34 ms by turns

    clip = check(tmp_path, write_clip_with_times(tmp_path / "a.mp4", times, 1000))

    assert clip.fps == pytest.approx(30, abs=0.1)


def test_check_clip_reports_missing_video(tmp_path: Path):
    message = r"annotation/a\.json: its video gone\.mp4 does not exist; add the video or remove"
    with pytest.raises(BadClip, match=message):
        check(tmp_path, tmp_path / "gone.mp4")


def test_check_clip_reports_zero_length_video(tmp_path: Path):
    (tmp_path / "empty.mp4").touch()

    with pytest.raises(BadClip, match=r"empty\.mp4: 0 bytes; copy or fetch it again if it is cut"):
        check(tmp_path, tmp_path / "empty.mp4")


@pytest.mark.parametrize("content", [b"this is no video " * 40, None])
def test_check_clip_reports_broken_video(tmp_path: Path, content):
    path = write_clip(tmp_path / "broken.mp4")
    path.write_bytes(path.read_bytes()[:300] if content is None else content)

    with pytest.raises(
        BadClip, match=r"^broken\.mp4: .+; copy or fetch it again if it is cut"
    ) as caught:
        check(tmp_path, path)

    assert caught.value.reason == "video_unreadable"


def test_check_clip_reports_truncated_video(tmp_path: Path):
    path = write_clip(tmp_path / "cut.mp4", height=64, width=96)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 3 // 4])

    message = (
        r"cut\.mp4: Invalid data .* after \d+ of 17 frames; copy or fetch it again if it is cut"
    )
    with pytest.raises(BadClip, match=message):
        check(tmp_path, path)


def test_check_clip_reports_damage_that_decoders_conceal(tmp_path: Path):
    path = write_clip(tmp_path / "dirty.mp4", height=128, width=160)
    content = bytearray(path.read_bytes())
    middle = content.find(b"mdat") + 1000
    content[middle : middle + 30] = np.random.default_rng(0).bytes(30)
    path.write_bytes(bytes(content))

    with pytest.raises(
        BadClip, match=r"dirty\.mp4: frame \d+ is damaged; copy or fetch it again if it is cut"
    ):
        check(tmp_path, path)


@pytest.mark.parametrize("cut", [300, -1500])
def test_check_clip_does_not_blame_a_clip_that_the_volume_does_not_give(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut: int
):
    path = write_clip(tmp_path / "gone.mp4", height=64, width=96)
    path.write_bytes(path.read_bytes()[:cut])

    with monkeypatch.context() as patch:
        fail_reads_of(patch, path)
        with pytest.raises(OSError, match=r"Input/output error: '.*gone\.mp4'") as caught:
            check(tmp_path, path)
    assert caught.value.errno == errno.EIO
    assert len(Journal(tmp_path / "journal")) == 0

    with pytest.raises(BadClip):
        check(tmp_path, path)
    assert len(Journal(tmp_path / "journal")) == 1


def test_check_clip_reports_variable_frame_rate(tmp_path: Path):
    path = write_clip_with_times(tmp_path / "vfr.mp4", [0, 10, 20, 30, 60, 70, 80, 90, 100, 110])

    message = (
        r"vfr\.mp4: variable frame rate: frame 3 lasts 0\.3 s, others 0\.1 s; take frames at "
        r"equal intervals \(dataset\.frameRate: Resample, which needs video\.fps\), re-encode it at a con"
    )
    with pytest.raises(BadClip, match=message):
        check(tmp_path, path)


def test_check_clip_reports_states_that_do_not_match(tmp_path: Path):
    path = write_clip(tmp_path / "a.mp4", frames=17)

    message = r"annotation/a\.json: state has 20 entries, a\.mp4 has 17 frames; make annotation and"
    with pytest.raises(BadClip, match=message):
        check(tmp_path, path, state=20)


def test_check_clip_tells_short_clips_apart(tmp_path: Path):
    path = write_clip(tmp_path / "a.mp4", frames=8)

    with pytest.raises(BadClip, match=r"8 frames, one window takes 9; lower .*num_pixel") as caught:
        check(tmp_path, path)

    assert caught.value.reason == "too_short"


def test_decode_fully_accepts_a_single_frame(tmp_path: Path):
    facts = decode_fully(write_clip(tmp_path / "a.mp4", frames=1), "a.mp4")

    assert facts.num_frames == 1
    assert constant_rate(facts.timeline, range(1), "a.mp4") == 10


def test_check_clips_sorts_outcomes_in_the_order_of_the_dataset(tmp_path: Path):
    write_bridge_dataset(tmp_path, train=3, val=1)
    add_bridge_clip(tmp_path, "short", frames=5)
    add_bridge_clip(tmp_path, "wrong", state=[[0.0] * 6])
    add_bridge_clip(tmp_path, "silent", texts=[""])

    with Journal(tmp_path / "journal") as journal:
        clips = check_clips(tmp_path, list_bridge(tmp_path, 0), VIDEO, 3, journal)

    ids = [clip.clip_id for clip in clips.kept]
    assert ids == ["train/train0", "train/train1", "train/train2", "val/val0"]
    assert [problem.reason for problem in clips.bad] == ["caption_empty", "annotation_mismatch"]
    assert [problem.file for problem in clips.too_short] == ["videos/train/short/rgb.mp4"]
    assert clips.num_clips == 7


def test_clips_of_one_file_are_told_apart(tmp_path: Path):
    write_clip(tmp_path / "a.mp4", 17)
    parts = [("short", 0.0, 0.5), ("kept", 0.5, None), ("outside", 0.0, 9.0)]
    clips = [
        Candidate(f"train/{name}", "train", "list:1", "a.mp4", ("go",), start_s=start, end_s=end)
        for name, start, end in parts
    ]

    with Journal(tmp_path / "journal") as journal:
        found = check_clips(tmp_path, Listing(tuple(clips), ()), VIDEO, 1, journal)

    assert [clip.clip_id for clip in found.kept] == ["train/kept"]
    assert [(one.file, one.value) for one in found.too_short] == [
        ("a.mp4", "train/short: 5 frames, one window takes 9")
    ]
    assert [one.file for one in found.bad] == ["list:1"]
