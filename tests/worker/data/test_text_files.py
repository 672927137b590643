"""Text files: the same words are the same text in every encoding and Unicode form."""

import codecs
import os
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosmos_worker.config.captions import (
    TextError,
    normalise_caption,
)
from cosmos_worker.data.text_files import (
    FileError,
    as_on_disk,
    brief,
    decode_text,
    parse_json,
    printable,
    read_text_file,
)

TEXT = "caf\u00e9 \u2192 push\nthe cube \u63a8"


@pytest.mark.parametrize(
    "content",
    [
        TEXT.encode(),
        codecs.BOM_UTF8 + TEXT.encode(),
        codecs.BOM_UTF16_LE + TEXT.encode("utf-16-le"),
        codecs.BOM_UTF16_BE + TEXT.encode("utf-16-be"),
        codecs.BOM_UTF32_LE + TEXT.encode("utf-32-le"),
        TEXT.replace("\n", "\r\n").encode(),
        TEXT.replace("\n", "\r").encode(),
    ],
)
def test_the_same_text_whatever_wrote_it(content: bytes):
    assert decode_text(content) == TEXT


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"caf\xe9", "not UTF-8: byte 0xe9 at position 3"),
        (codecs.BOM_UTF8 + b"caf\xe9", "not UTF-8: byte 0xe9 at position 6"),
        (b"\xff\xfea", "not UTF-16: byte 0x61 at position 2"),
        ("push".encode("utf-16-le"), "a NUL character at position 1, as in UTF-16 without a byte"),
    ],
)
def test_another_encoding_is_told_with_its_position(content: bytes, message: str):
    with pytest.raises(TextError, match=f"^{message}"):
        decode_text(content)


@pytest.mark.parametrize(
    "text",
    ["cafe\u0301\r\ngo ", " caf\u00e9\ngo", "\ufeff\u00a0caf\u00e9\rgo\n", "\n\ufeffcaf\u00e9\ngo"],
)
def test_a_caption_has_one_form(text: str):
    assert normalise_caption(text) == "caf\u00e9\ngo"


@pytest.mark.parametrize("text", ["\u200b\u200b", "\ufeff \u2060", "\u202e\u00ad", " \r\n\t\x1b"])
def test_a_caption_of_which_nothing_can_be_seen_is_empty(text: str):
    assert normalise_caption(text) == ""


@pytest.mark.parametrize("text", ["\u200bpush\u200b", "\u2060\ufeff push \u200b\n"])
def test_what_is_invisible_around_a_caption_is_no_part_of_it(text: str):
    assert normalise_caption(text) == "push"


def test_joiners_are_part_of_a_caption():
    family = "\U0001f468\u200d\U0001f467 \u0d7b\u200d"

    assert normalise_caption(family) == unicodedata.normalize("NFC", family)


NFC, NFD = "caf\u00e9", "cafe\u0301"


@pytest.mark.parametrize(
    ("stored", "written"),
    [(NFC, NFD), (NFD, NFC), (f"{NFC}/{NFD}", f"{NFD}/{NFC}"), (f"a/{NFD}", f"./a/../a/{NFC}")],
)
def test_a_path_is_found_by_either_form_of_its_letters(tmp_path: Path, stored: str, written: str):
    file = tmp_path / f"{stored}.mp4"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()

    assert as_on_disk(tmp_path / f"{written}.mp4").samefile(file)


def test_a_path_of_nothing_or_of_two_stays_as_written(tmp_path: Path):
    for form in ("o\u0323\u0307", "o\u0307\u0323"):
        (tmp_path / form).touch()

    assert as_on_disk(tmp_path / NFC) == tmp_path / NFC
    assert as_on_disk(tmp_path / "\u1ecd\u0307") == tmp_path / "\u1ecd\u0307"


@given(st.text())
def test_the_form_of_a_caption_is_final_and_can_be_written(text: str):
    try:
        caption = normalise_caption(text)
    except TextError:
        assert "\0" in text or any("\ud800" <= mark <= "\udfff" for mark in text)
        return

    caption.encode()
    assert normalise_caption(caption) == caption


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "JSON that is too deeply nested"),
        ("[" + "9" * 5000 + "]", "a number of too many digits"),
        ('{"a": 1, "b": {"c": 1, "c": 2}}', "'c' is given twice in one object"),
        ('{"a": ', r"not JSON: Expecting value: line 1 column 7 \(char 6\)"),
    ],
)
def test_json_that_cannot_be_used_is_told_in_a_line(text: str, message: str):
    with pytest.raises(TextError, match=f"^{message}$"):
        parse_json(text)


def test_what_is_no_file_is_told(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "large").write_bytes(b"x" * 11)
    expected = {
        "absent": "cannot be read: No such file or directory",
        "": "a folder, not a file",
        "pipe": "a named pipe, not a file",
        "loop": "cannot be read: Too many levels of symbolic links",
        "large": "11 bytes, at most 10 are read",
        "n" * 300: "cannot be read: File name too long",
        "a\0b": "cannot be a file's name: embedded null byte",
    }

    for name, message in expected.items():
        with pytest.raises(FileError, match=f"^{message}"):
            read_text_file(tmp_path / name, max_bytes=10)


def test_a_value_is_named_briefly_however_large_or_deep():
    deep: list = []
    for _ in range(900):
        deep = [deep]

    assert brief([3]) == "[3]"
    assert brief("push") == "'push'"
    assert max(len(brief(value)) for value in (deep, "x" * 10**6, [["y"] * 9] * 9, 10**4000)) <= 80


def test_printable_text_can_be_written_in_one_line():
    assert printable("caf\u00e9 \u63a8") == "caf\u00e9 \u63a8"
    assert printable("a\nb\x1b[1m\udce9\u202e") == "a\\nb\\x1b[1m\\udce9\\u202e"
