"""data/video.py on real files."""

import errno
from pathlib import Path

import av
import numpy as np
import pytest
from support.clips import fail_reads_of, make_frames, write_clip

from cosmos_worker.data.video.files import (
    open_video,
    read_video,
    read_window,
    write_video,
)
from cosmos_worker.data.video.fit import resize_frames
from cosmos_worker.errors import DataError


def test_reader_returns_written_frames(tmp_path: Path):
    frames = make_frames(9, 64, 96)
    write_video(tmp_path / "a.mp4", frames, 10)

    reader = open_video(tmp_path / "a.mp4")

    assert (reader.num_frames, reader.height, reader.width, reader.fps) == (9, 64, 96, 10.0)
    got = reader.get([8, 0, 3])
    assert got.dtype == np.uint8
    # 3/255 on average: the square's edge falls between chroma samples of 4:2:0.
    assert np.abs(got.astype(int) - frames[[8, 0, 3]]).mean() < 3


def test_reader_rejects_frame_outside(tmp_path: Path):
    reader = open_video(write_clip(tmp_path / "a.mp4", frames=5, width=96))

    with pytest.raises(DataError, match=r"a\.mp4: frame 5 asked for, the video has 5"):
        reader.get([0, 5])


@pytest.mark.parametrize("width", [16, 24, 48, 72, 80, 90])
def test_read_video_accepts_any_even_width(tmp_path: Path, width):
    frames = read_video(write_clip(tmp_path / "a.mp4", 2, 32, width))

    assert frames.shape == (2, 32, width, 3)


@pytest.mark.parametrize("content", [b"", b"no video at all" * 50])
def test_reader_names_file_that_is_no_video(tmp_path: Path, content):
    path = tmp_path / "broken.mp4"
    path.write_bytes(content)

    with pytest.raises(DataError, match=r"broken\.mp4: .*(cannot be decoded|no video stream)"):
        open_video(path)


def test_reader_does_not_blame_a_file_that_the_volume_does_not_give(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "gone.mp4"
    path.write_bytes(b"no video at all" * 50)
    fail_reads_of(monkeypatch, path)

    with pytest.raises(OSError, match=r"Input/output error: '.*gone\.mp4'") as caught:
        open_video(path)

    assert caught.value.errno == errno.EIO


@pytest.mark.parametrize("content", [b"", b"no video at all" * 50])
def test_open_reader_does_not_blame_a_file_that_the_volume_no_longer_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content
):
    path = write_clip(tmp_path / "gone.mp4")
    reader = open_video(path)
    path.write_bytes(content or path.read_bytes()[:40] + bytes(4000))  # else without a stream
    fail_reads_of(monkeypatch, path)

    with pytest.raises(OSError, match=r"Input/output error: '.*gone\.mp4'"):
        reader.get([0])


def test_open_video_names_missing_file(tmp_path: Path):
    with pytest.raises(DataError, match=r"gone\.mp4: no such video file"):
        open_video(tmp_path / "gone.mp4")


def test_read_window_is_the_resized_part(tmp_path: Path):
    path = write_clip(tmp_path / "a.mp4", frames=12, height=64, width=96)

    window = read_window(path, start=2, num_frames=9, height=32, width=48)

    assert window.shape == (9, 32, 48, 3)
    expected = resize_frames(read_video(path)[2:11], 32, 48)
    np.testing.assert_array_equal(window, expected)


def test_read_window_rejects_window_past_the_end(tmp_path: Path):
    path = write_clip(tmp_path / "a.mp4", frames=12)

    with pytest.raises(DataError, match="frame 12 asked for, the video has 12"):
        read_window(path, start=4, num_frames=9, height=32, width=48)


def test_write_video_is_playable_and_leaves_nothing_else(tmp_path: Path):
    path = write_clip(tmp_path / "out" / "a.mp4", fps=12.5)

    assert list(path.parent.iterdir()) == [path]
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert stream.average_rate == 12.5
    content = path.read_bytes()
    assert content.find(b"moov") < content.find(b"mdat")


def test_write_video_gives_the_same_bytes_again(tmp_path: Path):
    first, second = write_clip(tmp_path / "a.mp4"), write_clip(tmp_path / "b.mp4")

    assert first.read_bytes() == second.read_bytes()


def test_write_video_gives_the_same_bytes_whatever_was_decoded_before(tmp_path: Path):
    steps = np.random.default_rng(0).integers(-127, 128, (17, 32, 32, 3))
    frames = (steps.cumsum(axis=0) / 8 + 127).clip(0, 255).astype(np.uint8)
    path, contents = tmp_path / "a.mp4", set()
    for _ in range(100):  # x264's AVX-512 code gave at least three kinds of files within a hundred
        write_video(path, frames, 10)
        contents.add(path.read_bytes())
        read_video(path)

    assert len(contents) == 1


@pytest.mark.parametrize(
    ("frames", "fps", "message"),
    [
        (np.zeros((1, 16, 16, 3), np.float32), 10, r"give uint8 \(T, H, W, 3\)"),
        (np.zeros((0, 16, 16, 3), np.uint8), 10, "T > 0"),
        (np.zeros((1, 15, 16, 3), np.uint8), 10, "15x16 at 10 fps; H.264 needs even sizes"),
        (np.zeros((1, 16, 16, 3), np.uint8), 0, "fps > 0"),
    ],
)
def test_write_video_rejects_what_it_cannot_write(tmp_path: Path, frames, fps, message):
    with pytest.raises(ValueError, match=message):
        write_video(tmp_path / "a.mp4", frames, fps)

    assert not list(tmp_path.iterdir())
