"""Measure speed and correctness of video readers that read windows at random places.

Run ``.venv/bin/python benchmarks/seeking_windows.py [--frames 600] [--windows 40]``. It writes clips whose
frames carry their number in the picture and reads the same random windows with our reader, and with decord2 and
torchcodec where they are installed. It prints how many are the true frames to the last bit, and how long one takes as
a multiple of our time.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import av
import numpy as np

from cosmos_worker.data.video.facts import decode_fully
from cosmos_worker.data.video.files import (
    Frames,
    open_video,
)

HEIGHT, WIDTH, FPS, WINDOW = 256, 320, 30, 57
BITS, CELL = 10, 32
KINDS = {
    "H.264, default GOP of 250": ("libx264", {}, 250),
    "H.264, open GOP of 30": ("libx264", {"x264-params": "open-gop=1:bframes=3"}, 30),
    "H.264, intra refresh": ("libx264", {"x264-params": "intra-refresh=1:bframes=0"}, 30),
    "HEVC, GOP of 2 (LeRobot)": ("libx265", {"x265-params": "log-level=error"}, 2),
    "HEVC, open GOP of 30": ("libx265", {"x265-params": "log-level=error:open-gop=1"}, 30),
    "AV1, GOP of 2 (LeRobot)": ("libsvtav1", {"preset": "10"}, 2),
    "VP9": ("libvpx-vp9", {"cpu-used": "8"}, 128),
}
Read = Callable[[Sequence[int]], Frames]


def picture(number: int) -> Frames:
    """A moving texture with its number as bits at the top."""
    noise = np.random.default_rng(7).integers(40, 216, (HEIGHT // 8, WIDTH // 8, 3), dtype=np.uint8)
    image = np.kron(noise, np.ones((8, 8, 1), np.uint8))
    image = np.roll(image, (number, 2 * number), axis=(0, 1))
    for bit in range(BITS):
        image[:CELL, bit * CELL : (bit + 1) * CELL] = 235 if number >> bit & 1 else 20
    return image


def write(path: Path, codec: str, options: dict[str, str], gop: int, num_frames: int) -> None:
    """An MP4 of numbered frames."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=FPS, options=options)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.gop_size = gop
        for number in range(num_frames):
            frame = av.VideoFrame.from_ndarray(picture(number), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def open_ours(path: Path) -> Read:
    """Our reader with the entry points that the check has proven."""
    entry_points = decode_fully(path, path.name).entry_points
    return lambda numbers: open_video(path, entry_points).get(numbers)


def open_from_start(path: Path) -> Read:
    """Our reader without entry points: decodes from the start."""
    return lambda numbers: open_video(path).get(numbers)


def open_decord(path: Path) -> Read:
    """Reader of decord2, opened for each window as ours is."""
    import decord

    def read(numbers: Sequence[int]) -> Frames:
        reader = decord.VideoReader(str(path), ctx=decord.cpu(0), num_threads=1)
        return reader.get_batch(list(numbers)).asnumpy()

    return read


def open_torchcodec(path: Path) -> Read:
    """Reader of torchcodec in its exact mode, opened for each window as ours is."""
    from torchcodec.decoders import VideoDecoder

    def read(numbers: Sequence[int]) -> Frames:
        decoder = VideoDecoder(str(path), dimension_order="NHWC", num_ffmpeg_threads=1)
        return decoder.get_frames_at(list(numbers)).data.numpy()

    return read


READERS: dict[str, Callable[[Path], Read]] = {
    "ours": open_ours,
    "from the start": open_from_start,
    "decord": open_decord,
    "torchcodec": open_torchcodec,
}


def find_readers(folder: Path) -> dict[str, Callable[[Path], Read]]:
    """The readers that are installed and can read a clip."""
    path, found = folder / "trial.mp4", {}
    write(path, "libx264", {}, 12, WINDOW)
    for name, opened in READERS.items():
        try:
            opened(path)(range(WINDOW))
        except (ImportError, OSError, RuntimeError) as error:
            print(f"{name}: {type(error).__name__}: {str(error).splitlines()[0]}")
        else:
            found[name] = opened
    return found


def measure(read: Read, starts: Sequence[int], truth: Frames) -> tuple[int, float]:
    """Number of windows that are right, and seconds per window."""
    right, seconds = 0, 0.0
    for start in starts:
        began = time.perf_counter()
        frames = read(range(start, start + WINDOW))
        seconds += time.perf_counter() - began
        right += np.array_equal(frames, truth[start : start + WINDOW])
    return right, seconds / len(starts)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--frames", type=int, default=600, help="frames of a clip, 57 or more (default 600)"
    )
    parser.add_argument(
        "--windows", type=int, default=40, help="random windows of each clip (default 40)"
    )
    options = parser.parse_args()
    choose = random.Random(0)
    starts = [choose.randrange(options.frames - WINDOW + 1) for _ in range(options.windows)]
    with tempfile.TemporaryDirectory() as folder:
        readers = find_readers(Path(folder))
        print("| clip |", *(f"{name}: right, time |" for name in readers))
        print("|---|", *("---|" for _ in readers))
        for kind, (codec, arguments, gop) in KINDS.items():
            path = Path(folder) / "clip.mp4"
            write(path, codec, arguments, gop, options.frames)
            with av.open(str(path)) as container:
                stream = container.streams.video[0]
                truth = np.stack(
                    [one.to_ndarray(format="rgb24") for one in container.decode(stream)]
                )
            cells, ours = [], 0.0
            for opened in readers.values():
                right, seconds = measure(opened(path), starts, truth)
                ours = ours or seconds
                cells.append(
                    f"{right}/{len(starts)}, {seconds / ours:.2f}x ({seconds * 1e3:.0f} ms) |"
                )
            print(f"| {kind} |", *cells, flush=True)


if __name__ == "__main__":
    main()
