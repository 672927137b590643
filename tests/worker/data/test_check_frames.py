"""Checking clips that share a file or are resampled, and the notes about files that are read in a special way."""

import os
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.bitstream import BitStreamFilterContext
from support.clips import write_clip, write_clip_with_times
from support.numbered_videos import Kind, add_video, encode, number_of, stream_copy, write_numbered

from cosmos_worker.config.choices import FrameRate
from cosmos_worker.config.network import VideoConfig
from cosmos_worker.data import check
from cosmos_worker.data.check import CheckedClips, check_clips
from cosmos_worker.data.index import Clip
from cosmos_worker.data.journal import Journal
from cosmos_worker.data.layouts.candidate import (
    Candidate,
    Listing,
)
from cosmos_worker.data.problems import BadClip
from cosmos_worker.data.video.files import (
    open_video,
    read_video,
    read_window,
)
from cosmos_worker.errors import DataError

VIDEO = VideoConfig(num_pixel_frames=9, height=32, width=48, fps=10, window_stride=4)


def run(
    root: Path, *candidates: Candidate, frame_rate: FrameRate = "constant", buckets: tuple = ()
) -> CheckedClips:
    with Journal(root / "journal") as journal:
        return check_clips(
            root, Listing(candidates, ()), VIDEO, 2, journal, buckets, frame_rate
        )  # fmt: skip


def candidate(video: str, number: int = 0, **fields) -> Candidate:
    return Candidate(f"train/{number}", "train", "meta.json", video, ("go",), **fields)


def one(clips: CheckedClips) -> Clip:
    assert (clips.bad, clips.too_short) == ((), ())
    (clip,) = clips.kept
    return clip


def problem(root: Path, video: str, **fields) -> BadClip:
    (found,) = run(root, candidate(video, **fields)).bad
    return found


# --- parts of files --------------------------------------------------------------------------


def test_clips_that_share_a_file_are_parts_of_it_and_it_is_decoded_once(
    tmp_path: Path, monkeypatch
):
    write_clip(tmp_path / "all.mp4", frames=60, fps=10)
    decoded, decode = [], check.decode_fully
    monkeypatch.setattr(check, "decode_fully", lambda *file: decoded.append(file) or decode(*file))
    parts = [(0.0, 2.0), (2.0, 3.5), (3.5, 6.0), (2.0, 2.5), (5.0, 6.5)]

    clips = run(
        tmp_path,
        *(
            candidate("all.mp4", n, start_s=start, end_s=end)
            for n, (start, end) in enumerate(parts)
        ),
        candidate("all.mp4", 9),
    )

    assert decoded == [(tmp_path / "all.mp4", "all.mp4")]
    assert [(clip.first_frame, clip.num_frames, clip.window_starts) for clip in clips.kept] == [
        (0, 20, (0, 4, 8)), (20, 15, (0, 4)), (35, 25, (0, 4, 8, 12, 16)), (0, 60, tuple(range(0, 52, 4))),
    ]  # fmt: skip
    assert {clip.fps for clip in clips.kept} == {10.0}
    assert [found.value[:18] for found in clips.too_short] == ["train/3: 5 frames,"]
    (outside,) = clips.bad
    assert str(outside) == (
        "meta.json: the clip is 5 to 6.5 s of all.mp4, which has 60 frames in 6 s; correct the times or remove the clip"
    )


def test_a_part_agrees_with_its_annotation(tmp_path: Path):
    write_clip(tmp_path / "all.mp4", frames=40, fps=10)

    clip = one(
        run(tmp_path, candidate("all.mp4", start_s=1.0, end_s=2.5, num_annotated={"state": 15}))
    )
    assert (clip.first_frame, clip.num_frames) == (10, 15)

    found = problem(tmp_path, "all.mp4", start_s=1.0, end_s=2.5, num_annotated={"state": 40})
    assert found.reason == "annotation_mismatch"


def test_clips_of_a_broken_file_are_all_bad(tmp_path: Path):
    (tmp_path / "all.mp4").write_bytes(b"no video" * 50)

    clips = run(tmp_path, *(candidate("all.mp4", n, start_s=n, end_s=n + 1.0) for n in range(3)))

    assert [found.reason for found in clips.bad] == ["video_unreadable"] * 3


