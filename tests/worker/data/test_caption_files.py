"""data/caption_files.py: the reference's pickles belong to captions as prepare-dataset reads them."""

import json
import logging
from pathlib import Path

import pytest

from cosmos_worker.data.captions import find_caption_files


def write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def test_find_caption_files_knows_both_layouts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name, caption in (("train/1", "push left\n"), ("val/in/2", "cafe\u0301\r\n")):
        write(tmp_path / f"annotation/{name}.json", json.dumps({"texts": [caption]}).encode())
    write(tmp_path / "annotation/val/3.json", b"{")
    (tmp_path / "annotation/val/4.json").mkdir()
    write(tmp_path / "annotation/val/5.json", b"[" * 100_000)
    write(tmp_path / "metas/in/clip.txt", "\ufeff a robot \r\n".encode())
    write(tmp_path / "metas/latin.txt", b"caf\xe9")

    with caplog.at_level(logging.WARNING):
        entries = list(find_caption_files(tmp_path))

    assert [(entry.caption, entry.pickle.as_posix()) for entry in entries] == [
        ("push left", "annotation/train/1.pickle"),
        ("caf\u00e9", "annotation/val/in/2.pickle"),
        ("a robot", "t5_xxl/in/clip.pickle"),
    ]
    for name in ("annotation/val/3.json", "annotation/val/5.json", "metas/latin.txt"):
        assert f"unreadable caption: {name}: " in caplog.text


def test_captions_beside_the_videos_are_found_as_well(tmp_path: Path) -> None:
    write(tmp_path / "videos/in/a.mp4", b"")
    write(tmp_path / "videos/in/a.txt", b"a robot")
    write(tmp_path / "notes.txt", b"none")

    entries = list(find_caption_files(tmp_path))

    assert [(entry.caption, entry.pickle.as_posix()) for entry in entries] == [
        ("a robot", "t5_xxl/in/a.pickle")
    ]
