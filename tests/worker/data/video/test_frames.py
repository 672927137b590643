"""Every reader of videos sees the frames that players show: codecs, containers, turns, cuts, every start frame."""

import json
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from support.clips import write_clip
from support.numbered_videos import (
    NUM_FRAMES,
    Kind,
    add_video,
    encode,
    number_of,
    stream_copy,
    true_frames,
    write_numbered,
)

from cosmos_worker.config.network import TokenizerConfig, VideoConfig
from cosmos_worker.config.sampling import SamplingConfig
from cosmos_worker.config.stages import CacheLatentsConfig
from cosmos_worker.data import check
from cosmos_worker.data.index import DatasetIndex, write_index
from cosmos_worker.data.journal import Journal
from cosmos_worker.data.layouts.candidate import (
    Candidate,
    Listing,
)
from cosmos_worker.data.video.decoding import Decoder
from cosmos_worker.data.video.entry_points import (
    checksum,
    numbered_frames,
    prove_entry_points,
)
from cosmos_worker.data.video.facts import decode_fully
from cosmos_worker.data.video.files import (
    open_video,
    read_video,
    read_window,
)
from cosmos_worker.data.video.fit import resize_frames
from cosmos_worker.data.windows import Means, decode_ahead
from cosmos_worker.sample.conditioning import read_known_frames
from cosmos_worker.sample.inputs import SampleInput
from cosmos_worker.stages import cache_latents
from cosmos_worker.storage.volumes import (
    SUMMARY_FILE,
    VIDEO_READER_VERSION,
    Volumes,
    write_json,
)
from cosmos_worker.tokenizer.latents import LatentStore
from cosmos_worker.tokenizer.load import load_tokenizer
from cosmos_worker.tokenizer.tokenizer import video_from_pixels

VIDEO = VideoConfig(num_pixel_frames=9, height=32, width=32)
MIN_FRAMES, SPACING = 10, 6
"""Entry points are looked for in files as short as these, and as close to each other as this."""

X265 = "log-level=error"
B_FRAMES, BITRATE = {"bf": "2", "b": "4M"}, {"b": "4M"}
ALT_REF = {"auto-alt-ref": "1", "lag-in-frames": "16", "cpu-used": "8"}
FAST_AV1 = {"preset": "12"}
FRAGMENTS = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}
FRAGMENT_A_FRAME = {"movflags": "frag_every_frame+empty_moov"}
TURNS = [(d, h, v) for d in (0, 90, 180, 270) for h in (False, True) for v in (False, True)]