@pytest.mark.parametrize(("length", "is_kept"), [(16, False), (17, True), (18, True), (19, False)])
def test_one_state_more_than_frames_is_the_state_after_the_last(tmp_path: Path, length, is_kept):
    write_clip(tmp_path / "a.mp4", frames=17)

    clips = run(tmp_path, candidate("a.mp4", num_annotated={"state": length}))

    assert bool(clips.kept) is is_kept
    assert [found.reason for found in clips.bad] == [] if is_kept else ["annotation_mismatch"]


# --- frame rates -----------------------------------------------------------------------------


def test_a_dropped_frame_needs_resampling(tmp_path: Path):
    times = [number * 10 for number in range(20) if number != 7]
    write_clip_with_times(tmp_path / "drop.mp4", times)

    assert problem(tmp_path, "drop.mp4").reason == "variable_frame_rate"
    clip = one(run(tmp_path, candidate("drop.mp4"), frame_rate="resample"))
    assert (clip.num_frames, clip.fps, clip.first_frame) == (20, 10.0, 0)
    assert clip.frame_numbers == (*range(7), *range(6, 19))
    assert list(clip.frames_in_file(5, 4)) == [5, 6, 6, 7]


def test_resampling_a_part_of_a_file(tmp_path: Path):
    times = [number * 10 for number in range(40) if number != 7]
    write_clip_with_times(tmp_path / "drop.mp4", times)

    clip = one(run(tmp_path, candidate("drop.mp4", start_s=1.0, end_s=3.0), frame_rate="resample"))

    assert (clip.num_frames, clip.first_frame, clip.frame_numbers) == (20, 9, None)


def test_resampling_follows_the_rate_of_the_bucket(tmp_path: Path):
    write_clip(tmp_path / "a.mp4", frames=40, fps=20, height=32, width=64)
    slow = VideoConfig(num_pixel_frames=17, height=32, width=64, fps=5)
    fast = VideoConfig(num_pixel_frames=17, height=32, width=32, fps=10)

    clip = one(run(tmp_path, candidate("a.mp4"), frame_rate="resample", buckets=(slow, fast)))

    assert (clip.bucket, clip.num_frames, clip.fps) == ("17x32x32", 20, 10.0)  # slow: 10 frames
    assert clip.frame_numbers == tuple(range(0, 40, 2))


# --- what is told, what is refused -----------------------------------------------------------


def test_a_file_that_lacks_frames_is_refused(tmp_path: Path):
    kind = Kind("libx265", options={"x265-params": "log-level=error:bframes=3:b-adapt=0"}, gop=40)
    whole = write_numbered(tmp_path / "whole.mp4", kind)
    stream_copy(whole, tmp_path / "cut.mp4", 0, left_out=(20,))  # others are made from it

    found = problem(tmp_path, "cut.mp4")

    assert found.reason == "frame_count"
    assert "frames can be decoded, the file claims 39" in str(found)


def test_a_cut_begins_after_frames_that_lack_those_before_them(tmp_path: Path):
    kind = Kind(
        "libx265", options={"x265-params": "log-level=error:bframes=3:open-gop=1:scenecut=0"}
    )
    whole = write_numbered(tmp_path / "whole.mp4", kind)
    stream_copy(whole, tmp_path / "cut.mp4", 22, key_frame=24)
    shown = [number_of(frame) for frame in read_video(tmp_path / "cut.mp4")]
    assert shown == [*range(24, 40)]

    clips = run(tmp_path, candidate("cut.mp4"))

    assert one(clips).num_frames == 16
    note = "begins with 2 frames that need others before them, as a cut leaves them; players do not show them"
    assert clips.notes == (("cut.mp4", note),)


def test_a_cut_ends_before_frames_that_lack_their_neighbours(tmp_path: Path):
    kind = Kind("libx264", options={"x264-params": "bframes=3:b-adapt=0:b-pyramid=none"})
    whole = write_numbered(tmp_path / "whole.mp4", kind)
    # The last frame that the cut keeps is the anchor of three that it leaves out.
    stream_copy(whole, tmp_path / "cut.mp4", 6, 30, left_out=(26, 27, 28))
    assert [number_of(frame) for frame in read_video(tmp_path / "cut.mp4")] == [*range(6, 26), 29]

    clips = run(tmp_path, candidate("cut.mp4"))

    assert (one(clips).num_frames, one(clips).fps) == (20, 30.0)
    note = "ends with 1 frame after a gap, as a cut leaves it; left out where the rate is constant"
    assert clips.notes == (("cut.mp4", note),)
    all_frames = VIDEO.model_copy(update={"fps": 30.0})
    sampled = run(tmp_path, candidate("cut.mp4"), frame_rate="resample", buckets=(all_frames,))
    assert one(sampled).frame_numbers == (*range(20), 19, 19, 19, 20)  # what players show


