from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.random import default_rng
from support.generation import moving_square

from cosmos_worker.errors import DataError
from cosmos_worker.sample.kept_passes import (
    read_lossless,
    write_lossless,
)


@pytest.mark.parametrize("size", [(3, 32, 64), (1, 16, 16), (2, 34, 66)])
def test_every_pixel_comes_back(tmp_path: Path, size: tuple[int, int, int]) -> None:
    frames = default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)

    write_lossless(tmp_path / "a.mkv", frames, 24.0, {"seconds": 1.5})

    again, note = read_lossless(tmp_path / "a.mkv")
    assert again.dtype == np.uint8
    assert np.array_equal(again, frames)
    assert note == {"seconds": 1.5}
    assert [path.name for path in tmp_path.iterdir()] == ["a.mkv"]


def test_frames_take_less_than_their_pixels(tmp_path: Path) -> None:
    frames = moving_square(num_frames=17, height=128, width=160)

    write_lossless(tmp_path / "a.mkv", frames, 10.0, {})

    assert (tmp_path / "a.mkv").stat().st_size < frames.nbytes / 4


def damage(content: bytes, how: str) -> bytes:
    middle = len(content) // 2
    changed = {
        "cut off": content[:middle],
        "one byte": content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :],
        "empty": b"",
        "text": b"no video",
    }
    return changed[how]


@pytest.mark.parametrize("how", ["cut off", "one byte", "empty", "text"])
def test_damage_is_seen(tmp_path: Path, how: str) -> None:
    path = tmp_path / "a.mkv"
    write_lossless(path, moving_square(), 4.0, {})
    path.write_bytes(damage(path.read_bytes(), how))

    with pytest.raises(DataError, match=r"a\.mkv: damaged"):
        read_lossless(path)


def test_another_matroska_file_is_refused(tmp_path: Path) -> None:
    import av

    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=4)
        stream.height, stream.width, stream.pix_fmt = 32, 64, "bgr0"
        for frame in moving_square():
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            container.mux(stream.encode(picture.reformat(format="bgr0")))
        container.mux(stream.encode(None))

    with pytest.raises(DataError, match="damaged"):
        read_lossless(path)