KINDS = {
    "h264": Kind("libx264", options={"bf": "3"}),
    "h264-open-gop": Kind(
        "libx264", options={"x264-params": "open-gop=1:bframes=3:b-adapt=0:scenecut=0"}
    ),
    "h264-intra-refresh": Kind("libx264", options={"x264-params": "intra-refresh=1:bframes=0"}),
    "h264-gop-2": Kind("libx264", gop=2),
    "h264-one-gop": Kind("libx264", gop=250),
    "h264-10-bit": Kind("libx264", pix_fmt="yuv420p10le"),
    "h264-444": Kind("libx264", pix_fmt="yuv444p"),
    "hevc": Kind("libx265", options={"x265-params": f"{X265}:open-gop=0"}),
    "hevc-open-gop": Kind("libx265", options={"x265-params": f"{X265}:bframes=3:open-gop=1"}),
    "hevc-intra-refresh": Kind("libx265", options={"x265-params": f"{X265}:intra-refresh=1"}),
    "hevc-gop-2": Kind("libx265", options={"x265-params": X265}, gop=2),
    "av1": Kind("libsvtav1", options=FAST_AV1),
    "av1-gop-2": Kind("libsvtav1", options=FAST_AV1, gop=2),
    "vp9": Kind("libvpx-vp9", options=ALT_REF),
    "mpeg2": Kind("mpeg2video", options=B_FRAMES),
    "mpeg4": Kind("mpeg4", options=B_FRAMES),
    "mjpeg": Kind("mjpeg", pix_fmt="yuvj420p"),
    "fragmented": Kind("libx264", mux=FRAGMENTS),
    "fragmented-hevc": Kind("libx265", options={"x265-params": X265}, mux=FRAGMENT_A_FRAME),
    "mkv": Kind("libx264", "matroska"),
    "mkv-mpeg2": Kind("mpeg2video", "matroska", options=B_FRAMES),
    "mov": Kind("libx264", "mov"),
    "mov-mjpeg": Kind("mjpeg", "mov", pix_fmt="yuvj420p"),
    "webm-vp9": Kind("libvpx-vp9", "webm", options=ALT_REF),
    "webm-av1": Kind("libsvtav1", "webm", options=FAST_AV1),
    "ts": Kind("libx264", "mpegts"),
    "ts-hevc": Kind("libx265", "mpegts", options={"x265-params": f"{X265}:open-gop=1"}),
    "ts-mpeg2": Kind("mpeg2video", "mpegts", options=B_FRAMES),
    "avi": Kind("mpeg4", "avi", options=BITRATE),
    "offset": Kind("libx264", start_s=Fraction(5)),
    "offset-mkv": Kind("libx264", "matroska", start_s=Fraction(5)),
    "offset-ts": Kind("libx264", "mpegts", start_s=Fraction(5)),
    **{f"turn-{d}-{h:d}{v:d}": Kind("libx264", turn=(d, h, v)) for d, h, v in TURNS[1:]},
    "turn-mov": Kind("libx265", "mov", options={"x265-params": X265}, turn=(90, False, False)),
    "turn-mkv": Kind("libx264", "matroska", turn=(270, False, False)),
}
CODECS = ("libx264", "libx265", "libsvtav1", "libvpx-vp9", "mpeg2video", "mpeg4", "mjpeg")
CUTS = {"cut-in-a-gop": (17, None), "cut-at-a-key-frame": (12, None), "cut-both-ends": (5, 31)}
"""First frame, and the one after the last, of stream-copied cuts."""
TWO_STREAMS = "two-streams"
"""Name of a file with two video streams, of which the second is the default and has the frames from 20 on."""


def write_two_streams(path: Path, container: str) -> Path:
    kind = Kind("libx264", container)
    with av.open(str(path), "w", format=container) as file:
        streams = [add_video(file, kind, 30), add_video(file, kind, 30)]
        streams[0].disposition = av.stream.Disposition(0)
        streams[1].disposition = av.stream.Disposition.default
        for stream, numbers in zip(streams, (range(12), range(20, 40)), strict=True):
            for packet in encode(stream, kind, numbers, 30):
                file.mux(packet)
    return path


def test_this_pyav_encodes_every_codec():
    assert [codec for codec in CODECS if Kind(codec).is_missing] == []