def test_a_clip_that_lies_after_the_gap_at_the_end_of_a_cut_costs_itself(tmp_path: Path):
    times = [*range(0, 200, 10), 240, 250]
    write_clip_with_times(tmp_path / "cut.mp4", times)
    last = candidate("cut.mp4", 1, start_s=2.4)

    clips = run(tmp_path, candidate("cut.mp4"), last, candidate("cut.mp4", 2, start_s=2.5))

    assert [clip.num_frames for clip in clips.kept] == [20]
    assert [bad.reason for bad in clips.bad] == ["clip_outside"] * 2
    assert (
        "meta.json: the clip has none but the last frames of cut.mp4, 2 after a gap, as a cut leaves them, and these "
        "are left out where the rate is constant; correct the times or remove the clip"
    ) in str(clips.bad[0])
    sampled = run(tmp_path, last, frame_rate="resample")
    assert [bad.reason for bad in (*sampled.bad, *sampled.too_short)] == ["too_short"]


@pytest.mark.parametrize(("transfer", "name"), [(16, "PQ"), (18, "HLG")])
def test_high_dynamic_range_is_refused(tmp_path: Path, transfer: int, name: str):
    path, kind = tmp_path / "hdr.mp4", Kind("libx265", options={"x265-params": "log-level=error"})
    with av.open(str(path), "w") as file:
        stream = add_video(file, kind, 30)
        stream.codec_context.color_trc = transfer
        for packet in encode(stream, kind, range(12), 30):
            file.mux(packet)

    found = problem(tmp_path, "hdr.mp4")

    assert found.reason == "high_dynamic_range"
    assert f"hdr.mp4: high dynamic range ({name}), which cannot be shown" in str(found)
    assert "tonemap" in str(found)
    with pytest.raises(DataError, match=rf"hdr\.mp4: .*high dynamic range \({name}\)"):
        open_video(path)


def test_notes_tell_what_is_lost(tmp_path: Path):
    path, kind = tmp_path / "clear.mov", Kind("qtrle", "mov", pix_fmt="argb")
    with av.open(str(path), "w") as file:
        stream = add_video(file, kind, 30)
        stream.sample_aspect_ratio = Fraction(4, 3)
        for packet in encode(stream, kind, range(12), 30):
            file.mux(packet)
    interlaced = Kind("mpeg2video", options={"flags": "+ildct", "top": "1"})
    write_numbered(tmp_path / "fields.mp4", interlaced)

    clips = run(tmp_path, candidate("clear.mov", 0), candidate("fields.mp4", 1))

    assert clips.notes == (
        ("clear.mov", "pixels of 4:3 are taken as square"),
        ("clear.mov", "transparent, its alpha channel is ignored"),
        (
            "fields.mp4",
            "interlaced, both fields stay in one frame (ffmpeg -vf yadif separates them)",
        ),
    )


def test_an_odd_turn_is_refused(tmp_path: Path):
    write_numbered(tmp_path / "askew.mp4", Kind("libx264", turn=(30, False, False)))

    assert "its display matrix (0.866, -0.5, 0.5, 0.866) is no turn by 90" in str(
        problem(tmp_path, "askew.mp4")
    )


@pytest.mark.parametrize("kind", [Kind("libx264"), Kind("libx264", turn=(90, False, False))])
def test_a_turn_that_changes_within_a_file_is_refused(tmp_path: Path, kind: Kind):
    whole, path = write_numbered(tmp_path / "whole.mp4", kind), tmp_path / "turns.mp4"
    with av.open(str(whole)) as old, av.open(str(path), "w") as new:
        source = old.streams.video[0]
        stream = new.add_stream_from_template(source)
        # In H.264 itself, and with its first frame only.
        orientation = f"h264_metadata=display_orientation=insert:rotate={180 + kind.turn[0]}"
        turned = BitStreamFilterContext(orientation, source, stream)
        for packet in old.demux(source):
            for changed in turned.filter(packet if packet.size else None):
                changed.stream = stream
                new.mux(changed)

    found = problem(tmp_path, "turns.mp4")

    assert found.reason == "video_unreadable"
    assert "frame 1 is to be turned otherwise than the first one" in str(found)
    for read in (read_video, lambda file: read_window(file, 3, 9, 32, 48)):
        with pytest.raises(DataError, match="turned otherwise than the first one"):
            read(path)


def test_a_display_matrix_that_was_never_written_turns_nothing(tmp_path: Path):
    path = write_numbered(tmp_path / "zeros.mp4", Kind("libx264"))
    content = bytearray(path.read_bytes())
    matrix = content.index(b"tkhd") + 44
    assert content[matrix : matrix + 4] == b"\0\1\0\0"
    content[matrix : matrix + 36] = bytes(36)
    path.write_bytes(content)

    assert one(run(tmp_path, candidate("zeros.mp4"))).num_frames == 40
    assert [number_of(frame) for frame in read_video(path)] == [*range(40)]


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to(path)])
def test_what_is_no_file_is_a_bad_clip(tmp_path: Path, make):
    make(tmp_path / "odd.mp4")

    assert problem(tmp_path, "odd.mp4").reason == "video_missing"


@pytest.mark.parametrize("name", ["x" * 300 + ".mp4", "\0.mp4", "a.mp4/b.mp4"])
def test_a_name_that_no_file_has_is_a_bad_clip(tmp_path: Path, name: str):
    write_clip(tmp_path / "a.mp4")

    assert problem(tmp_path, name).reason == "video_missing"


def test_names_with_colons_and_patterns_are_files(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(("http:a.mp4", "a%03d.mp4", "concat:b.mp4", "[c].mp4")):
        write_clip(tmp_path / name)
        assert one(run(Path(), candidate(name, number))).num_frames == 17


def test_a_list_of_other_files_is_no_video(tmp_path: Path):
    write_clip(tmp_path / "secret.ts.mp4")
    text = "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nsecret.ts.mp4\n#EXT-X-ENDLIST\n"
    (tmp_path / "list.mp4").write_text(text)
    (tmp_path / "concat.mp4").write_text("ffconcat version 1.0\nfile secret.ts.mp4\n")

    for name in ("list.mp4", "concat.mp4"):
        assert problem(tmp_path, name).reason == "video_unreadable"


def test_a_title_in_another_encoding_does_no_harm(tmp_path: Path):
    path = tmp_path / "title.mp4"
    with av.open(str(path), "w", format="mp4") as file:
        kind = Kind("libx264")
        stream = add_video(file, kind, 30)
        file.metadata["title"] = "Caf?"
        for packet in encode(stream, kind, range(12), 30):
            file.mux(packet)
    path.write_bytes(path.read_bytes().replace(b"Caf?", b"Caf\xe9"))

    assert one(run(tmp_path, candidate("title.mp4"))).num_frames == 12


def test_an_unknown_codec_is_told(tmp_path: Path):
    path = write_clip(tmp_path / "codec.mp4")
    path.write_bytes(path.read_bytes().replace(b"avc1\0\0", b"xyzw\0\0"))

    assert "codec.mp4: its codec is unknown; copy or fetch it again if it is cut" in str(
        problem(tmp_path, "codec.mp4")
    )


@pytest.mark.parametrize("container", ["mp4", "matroska", "mpegts"])
def test_damaged_files_cost_one_clip_each(tmp_path: Path, container: str):
    content = write_numbered(tmp_path / "whole", Kind("libx264", container)).read_bytes()
    random = np.random.default_rng(5)
    candidates = []
    for number in range(60):
        damaged, name = bytearray(content), f"{number}.mp4"
        for place in random.integers(0, len(content), 1 + number % 5):
            damaged[place : place + 4] = random.bytes(4)
        (tmp_path / name).write_bytes(
            damaged[: random.integers(1, len(content))] if number % 3 else damaged
        )
        candidates.append(candidate(name, number))

    clips = run(tmp_path, *candidates)

    assert clips.num_clips == 60
    assert all("\n" not in str(found) and len(str(found)) < 400 for found in clips.bad)
    for clip in clips.kept:
        assert (
            read_window(tmp_path / clip.video, 0, clip.num_frames, 32, 48).shape[0]
            == clip.num_frames
        )