class Videos:
    """Video files, each written at its first use."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._truth: dict[str, np.ndarray] = {}

    def path(self, name: str) -> Path:
        path = self.folder / f"{name}.mp4"
        if path.exists():
            return path
        if name in CUTS:
            return stream_copy(self.path("h264"), path, *CUTS[name])
        if name == TWO_STREAMS:
            return write_two_streams(path, "mp4")
        return write_numbered(path, KINDS[name])

    def truth(self, name: str) -> np.ndarray:
        if name not in self._truth:
            number = 1 if name == TWO_STREAMS else 0
            found = true_frames(self.path(name), lambda streams: streams[number])
            self._truth[name] = np.stack(found)
        return self._truth[name]

    def facts(self, name: str):
        return decode_fully(self.path(name), f"{name}.mp4", MIN_FRAMES, SPACING)

    @property
    def names(self) -> list[str]:
        return [*KINDS, *CUTS, TWO_STREAMS]


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Videos:
    return Videos(tmp_path_factory.mktemp("videos"))


@pytest.mark.parametrize("name", [*KINDS, *CUTS])
def test_every_window_is_the_true_frames(videos: Videos, name: str):
    path, truth, facts = videos.path(name), videos.truth(name), videos.facts(name)
    first, last = CUTS.get(name, (0, None))

    assert [number_of(image) for image in truth] == [*range(first, last or NUM_FRAMES)]
    assert (facts.num_frames, facts.height, facts.width) == truth.shape[:3]
    for reader in (open_video(path), open_video(path, facts.entry_points)):
        assert (reader.num_frames, reader.height, reader.width) == truth.shape[:3]
        assert reader.fps == pytest.approx(30, abs=0.05)
        np.testing.assert_array_equal(list(reader.frames()), truth)
        for start in range(len(truth) - 8):
            np.testing.assert_array_equal(reader.get(range(start, start + 9)), truth[start:][:9])
    np.testing.assert_array_equal(reader.get([20, 3, 20, 0]), truth[[20, 3, 20, 0]])
    np.testing.assert_array_equal(read_video(path), truth)


def test_entry_points_are_found_where_decoding_can_begin(videos: Videos):
    found = {name: len(videos.facts(name).entry_points) for name in ("h264", "hevc-gop-2", "av1")}

    assert found == {"h264": 3, "hevc-gop-2": 6, "av1": 3}
    without_index = {name: len(videos.facts(name).entry_points) for name in ("fragmented", "ts")}
    assert min(without_index.values()) > 1
    assert videos.facts("h264-intra-refresh").entry_points == ()
    assert decode_fully(videos.path("h264"), "h264.mp4").entry_points == ()  # a short file


def test_a_file_that_cannot_be_entered_as_proven_is_decoded_whole(videos: Videos, caplog):
    (number, time), *_ = videos.facts("h264").entry_points
    reader = open_video(videos.path("h264"), [(number, time + 1)])

    got = reader.get(range(number, number + 9))

    np.testing.assert_array_equal(got, videos.truth("h264")[number:][:9])
    assert "not entered at frame" in caplog.text


def test_an_entry_point_that_gives_other_frames_is_not_believed(tmp_path: Path):
    """A container may call frames key frames that are none; decoders then begin with a grey picture."""
    path, kind = tmp_path / "lies.mp4", Kind("mpeg4", "matroska", options=BITRATE, gop=100)
    with av.open(str(path), "w", format="matroska") as container:
        for number, packet in enumerate(
            encode(add_video(container, kind, 30), kind, range(40), 30)
        ):
            packet.is_keyframe = number % 10 == 0
            container.mux(packet)
    frames, truth = list(numbered_frames(path)), np.stack(true_frames(path))
    lies = [(shown.number, shown.frame.pts) for shown in frames if shown.number in (10, 20, 30)]

    wrong = open_video(path, lies).get(range(12, 21))
    proven = prove_entry_points(path, lies, [checksum(shown) for shown in numbered_frames(path)])

    assert not np.array_equal(wrong, truth[12:21])
    assert proven == ()


def test_reading_begins_at_an_entry_point(videos: Videos, monkeypatch: pytest.MonkeyPatch):
    entries, decoded, frames = videos.facts("h264").entry_points, [], Decoder.frames

    def counted(self):
        for frame in frames(self):
            decoded.append(frame.pts)
            yield frame

    monkeypatch.setattr(Decoder, "frames", counted)
    next(numbered_frames(videos.path("h264"), entries[-1][0], entries))

    assert len(decoded) < 6  # leading frames of the key frame, at most


# --- which stream ----------------------------------------------------------------------------


@pytest.mark.parametrize("container", ["mp4", "matroska"])
def test_of_two_streams_the_default_one_is_read(tmp_path: Path, container: str):
    path = write_two_streams(tmp_path / "two.mp4", container)

    facts, frames = decode_fully(path, "two.mp4"), read_video(path)

    assert [number_of(frame) for frame in frames] == [*range(20, 40)]
    assert facts.num_frames == 20
    assert facts.notes == ("2 video streams, number 1 is read, which players show",)


def test_a_cover_picture_is_no_video(tmp_path: Path):
    path, kind, cover = tmp_path / "cover.mp4", Kind("libx264"), Kind("mjpeg", pix_fmt="yuvj420p")
    with av.open(str(path), "w", format="mp4") as file:
        streams = [add_video(file, cover, 30), add_video(file, kind, 30)]
        streams[0].disposition = av.stream.Disposition.attached_pic
        packets = [*encode(streams[0], cover, [63], 30), *encode(streams[1], kind, range(12), 30)]
        for packet in packets:
            file.mux(packet)

    assert [number_of(frame) for frame in read_video(path)] == [*range(12)]
    assert decode_fully(path, "cover.mp4").notes == ()


# --- who reads them --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def index(videos: Videos, tmp_path_factory) -> DatasetIndex:
    """A dataset of all kinds of videos, every window of them."""
    folder = tmp_path_factory.mktemp("index")
    candidates = tuple(
        Candidate(f"train/{name}", "train", name, videos.path(name).name, ("go",))
        for name in videos.names
    )
    with pytest.MonkeyPatch.context() as patch, Journal(folder / "journal") as journal:
        patch.setattr(check, "decode_fully", lambda path, name: videos.facts(path.stem))
        clips = check.check_clips(videos.folder, Listing(candidates, ()), VIDEO, 2, journal)
    assert (clips.bad, clips.too_short) == ((), ())
    assert sum(bool(clip.entry_points) for clip in clips.kept) > 30
    return DatasetIndex(videos.folder, clips.kept)


@pytest.mark.parametrize(("batch_size", "cpus"), [(1, 1), (7, 2)])
def test_training_reads_the_true_frames_however_they_are_batched(
    videos: Videos, index: DatasetIndex, batch_size: int, cpus: int
):
    windows = index.windows("train")
    batches = [windows[start : start + batch_size] for start in range(0, len(windows), batch_size)]
    small = {
        clip.clip_id: resize_frames(videos.truth(Path(clip.video).stem), 32, 32)
        for clip in index.clips
    }

    for batch, pixels in decode_ahead(index, batches, VIDEO, Means(cpus, 1 << 30)):
        for window, window_pixels in zip(batch, pixels.numpy(), strict=True):
            truth = small[window.clip_id][window.start : window.start + 9]
            np.testing.assert_array_equal(window_pixels, truth, err_msg=window.window_id)


@pytest.mark.parametrize("batch_size", [1, 6])
def test_cached_latents_are_those_of_the_true_frames(
    videos: Videos, index: DatasetIndex, tmp_path: Path, batch_size: int
):
    root = tmp_path / "index"
    digest = write_index(root, index.clips)
    facts = {"root": str(index.root), "index_sha256": digest, "video_reader": VIDEO_READER_VERSION}
    write_json(root / SUMMARY_FILE, facts)
    options = TokenizerConfig(chunk_pixel_frames=9, dtype="float32", batch_size=batch_size)
    config = CacheLatentsConfig(
        key="k", target_uri=str(tmp_path / "latents"), dataset_uri=str(root), tokenizer_uri="embedded",
        video=VIDEO, tokenizer=options,
    )  # fmt: skip

    cache_latents.run(config, Volumes())

    store, tokenizer = LatentStore(tmp_path / "latents"), load_tokenizer("embedded", options, "cpu")
    for clip in index.clips:
        truth = resize_frames(videos.truth(Path(clip.video).stem), 32, 32)
        for start in clip.window_starts:
            pixels = torch.from_numpy(truth[start : start + 9])[None]
            expected = tokenizer.encode(video_from_pixels(pixels))[0]
            assert torch.equal(store.get(f"{clip.clip_id}@{start}"), expected), (clip, start)


@pytest.mark.parametrize("name", [*KINDS, *CUTS, TWO_STREAMS])
def test_conditioning_and_metrics_read_the_true_frames(videos: Videos, name: str):
    path, truth = videos.path(name), videos.truth(name)
    size = {"height": truth.shape[1] // 16 * 16, "width": truth.shape[2] // 16 * 16}
    one = SampleInput("a", "go", path, None, "inputs.0")

    for which, expected in (("first", truth[:9]), ("last", truth[-9:])):
        sampling = SamplingConfig(
            num_pixel_frames=17, num_input_frames=9, input_frames=which, **size
        )
        known = read_known_frames(one, sampling)
        assert torch.equal(known, video_from_pixels(torch.from_numpy(expected)[None])[0])

    np.testing.assert_array_equal(read_window(path, 4, 9, *truth.shape[1:3]), truth[4:13])


def test_clips_of_the_examples_are_read_as_before(tmp_path: Path):
    path = write_clip(tmp_path / "a.mp4", frames=17, height=128, width=160)
    with av.open(str(path)) as container:
        expected = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]

    np.testing.assert_array_equal(read_video(path), expected)


def test_index_keeps_entry_points(tmp_path: Path, index: DatasetIndex):
    write_index(tmp_path, index.clips)

    lines = (tmp_path / "index.jsonl").read_text().splitlines()

    assert json.loads(lines[0])["entry_points"]
